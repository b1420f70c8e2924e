"""A lazily read tensor of a weight file of any format: name, shape and dtype are known, numbers are read on request."""

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

# The types that are read and written, by their names in safetensors, in the order in which a file has them.
DTYPES = {"U64": "uint64", "I64": "int64", "F64": "float64", "F32": "float32", "U32": "uint32", "I32": "int32"}
DTYPES |= {"BF16": "bfloat16", "F16": "float16", "U16": "uint16", "I16": "int16", "I8": "int8", "U8": "uint8"}
DTYPES |= {"BOOL": "bool"}
FLOATS = {name: dtype for name, dtype in DTYPES.items() if "float" in dtype}
THREADS = 2  # that copy tensors to the device; each keeps one more tensor in memory


class Tensor(NamedTuple):
    """A tensor of a file, or a part of one converted to our layout.

    Attributes:
        view: returns the numbers without a copy where possible, usually mapped from the file.
        stored: the shape in the file.
        offset: the position of the numbers in the file in bytes; None if the file has them in another layout.
        digest: the expected digest of the bytes; None if the file has no digests.
        stamp: the same in all weight files of one of our checkpoints.
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
        """The tensor after `change` (a transposition, a slice), still unread."""
        shape = change(np.empty(self.shape, np.int8)).shape
        return self._replace(shape=shape, view=lambda: change(self.view()), offset=None, digest=None)

    def header(self) -> "Tensor":
        """The same tensor without its numbers: to read them is an error."""

        def view() -> np.ndarray:
            raise CheckpointError(f"{self.file}: tensor {self.name!r}: only its name, type and shape were read")

        return self._replace(view=view, offset=None)

    def read(self) -> np.ndarray:
        """A copy of the numbers in memory, so that later changes of the file do not matter.

        Raises CheckpointError if they differ from the digest, or if the file has become shorter.
        """
        array = self.copy()
        if self.is_damaged(array):
            raise self.damage()
        return array

    def copy(self) -> np.ndarray:
        """As `read`, without a look at the digest."""
        source = self.view()
        # Whole pages of memory: JAX uses an array that begins at a multiple of 64 bytes without a copy. NumPy would
        # request huge pages, which take two to three times as long on machines that must find them first.
        pages = mmap.mmap(-1, max(source.nbytes, 1))
        array = np.frombuffer(pages, source.dtype, source.size).reshape(source.shape)
        if self.offset is None:
            np.copyto(array, source)
        else:  # twice as fast as a copy from the mapped file, page by page
            with open(self.file, "rb") as opened:
                opened.seek(self.offset)
                if opened.readinto(memoryview(pages)[: source.nbytes]) != source.nbytes:
                    raise CheckpointError(f"{self.file}: ends in tensor {self.name!r}; download or save it again")
        return array

    def is_damaged(self, array: np.ndarray) -> bool:
        """Whether the numbers of this tensor differ from its digest, if it has one."""
        return self.digest is not None and digest_of(array) != self.digest

    def damage(self) -> CheckpointError:
        """The error for a tensor that is damaged."""
        problem = "differs from what was saved: the file is damaged; download or save it again"
        return CheckpointError(f"{self.file}: tensor {self.name!r} {problem}")


def to_device(leaves: Mapping[str, Any], on_nonfinite: Callable[[str, Path], None]) -> dict[str, jax.Array]:
    """Copy tensors and arrays to JAX's default device, two at a time; no copy stays in the host's memory.

    `on_nonfinite(name, file)` is called for each tensor without a digest that holds NaN or infinity. A tensor with a
    digest was saved with these values on purpose.
    """
    (device,) = jax.numpy.zeros(()).devices()  # this thread's default; the pool's threads have their own

    def put(name: str, leaf: Any) -> jax.Array:
        with jax.default_device(device):
            if not isinstance(leaf, Tensor):
                return jax.device_put(leaf)
            source = leaf.view()
            source = leaf.read() if source.flags.c_contiguous else source  # JAX transposes faster than NumPy
            if leaf.digest is None and not is_finite(source):
                on_nonfinite(name, leaf.file)
            return jax.device_put(source)

    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(leaves, pool.map(put, leaves.keys(), leaves.values())))


def mapped(name: str, file: Path, offset: int, shape: tuple[int, ...], dtype: str) -> Tensor:
    """A tensor stored as plain bytes at `offset` of a file, mapped so that only what is read takes memory."""

    def view() -> np.ndarray:
        kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
        return np.memmap(file, kind, "r", offset, shape)

    return Tensor(name, file, shape, dtype, view, shape, offset)
