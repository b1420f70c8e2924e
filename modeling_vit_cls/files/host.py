"""From arrays on any devices, of one process or of several, to arrays in the memory of the host, one at a time."""

from collections.abc import Iterable
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..nn.scan import Block


def to_host(array: Any) -> np.ndarray:
    """The numbers of an array, or of one block of a stack, in this machine's byte order.

    The array keeps no copy of them, as it does after `np.asarray(array)`. Where it is divided over several processes,
    all of them must call this in the same order: each then gets the whole array.
    """
    if isinstance(array, Block):
        array = array.stack[array.number]
    if not isinstance(array, jax.Array):
        array = np.asarray(array)
        return array.astype(array.dtype.newbyteorder("=")) if array.dtype.byteorder == ">" else array
    if not array.is_fully_addressable and not array.is_fully_replicated:
        assert isinstance(array.sharding, NamedSharding)
        assert isinstance(array.sharding.mesh, Mesh)
        # Several such collectives at a time can wait for each other on the CPU. Hence each process waits for each.
        array = _whole(array.sharding.mesh)(array).block_until_ready()
    if array.is_fully_replicated:
        return np.asarray(array.addressable_data(0))
    whole = np.empty(array.shape, array.dtype)
    for shard in array.addressable_shards:
        if shard.replica_id == 0:
            whole[shard.index] = np.asarray(shard.data.addressable_data(0))  # of a new object, so that none keeps it
    return whole


def is_shared(arrays: Iterable[Any]) -> bool:
    """Whether any of these arrays has parts in other processes."""
    stacks = (array.stack if isinstance(array, Block) else array for array in arrays)
    return not all(array.is_fully_addressable for array in stacks if isinstance(array, jax.Array))


@cache
def _whole(mesh: Mesh) -> Any:
    """One function for all arrays of a mesh: another one for each array would be compiled for each."""
    return jax.jit(lambda array: array, out_shardings=NamedSharding(mesh, PartitionSpec()))
