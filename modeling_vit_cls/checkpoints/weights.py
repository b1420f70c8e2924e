"""The weight files of a folder: safetensors, one file or shards with an index, Flax names joined by dots."""

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from transformers.utils.hub import convert_file_size_to_int

from ..errors import CheckpointError, shorten

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = "model{suffix}.safetensors"
_OURS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
_SAFE_NAME = re.compile(r"[A-Za-z0-9._-]+\.safetensors")

# Other libraries' weight files: never read, always named, so that nobody wonders why nothing was found.
_FOREIGN = {
    "flax_model.msgpack": "msgpack weights are not read; save them as safetensors with the library that wrote them",
    "pytorch_model.bin": "pickled weights are never read: they can run code; convert them to safetensors first",
    "model.npz": "npz weights are not read; save them as safetensors",
}


FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


class Tensor(NamedTuple):
    """A tensor of a file, known by name, shape and type; its numbers are read when they are asked for."""

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]

    def through(self, change: Callable[[np.ndarray], np.ndarray]) -> "Tensor":
        """The tensor that `change` (a transposition, a slice) makes of this one, still unread."""
        shape = change(np.empty(self.shape, np.int8)).shape
        return self._replace(shape=shape, read=lambda: np.ascontiguousarray(change(self.read())))


def is_checkpoint_file(name: str) -> bool:
    """Whether a file name is one of a checkpoint of ours: config, image processor or weights."""
    return name in ("config.json", "preprocessor_config.json") or is_weight_file(name)


def is_weight_file(name: str) -> bool:
    """Whether a file name is one that `write_weights` gives."""
    return _OURS.fullmatch(name) is not None


def write_weights(folder: Path, tensors: Mapping[str, Any], max_shard_size: int | str = "5GB") -> None:
    """Write named arrays to `model.safetensors`, or to shards of at most `max_shard_size` bytes and an index.

    Arrays that live on an accelerator are brought over one shard at a time.
    """
    limit = convert_file_size_to_int(max_shard_size)
    plan = split_state_dict_into_shards_factory(
        dict(tensors), get_storage_size=lambda t: t.nbytes, filename_pattern=SHARD, max_shard_size=limit
    )
    mode = _ordinary_mode(folder)
    for name, keys in plan.filename_to_tensors.items():
        # safetensors writes the wrong numbers, without a word, for an array that is not contiguous
        shard = {key: np.ascontiguousarray(tensors[key]).reshape(tensors[key].shape) for key in keys}
        save_file(shard, folder / name, metadata={"format": "flax"})
        (folder / name).chmod(mode)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _ordinary_mode(folder: Path) -> int:
    """The mode that open() gives a new file here; safetensors alone would write 0600."""
    probe = folder / ".mode"
    probe.touch()
    try:
        return probe.stat().st_mode & 0o777
    finally:
        probe.unlink()


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder by name. Raises CheckpointError naming the file that is missing, damaged or unsafe."""
    tensors: dict[str, Tensor] = {}
    for file, expected in _weight_files(folder).items():
        found = _read_file(file)
        if expected is not None and set(found) != expected:
            odd = sorted(expected ^ set(found))[0]
            where = "is named by the index but is not in" if odd in expected else "is not named by the index but is in"
            raise CheckpointError(f"{file}: tensor {shorten(odd)} {where} this shard; download or save it again")
        tensors.update(found)
    return tensors


def _weight_files(folder: Path) -> dict[Path, set[str] | None]:
    """The files to read, each with the names it must hold (None: whatever it holds)."""
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file() and index.is_file():
        raise CheckpointError(f"{folder}: holds both {SINGLE} and {INDEX}; delete the one that is out of date")
    if single.is_file():
        return {single: None}
    if index.is_file():
        return _shards(index)
    for name, remedy in _FOREIGN.items():
        if (folder / name).exists():
            raise CheckpointError(f"{folder / name}: {remedy}")
    raise CheckpointError(f"{folder}: holds no weights; expected {SINGLE}, or {INDEX} and its shards")


def _shards(index: Path) -> dict[Path, set[str] | None]:
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        pairs = [(str(key), name) for key, name in weight_map.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index}: is not an index of shards: expected JSON with a 'weight_map'") from error
    if not pairs:
        raise CheckpointError(f"{index}: its 'weight_map' is empty")
    shards: dict[Path, set[str] | None] = {}
    for key, name in pairs:
        if not isinstance(name, str) or not _SAFE_NAME.fullmatch(name):
            raise CheckpointError(f"{index}: shard name {shorten(name)} must be a .safetensors file beside the index")
        file = index.parent / name
        if not file.is_file():
            raise CheckpointError(f"{file}: is missing; {index.name} names it for tensor {shorten(key)}")
        names = shards.setdefault(file, set())
        assert names is not None
        names.add(key)
    return shards


def _read_file(file: Path) -> dict[str, Tensor]:
    try:
        opened = safe_open(file, framework="numpy")
        tensors = {}
        for name in opened.keys():  # noqa: SIM118 (not a mapping)
            header = opened.get_slice(name)
            dtype = str(header.get_dtype())
            read = partial(opened.get_tensor, name)
            tensors[name] = Tensor(name, file, tuple(header.get_shape()), FLOATS.get(dtype, dtype), read)
        return tensors
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: {_why_unreadable(file)} ({error})") from error


def _why_unreadable(file: Path) -> str:
    with open(file, "rb") as opened:
        head = opened.read(64)
    if head.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the weights; run `git lfs install && git lfs pull`"
    if not head:
        return "is empty; download or save it again"
    return "is not a whole safetensors file; download or save it again"
