"""Writing one safetensors file, array by array: the same bytes for the same content, those of safetensors itself."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .host import to_host
from .tensor import DTYPES

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_safetensors(
    file: Path,
    tensors: Mapping[str, Any],
    metadata: Mapping[str, str],
    inspect: Callable[[str, np.ndarray], None] = lambda *_: None,
) -> None:
    """Write named arrays and metadata, with one array at a time in the host's memory.

    `inspect` is called with each name and its numbers before they are written. Raises OSError if the disk is full or
    fails, and TypeError for a type that safetensors files of this package do not have.
    """
    with open(file, "wb") as opened:
        opened.write(_header(tensors, metadata))

        def write(name: str) -> None:
            array = np.ascontiguousarray(to_host(tensors[name]))
            inspect(name, array)
            opened.write(array.reshape(-1).view(np.uint8).data)

        for name in _order(tensors):
            write(name)


def gather(tensors: Mapping[str, Any]) -> None:
    """Do for arrays of several processes what `write_safetensors` in another process needs of this one."""
    for name in _order(tensors):
        to_host(tensors[name])


def replace_metadata(file: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Replace the metadata of a file of these arrays by others of the same length."""
    header = _header(tensors, metadata)
    with open(file, "r+b") as opened:
        if 8 + int.from_bytes(opened.read(8), "little") != len(header):
            raise ValueError(f"{file}: its header has another length than {len(header)} bytes")
        opened.seek(0)
        opened.write(header)


def _order(tensors: Mapping[str, Any]) -> Iterable[str]:
    """The order of safetensors: wide types first, then by name."""
    order = list(_NAMES)
    for name, tensor in tensors.items():
        if tensor.dtype.name not in _NAMES:
            raise TypeError(f"{name!r} has the type {tensor.dtype.name}, expected one of {', '.join(order)}")
    return sorted(tensors, key=lambda name: (order.index(tensors[name].dtype.name), name))


def _header(tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """The header of a file: its length in 8 bytes, then JSON, up to a multiple of 8 bytes."""
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    start = 0
    for name in _order(tensors):
        tensor = tensors[name]
        end = start + tensor.nbytes
        entries[name] = {"dtype": _NAMES[tensor.dtype.name], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    return len(text).to_bytes(8, "little") + text
