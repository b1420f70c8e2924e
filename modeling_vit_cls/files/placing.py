"""From files to the devices of a mesh: a process copies the parts that its own devices need, from the mapped files."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from .finite import is_finite
from .tensor import THREADS, Tensor

_FINE, _NONFINITE, _DAMAGED = range(3)
Part = Callable[[tuple[slice, ...]], np.ndarray]


def to_mesh(
    leaves: Mapping[str, Any], shardings: Mapping[str, NamedSharding], on_nonfinite: Callable[[str, Path], None]
) -> dict[str, jax.Array]:
    """Copy tensors and arrays to the devices of a mesh, as `to_device` does to one device.

    Raises CheckpointError for a tensor that differs from its digest. A process that has all of a tensor compares it
    itself.
    """
    verdicts = np.zeros(len(leaves), np.int32)

    def put(number: int, name: str, leaf: Any) -> jax.Array:
        sharding = shardings[name]
        if isinstance(leaf, jax.Array) and isinstance(leaf.sharding, NamedSharding):
            return jax.device_put(leaf, sharding)
        if not isinstance(leaf, Tensor):
            return place(leaf.shape, sharding, np.asarray(leaf).__getitem__)
        source = leaf.view()
        source = leaf.copy() if source.flags.c_contiguous else source
        verdicts[number] = _verdict(leaf, source)
        return place(leaf.shape, sharding, lambda index: np.ascontiguousarray(source[index]))

    with ThreadPoolExecutor(THREADS) as pool:
        arrays = dict(zip(leaves, pool.map(put, range(len(leaves)), leaves, leaves.values())))
    for (name, leaf), verdict in zip(leaves.items(), verdicts):
        if verdict == _DAMAGED:
            raise leaf.damage()
        if verdict == _NONFINITE:
            on_nonfinite(name, leaf.file)
    return arrays


def place(shape: tuple[int, ...], sharding: NamedSharding, part: Part) -> jax.Array:
    """An array on the devices of a mesh. `part` gives its numbers at an index, once for all devices of a process."""
    parts: dict[str, np.ndarray] = {}

    def shard(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        if str(index) not in parts:
            parts[str(index)] = part(index)
        return parts[str(index)]

    return jax.make_array_from_callback(shape, sharding, shard)


def _verdict(tensor: Tensor, array: np.ndarray) -> int:
    if tensor.digest is None:
        return _FINE if is_finite(array) else _NONFINITE
    return _DAMAGED if tensor.is_damaged(array) else _FINE
