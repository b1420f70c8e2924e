"""Stacked parameters for a scan over the blocks: `layer_00`, `layer_01`, ... <-> one `layers` of arrays (L - 1, ...).

Files and models have separate parameters for each block. Training stacks those of all blocks but the last, so that one
program runs, differentiates and updates them. The last block stays separate because it may compute fewer tokens.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

STACK = "layers"  # the other blocks, next to the last block's `layer_NN`
_BLOCK, _STACKED = re.compile(r"(^|\.)layer_(\d+)\."), re.compile(rf"(^|\.){STACK}\.")


def stack(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Stack the arrays of all blocks but the last: `layer_NN.x` (...) of each -> `layers.x` (L - 1, ...).

    `arrays` are by dotted name. The arrays of the last block, and those outside the blocks, are unchanged.
    """
    numbers = {name: int(match[2]) for name in arrays if (match := _BLOCK.search(name))}
    last = max(numbers.values(), default=0)
    stacks: dict[str, list[Any]] = {}
    for name in sorted(numbers, key=numbers.__getitem__):
        if numbers[name] < last:
            stacks.setdefault(_BLOCK.sub(rf"\1{STACK}.", name), []).append(arrays[name])
    unchanged = {name: array for name, array in arrays.items() if numbers.get(name, last) == last}
    return unchanged | {name: jnp.stack(blocks) for name, blocks in stacks.items()}


class Block(NamedTuple):
    """The array of one block in a stack (L - 1, ...), which is taken from it when it is needed."""

    stack: Any
    number: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stack.shape[1:]

    @property
    def dtype(self) -> Any:
        return self.stack.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def unstack(arrays: Mapping[str, Any], take: Callable[[Any, int], Any] = operator.getitem) -> dict[str, Any]:
    """The inverse of `stack`. `take` gives a block of a stacked array; with `Block` nothing is computed yet."""
    blocks: dict[str, Any] = {}
    for name, array in arrays.items():
        if is_stacked(name):
            depth = array.shape[0]
            blocks |= {_STACKED.sub(rf"\1layer_{i:02d}.", name): take(array, i) for i in range(depth)}
        else:
            blocks[name] = array
    return blocks


def is_stacked(name: str) -> bool:
    """Whether a dotted name is that of a stacked array."""
    return _STACKED.search(name) is not None


def stack_params(params: Any) -> Any:
    """`stack` for a nested dict."""
    return unflatten_dict(stack(flatten_dict(params, sep=".")), sep=".")


def unstack_params(params: Any, take: Callable[[Any, int], Any] = operator.getitem) -> Any:
    """`unstack` for a nested dict."""
    return unflatten_dict(unstack(flatten_dict(params, sep="."), take), sep=".")
