"""The weight files of a folder: which ones are read, and how ours are written (safetensors, names joined by dots)."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import split_state_dict_into_shards_factory
from transformers.utils.hub import convert_file_size_to_int

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, shorten
from ..names import INDEX, SHARD, WEIGHTS
from .digests import NO_DIGEST, digest_of, stamp_of, to_metadata
from .formats import SUFFIXES, read_file
from .json_file import read_json
from .tensor import Tensor
from .unread import PICKLES, pickle_refused, unread_weights
from .writing import gather, replace_metadata, write_safetensors

logger = logging.getLogger(__name__)

FLAX = "flax_model.msgpack"
STANDARD_WEIGHTS = (WEIGHTS, INDEX, FLAX)  # of a whole model, as transformers names them; the first one is read
_SAFE_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}\.safetensors")


def write_weights(
    folder: Path | None,
    tensors: Mapping[str, Any],
    max_shard_size: int | str = "5GB",
    config: ViTClsConfig | None = None,
    allow_nonfinite: bool = False,
) -> None:
    """Write named arrays to `model.safetensors`, or to shards of at most `max_shard_size` bytes and an index.

    With a config these are our weights, and digests of tensors and architecture are written with them. Without one,
    they have the names and layouts of PyTorch. One tensor at a time is in the host's memory. Where the arrays are
    divided over several processes, one writes, and the others call this with `folder=None`.

    Raises CheckpointError for NaN or infinity, unless `allow_nonfinite`; files that are written by then are not whole.
    """
    limit = convert_file_size_to_int(max_shard_size)
    plan = split_state_dict_into_shards_factory(
        dict(tensors), get_storage_size=lambda t: t.nbytes, filename_pattern=SHARD, max_shard_size=limit
    )
    shards = {name: {key: tensors[key] for key in keys} for name, keys in plan.filename_to_tensors.items()}
    if folder is None:
        for shard in shards.values():
            gather(shard)
        return
    digests = dict.fromkeys(tensors, NO_DIGEST)

    def metadata(shard: Mapping[str, Any]) -> dict[str, str]:
        if config is None:
            return {"format": "pt"}
        return {"format": "flax", **to_metadata({key: digests[key] for key in shard}, stamp_of(config, digests))}

    def inspect(name: str, array: np.ndarray) -> None:
        if not allow_nonfinite and not np.isfinite(array).all():
            remedy = "training has diverged; allow_nonfinite=True saves the parameters anyway"
            raise CheckpointError(f"params: {name!r} holds NaN or infinity, so nothing was saved: {remedy}")
        if config is not None:
            digests[name] = digest_of(array)

    for name, shard in shards.items():
        write_safetensors(folder / name, shard, metadata(shard), inspect)
    for name, shard in shards.items():
        replace_metadata(folder / name, shard, metadata(shard))  # now with all digests, as long as those before
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a folder or of one file, by name.

    A folder holds `model.safetensors`, or shards and their index, or `flax_model.msgpack`, or one weight file of
    another name. Raises CheckpointError naming the file that is missing, damaged, pickled or unsafe.
    """
    tensors: dict[str, Tensor] = {}
    for file, expected in _weight_files(path).items():
        shard = read_file(file)
        if expected is not None and set(shard) != expected:
            name = min(expected ^ set(shard))
            where = "is named by the index but is not in" if name in expected else "is not named by the index but is in"
            raise CheckpointError(f"{file}: tensor {shorten(name)} {where} this shard; download or save it again")
        tensors.update(shard)
    return tensors


def holds_weights(folder: Path) -> bool:
    """Whether a folder contains a weight file of a format that we read."""
    return folder.is_dir() and any(entry.suffix in SUFFIXES for entry in folder.iterdir())


def holds_standard_weights(path: Path) -> bool:
    """Whether a folder, or the folder of a weight file, has weights under the file names of transformers."""
    folder = path if path.is_dir() else path.parent
    return any((folder / name).is_file() for name in STANDARD_WEIGHTS)


def _weight_files(path: Path) -> dict[Path, set[str] | None]:
    """The files to read, each with the names of the tensors that it must hold; None for any names."""
    if path.is_file():
        if path.suffix in SUFFIXES:
            return {path: None}
        if path.suffix == ".json" and path.name.startswith("model.safetensors.index."):  # of a variant
            return _shards(path)
        if path.name.endswith(PICKLES):
            raise pickle_refused(path)
        raise CheckpointError(f"{path}: is no weight file; expected one that ends in {', '.join(SUFFIXES)}")
    single, index = path / WEIGHTS, path / INDEX
    if single.is_file():
        if index.is_file() and any(file != single for file in _shards(index, missing_ok=True)):
            logger.warning("%s: has both %s and %s; the first is read, as in transformers", path, WEIGHTS, INDEX)
        return {single: None}
    if index.is_file():
        return _shards(index)
    files = sorted(entry for entry in path.iterdir() if entry.suffix in SUFFIXES and entry.is_file())
    if path / FLAX in files:
        return {path / FLAX: None}
    if len(files) > 1:
        raise CheckpointError(f"{path}: holds several weight files; give one of them: {', '.join(map(str, files))}")
    if files:
        return {files[0]: None}
    if error := unread_weights((entry.name for entry in path.iterdir()), path):
        raise error
    raise CheckpointError(f"{path}: holds no weights; expected {WEIGHTS}, or {INDEX} and its shards")


def _shards(index: Path, missing_ok: bool = False) -> dict[Path, set[str] | None]:
    """The shards that an index names, each with the names of its tensors."""
    try:
        pairs = [(str(key), name) for key, name in read_json(index)["weight_map"].items()]
    except (KeyError, AttributeError) as error:
        raise CheckpointError(f"{index}: is not an index of shards: expected JSON with a 'weight_map'") from error
    if not pairs:
        raise CheckpointError(f"{index}: its 'weight_map' is empty")
    shards: dict[Path, set[str] | None] = {}
    for key, name in pairs:
        if not isinstance(name, str) or not _SAFE_NAME.fullmatch(name):
            raise CheckpointError(f"{index}: shard name {shorten(name)} must be a .safetensors file beside the index")
        file = index.parent / name
        if not file.is_file() and not missing_ok:
            raise CheckpointError(f"{file}: is missing, but {index.name} names it for tensor {shorten(key)}")
        names = shards.setdefault(file, set())
        assert names is not None
        names.add(key)
    return shards
