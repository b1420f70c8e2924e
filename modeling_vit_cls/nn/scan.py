"""Two arrangements of the same parameters: block by block, or those of all blocks but the last in one array each.

Files and models have the first; training has the second, by which one program runs, differentiates and updates all
blocks. The last block stays alone, since it may compute less than the others.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

STACK = "layers"  # beside the last block's `layer_NN`
_BLOCK, _STACKED = re.compile(r"(^|\.)layer_(\d+)\."), re.compile(rf"(^|\.){STACK}\.")


def stack(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays by dotted name, `...layer_NN...` -> the same with `...layers...` (L - 1, ...); others as they are."""
    numbers = {name: int(found[2]) for name in arrays if (found := _BLOCK.search(name))}
    last = max(numbers.values(), default=0)
    stacks: dict[str, list[Any]] = {}
    for name in sorted(numbers, key=numbers.__getitem__):
        if numbers[name] < last:
            stacks.setdefault(_BLOCK.sub(rf"\1{STACK}.", name), []).append(arrays[name])
    alone = {name: array for name, array in arrays.items() if numbers.get(name, last) == last}
    return alone | {name: jnp.stack(blocks) for name, blocks in stacks.items()}


def unstack(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `stack`."""
    blocks: dict[str, Any] = {}
    for name, array in arrays.items():
        if is_stacked(name):
            blocks |= {_STACKED.sub(rf"\1layer_{i:02d}.", name): array[i] for i in range(len(array))}
        else:
            blocks[name] = array
    return blocks


def is_stacked(name: str) -> bool:
    """Whether a dotted name is that of one array for all blocks but the last."""
    return _STACKED.search(name) is not None


def stack_params(params: Any) -> Any:
    """`stack` for a nested dict."""
    return unflatten_dict(stack(flatten_dict(params, sep=".")), sep=".")


def unstack_params(params: Any) -> Any:
    """`unstack` for a nested dict."""
    return unflatten_dict(unstack(flatten_dict(params, sep=".")), sep=".")
