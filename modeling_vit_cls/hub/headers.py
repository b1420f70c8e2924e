"""The checkpoint of a repository without its weights: small files whole, of weight files the headers alone."""

import io
import logging
import shutil
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url

from ..files.formats import MAX_HEADER, SUFFIXES
from .download import conversion_note, download, files_to_download, revision_without_pickles
from .errors import errors_in_one_line
from .msgpack import skim_msgpack
from .ranges import RangeReader, RemoteFile

logger = logging.getLogger(__name__)

_FIRST = 64_000  # bytes of a safetensors file to ask for first: the header of a ViT-L has some 45,000
_BLOCK = 8192  # bytes of other files to ask for: zipfile reads half as many at the beginning of an array
_DAMAGES = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, LookupError, NotImplementedError, RuntimeError)


class HeaderFetch:
    """Makes folders of repositories for `checkpoint_path`, with files of the right size that hold only headers.

    Whatever reads a checkpoint's headers reads the same as from the whole files. The rest of a weight file is a hole,
    which takes no space on the disk and reads as zeros: read the tensors by `read_headers`.

    Attributes:
        repositories: the folders that were made, with the repository of each.
        size: bytes that a load would download.
        bytes_read: bytes of weight files that were read instead.
        licence: that of the first repository, by the metadata of its card.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self.repositories: dict[Path, str] = {}
        self.size, self.bytes_read = 0, 0
        self.licence: str | None = None

    def __call__(
        self, repo_id: str, subfolder: str, revision: str | None, variant: str | None, hub: dict[str, Any]
    ) -> Path:
        """The folder of a repository. Without a network it is the one in the cache, with whole files."""
        if hub.get("local_files_only") or constants.HF_HUB_OFFLINE:
            return download(repo_id, subfolder, revision, variant, hub)
        api = HfApi(token=hub.get("token"))
        with errors_in_one_line(repo_id, revision, hub.get("token")):
            info = api.model_info(repo_id, revision=revision, files_metadata=True)
            sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
            names = files_to_download(sizes, subfolder, variant)
            if variant is None and not any(name.endswith(SUFFIXES) for name in names):
                converted = revision_without_pickles(api, repo_id, sizes, subfolder, revision)
                if converted is not None:
                    logger.warning("%s: %s", repo_id, conversion_note(converted))
                    return self(repo_id, subfolder, converted, variant, hub)
            root = self._folder / str(len(self.repositories))
            (root / subfolder).mkdir(parents=True)
            self.licence = self.licence if self.repositories else licence_of(info.card_data)
            self.repositories[root] = repo_id
            self.size += sum(sizes[name] for name in names)
            for name in names:
                file = root / name
                if name.endswith(SUFFIXES):
                    url = hf_hub_url(repo_id, name, revision=info.sha)
                    self._write_headers(RemoteFile(url, f"{repo_id}/{name}", sizes[name], hub.get("token")), file)
                else:
                    shutil.copyfile(hf_hub_download(repo_id, name, revision=info.sha, **hub), file)
        return root

    def shown(self, text: str) -> str:
        """A message with the names of repositories instead of the folders that were made for them."""
        for root, repo_id in self.repositories.items():
            text = text.replace(str(root), repo_id)
        return text

    def _write_headers(self, remote: RemoteFile, file: Path) -> None:
        """Write the headers of a weight file to their places in a file of the same size."""
        with open(file, "wb") as copy:
            if file.suffix == ".safetensors":
                _safetensors(remote, copy)
            else:
                reader = RangeReader(remote, copy)
                with suppress(*_DAMAGES):  # a damaged file is refused by its reader
                    skim = {".npz": _skim_npz, ".msgpack": skim_msgpack}[file.suffix]
                    skim(io.BufferedReader(reader, _BLOCK))
                if reader.error is not None:
                    raise reader.error
            copy.truncate(remote.size)
        self.bytes_read += remote.bytes_read


def _safetensors(remote: RemoteFile, copy: BinaryIO) -> None:
    """The length of the header in 8 bytes, and the header. One that is too long is refused by its reader."""
    head = remote.read(0, _FIRST)
    stop = 8 + min(int.from_bytes(head[:8], "little"), MAX_HEADER)
    copy.write(head + remote.read(len(head), stop))


def _skim_npz(file: BinaryIO) -> None:
    """Read the directory at the end of an npz file, and the beginning of each array."""
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as opened:
                opened.read(1)


def licence_of(card: Any) -> str | None:
    """The licence in a card's metadata, if any: its identifier, or the name of one that has none."""
    fields = card.to_dict() if card is not None else {}
    licence = fields.get("license_name") if fields.get("license") == "other" else None
    licence = licence or fields.get("license")
    return ", ".join(map(str, licence)) if isinstance(licence, list) else licence and str(licence)
