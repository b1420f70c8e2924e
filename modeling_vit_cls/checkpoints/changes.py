"""What a push changes: the files of ours in a folder, compared with those in a repository."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub.hf_api import RepoFile

from ..errors import CheckpointError
from ..names import (
    CARD,
    CONFIG,
    EVAL_RESULTS,
    PICTURES,
    RECIPE,
    RESULTS,
    TRAINER_STATE,
    is_checkpoint_file,
    is_weight_file,
)
from .load import open_checkpoint

Content = Path | bytes

# What lies beside the weights of a model that was trained or measured here.
_REPLACED = {RESULTS, RECIPE, TRAINER_STATE, *PICTURES, EVAL_RESULTS}
_TOKEN = re.compile(rb"hf_[A-Za-z0-9]{30,}")


@dataclass(frozen=True)
class Change:
    """What a push does to one file; `size` in bytes is that of the new content, of a deleted file that of the old."""

    action: Literal["add", "replace", "delete", "unchanged"]
    path: str
    size: int


def files_to_push(folder: Path, with_results: bool, card: str | None = None) -> dict[str, Content]:
    """The checkpoint in a folder, by path in the repository; with the results also what training and benchmark left.

    `card` is pushed instead of the folder's README.md. Whatever else lies there stays there. Raises CheckpointError
    for a folder without a whole checkpoint, and for a text that holds a token of the Hub.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder")
    open_checkpoint(folder)
    found: dict[str, Content] = {e.name: e for e in sorted(folder.iterdir()) if is_checkpoint_file(e.name)}
    if CONFIG not in found or not any(map(is_weight_file, found)):
        raise CheckpointError(f"{folder}: holds no checkpoint of ours; `vit-cls import` makes one of another library's")
    if with_results:
        found |= {name: folder / name for name in sorted(_REPLACED | {CARD}) if (folder / name).is_file()}
        found |= {} if card is None else {CARD: card.encode()}
    for name, content in found.items():
        if not is_weight_file(name) and _TOKEN.search(_read(content)):
            raise CheckpointError(f"{folder / name}: holds a token of the Hub; remove it there, and revoke the token")
    return found


def compare(files: Mapping[str, Content], remote: Iterable[RepoFile], with_results: bool) -> list[Change]:
    """What must change in a repository for it to hold `files`, and no other file of ours; a card is never deleted."""
    there = {file.path: file for file in remote}
    changes: list[Change] = []
    for name, content in files.items():
        action = "add"
        if name in there:
            action = "unchanged" if _is_same(content, there[name]) else "replace"
        changes.append(Change(action, name, _size(content)))
    for name, file in there.items():
        ours = is_checkpoint_file(name) or (with_results and name in _REPLACED)
        if ours and name not in files:
            changes.append(Change("delete", name, file.size))
    return sorted(changes, key=lambda change: change.path)


def _is_same(content: Content, file: RepoFile) -> bool:
    """Whether a file is what the repository says of it: by SHA-256 in LFS, else by git's SHA-1 of a blob."""
    size = _size(content)
    if size != file.size:
        return False
    if file.lfs is not None:
        return _digest(content, hashlib.sha256()) == file.lfs.sha256
    return _digest(content, hashlib.sha1(b"blob %d\0" % size)) == file.blob_id


def _size(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _read(content: Content) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def _digest(content: Content, digest: "hashlib._Hash") -> str:
    if isinstance(content, bytes):
        digest.update(content)
    else:
        with open(content, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
