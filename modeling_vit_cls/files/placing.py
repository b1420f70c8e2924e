"""From files to the devices of a mesh: a process copies the parts that its own devices need, from the mapped files."""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding

from .. import processes
from .finite import is_finite
from .tensor import THREADS, Tensor

_FINE, _NONFINITE, _DAMAGED = range(3)
Part = Callable[[tuple[slice, ...]], np.ndarray]


def to_mesh(
    tensors: Mapping[str, Tensor], shardings: Mapping[str, NamedSharding], on_nonfinite: Callable[[str, Path], None]
) -> dict[str, jax.Array]:
    """Copy tensors to the devices of a mesh, as `to_device` does to one device.

    Raises CheckpointError for a tensor that differs from its digest. A process that needs all of a tensor compares its
    own copy. The tensors that processes share are compared by one of them each, and all raise the error. All processes
    of the mesh must call this.
    """
    shared = not all(sharding.is_fully_addressable for sharding in shardings.values())
    count, index = (processes.count(), processes.index()) if shared else (1, 0)
    verdicts = np.zeros(len(tensors), np.int32)

    def put(number: int, name: str, tensor: Tensor) -> jax.Array:
        sharding = shardings[name]
        source = tensor.view()
        if _needs_all(tensor.shape, sharding):
            source = tensor.copy() if source.flags.c_contiguous else source
            verdicts[number] = _verdict(tensor, source)
        elif number % count == index:
            verdicts[number] = _verdict(tensor, source)
        is_copy = not isinstance(source, np.memmap)
        return assembled(tensor.shape, sharding, source.__getitem__ if is_copy else lambda part: np.array(source[part]))

    with ThreadPoolExecutor(THREADS) as pool:
        arrays = dict(zip(tensors, pool.map(put, range(len(tensors)), tensors, tensors.values())))
    verdicts = processes.gather(verdicts).max(axis=0) if shared else verdicts
    for (name, tensor), verdict in zip(tensors.items(), verdicts):
        if verdict == _DAMAGED:
            raise tensor.damage()
        if verdict == _NONFINITE:
            on_nonfinite(name, tensor.file)
    return arrays


def assembled(shape: tuple[int, ...], sharding: NamedSharding, part: Part) -> jax.Array:
    """An array on the devices of a mesh. `part` gives its numbers at an index, once for all devices of a process."""
    parts: dict[str, np.ndarray] = {}

    def shard(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        if str(index) not in parts:
            parts[str(index)] = part(index)
        return parts[str(index)]

    return jax.make_array_from_callback(shape, sharding, shard)


def _needs_all(shape: tuple[int, ...], sharding: NamedSharding) -> bool:
    """Whether the devices of this process have all parts of an array together."""
    parts = {str(index) for index in sharding.addressable_devices_indices_map(shape).values()}
    return len(parts) * math.prod(sharding.shard_shape(shape)) == math.prod(shape)


def _verdict(tensor: Tensor, array: np.ndarray) -> int:
    if tensor.digest is None:
        return _FINE if is_finite(array) else _NONFINITE
    return _DAMAGED if tensor.is_damaged(array) else _FINE
