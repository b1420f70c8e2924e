"""A tensor of a weight file, whatever the file's format: known by name, shape and type, read when it is asked for."""

import mmap
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np

from ..errors import CheckpointError
from .digests import digest_of
from .finite import is_finite

FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_THREADS = 2  # copying tensors to the device; each holds one more tensor of the file in memory


class Tensor(NamedTuple):
    """A tensor of a file, or a part of one in a layout of ours; `stored` is its shape in the file.

    `view` gives its numbers where they lie, usually mapped from the file; `offset` is where they begin in it, None
    where they lie there in another layout. `digest` is what its bytes must hash to, None where the file does not say;
    `stamp` is the same in all weight files of one checkpoint of ours.
    """

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str
    view: Callable[[], np.ndarray]
    stored: tuple[int, ...]
    offset: int | None = None
    digest: str | None = None
    stamp: str | None = None

    def through(self, change: Callable[[np.ndarray], np.ndarray]) -> "Tensor":
        """The tensor that `change` (a transposition, a slice) makes of this one, still unread."""
        shape = change(np.empty(self.shape, np.int8)).shape
        return self._replace(shape=shape, view=lambda: change(self.view()), offset=None, digest=None)

    def read(self) -> np.ndarray:
        """The numbers in memory of their own: what happens to the file afterwards changes nothing.

        Raises CheckpointError where they are not those of the digest, or the file has become shorter.
        """
        source = self.view()
        # Pages of its own: JAX takes over what begins at a multiple of 64 bytes without a copy. NumPy would ask for
        # huge pages, which take two to three times as long where a machine has to find them first.
        pages = mmap.mmap(-1, max(source.nbytes, 1))
        array = np.frombuffer(pages, source.dtype, source.size).reshape(source.shape)
        if self.offset is None:
            np.copyto(array, source)
        else:  # twice as fast as copying what is mapped, page by page
            with open(self.file, "rb") as opened:
                opened.seek(self.offset)
                if opened.readinto(memoryview(pages)[: source.nbytes]) != source.nbytes:
                    raise CheckpointError(f"{self.file}: ends in tensor {self.name!r}; download or save it again")
        if self.digest is not None and digest_of(array) != self.digest:
            problem = "is not what was saved: the file is damaged; download or save it again"
            raise CheckpointError(f"{self.file}: tensor {self.name!r} {problem}")
        return array


def to_device(leaves: Mapping[str, Any], on_nonfinite: Callable[[str, Path], None]) -> dict[str, jax.Array]:
    """Tensors and arrays on JAX's default device, two copied at a time; in the host's memory nothing stays.

    `on_nonfinite` is told name and file of each tensor that holds NaN or infinity, but for those whose digest says that
    it was so when they were saved.
    """
    (device,) = jax.numpy.zeros(()).devices()  # this thread's default; the pool's threads have their own

    def put(name: str, leaf: Any) -> jax.Array:
        with jax.default_device(device):
            if not isinstance(leaf, Tensor):
                return jax.device_put(leaf)
            source = leaf.view()
            source = leaf.read() if source.flags.c_contiguous else source  # else JAX transposes, faster than NumPy
            if leaf.digest is None and not is_finite(source):
                on_nonfinite(name, leaf.file)
            return jax.device_put(source)

    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(leaves, pool.map(put, leaves.keys(), leaves.values())))


def mapped(name: str, file: Path, offset: int, shape: tuple[int, ...], dtype: str) -> Tensor:
    """A tensor that lies as plain bytes at `offset` of a file; only what is read of it takes memory."""

    def view() -> np.ndarray:
        kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
        return np.memmap(file, kind, "r", offset, shape)

    return Tensor(name, file, shape, dtype, view, shape, offset)
