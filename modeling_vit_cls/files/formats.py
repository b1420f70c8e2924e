"""Readers of weight files: safetensors, npz and Flax's msgpack, to tensors by dotted name. Pickle is never read."""

import json
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

import ml_dtypes
import msgpack
import numpy as np
from flax.serialization import msgpack_restore
from flax.traverse_util import flatten_dict
from numpy.lib import format as npy
from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError, shorten
from .digests import from_metadata
from .json_file import LFS_HEAD, LFS_REMEDY
from .tensor import DTYPES, Tensor, mapped

SUFFIXES = (".safetensors", ".npz", ".msgpack")
MAX_HEADER = 4_000_000  # bytes, some 20,000 tensors; a larger header takes seconds, and no Vision Transformer has one


def read_file(file: Path) -> dict[str, Tensor]:
    """The tensors of one weight file, by name. Raises CheckpointError, naming the file, if it is damaged."""
    readers = {".safetensors": _safetensors, ".npz": _npz, ".msgpack": _msgpack}
    try:
        tensors: dict[str, Tensor] = {}
        for tensor in readers[file.suffix](file):
            if tensor.name in tensors:
                raise CheckpointError(f"{file}: holds {shorten(tensor.name)} twice; download or save it again")
            tensors[tensor.name] = tensor
        return tensors
    except CheckpointError:
        raise
    except (SafetensorError, zipfile.BadZipFile, zlib.error, msgpack.UnpackException, OSError, EOFError) as error:
        raise CheckpointError(f"{file}: {_why_unreadable(file)} ({shorten(str(error), 200)})") from error
    except (ValueError, TypeError, AttributeError, LookupError, RuntimeError, SyntaxError) as error:
        raise CheckpointError(f"{file}: {_why_unreadable(file)} ({shorten(error)})") from error


def _why_unreadable(file: Path) -> str:
    try:
        with open(file, "rb") as opened:
            head = opened.read(64)
    except OSError:
        return "cannot be read"
    if head.startswith(LFS_HEAD.encode()):
        return f"is a git-lfs pointer, not the weights; {LFS_REMEDY}"
    if not head:
        return "is empty; download or save it again"
    return f"is not a whole {file.suffix[1:]} file; download or save it again"


def _safetensors(file: Path) -> Iterator[Tensor]:
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
    if length > MAX_HEADER and length < file.stat().st_size:
        raise CheckpointError(f"{file}: has a header of {length:,} bytes, expected at most {MAX_HEADER:,}")
    # safe_open checks the header, and that the tensors fill the file
    metadata = safe_open(file, framework="numpy").metadata() or {}
    with open(file, "rb") as opened:
        opened.seek(8)
        header = json.loads(opened.read(length))
    header.pop("__metadata__", None)
    digests, stamp = from_metadata(metadata, set(header), file)
    for name, entry in header.items():
        dtype, offset = str(entry["dtype"]), 8 + length + entry["data_offsets"][0]
        tensor = mapped(name, file, offset, tuple(entry["shape"]), DTYPES.get(dtype, dtype))
        yield tensor._replace(digest=digests.get(name), stamp=stamp)


def _npz(file: Path) -> Iterator[Tensor]:
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as opened:
                shape, fortran, dtype = _npy_header(opened)
                start = opened.tell()
            name = entry.filename.removesuffix(".npy").replace("/", ".")
            if not dtype.isnative:
                problem = f"has the type {dtype.str}, expected this machine's byte order"
                raise CheckpointError(f"{file}: array {shorten(name)} {problem}")
            if dtype.hasobject:
                raise CheckpointError(f"{file}: array {shorten(name)} holds pickled objects, which are never read")
            size = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if start + size != entry.file_size:
                problem = f"has {entry.file_size} bytes, expected {start + size} for its shape"
                raise CheckpointError(f"{file}: array {shorten(name)} {problem}")
            if entry.compress_type == zipfile.ZIP_STORED and not fortran:
                offset = _data_offset(file, entry) + start
                if offset + size > file.stat().st_size:
                    raise CheckpointError(f"{file}: array {shorten(name)} would end after the file; download it again")
                yield mapped(name, file, offset, shape, _float_name(dtype))
            else:
                view = partial(_inflated, file, entry, dtype)
                yield Tensor(name, file, shape, _float_name(dtype), view, shape)


def _npy_header(opened: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, Fortran order, dtype) from the header of an npy file. Raises ValueError for any other file."""
    version = npy.read_magic(opened)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        return read(opened)
    except (SyntaxError, tokenize.TokenError) as error:
        raise ValueError(f"an array's header cannot be read ({error})") from error


def _float_name(dtype: np.dtype) -> str:
    """The name of a dtype. NumPy stores bfloat16, which it does not know, as two bytes without a type (V2)."""
    return "bfloat16" if dtype.kind == "V" and dtype.itemsize == 2 else dtype.name


def _data_offset(file: Path, entry: zipfile.ZipInfo) -> int:
    """The offset of an entry's data in the file: after its local header, with two lengths in bytes 26 to 29."""
    with open(file, "rb") as opened:
        opened.seek(entry.header_offset)
        header = opened.read(30)
    return entry.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


def _inflated(file: Path, entry: zipfile.ZipInfo, dtype: np.dtype) -> np.ndarray:
    """Read one array of an npz file that cannot be mapped: it is compressed or in Fortran order."""
    try:
        with zipfile.ZipFile(file) as archive, archive.open(entry) as opened:
            array = npy.read_array(opened, allow_pickle=False)
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"{file}: array {shorten(entry.filename)} cannot be read ({error})") from error
    return array.view(ml_dtypes.bfloat16) if _float_name(dtype) == "bfloat16" else array


def _msgpack(file: Path) -> Iterator[Tensor]:
    """The arrays of a file that flax.serialization wrote; all are read at once."""
    tree = msgpack_restore(file.read_bytes())
    if not isinstance(tree, dict):
        raise CheckpointError(f"{file}: holds {type(tree).__name__}, expected the parameters of a Flax model by name")
    for path, array in flatten_dict(tree).items():
        name = ".".join(map(str, path))
        if not isinstance(array, np.ndarray) or array.dtype.name not in DTYPES.values():
            raise CheckpointError(f"{file}: {shorten(name)} is not an array of numbers, as parameters are")
        yield Tensor(name, file, array.shape, array.dtype.name, partial(np.asarray, array), array.shape)
