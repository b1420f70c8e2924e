"""Layouts: how a tensor of another library is split into our parameters, and how these are joined again."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Change = Callable[[np.ndarray], np.ndarray]


class Layout(NamedTuple):
    """One tensor of another library.

    Attributes:
        names: our names of its parts; None for a part that we do not have.
        split: from the tensor to its parts in our layout.
        join: from the parts to the tensor; None for a layout that is only read.
    """

    names: tuple[str | None, ...]
    split: Callable[[np.ndarray], Sequence[np.ndarray]]
    join: Callable[[Sequence[np.ndarray]], np.ndarray] | None = None


# Layouts of a module by the name of its parameter: {"weight": ..., "bias": ...}, or {"": ...} for a parameter itself.
Layouts = dict[str, Layout]


def _one(name: str, ours: Change, theirs: Change | None = None) -> Layout:
    return Layout((name,), lambda array: [ours(array)], theirs and (lambda parts: theirs(parts[0])))


def _same(name: str) -> Layout:
    return _one(name, lambda array: array, lambda array: array)


def _read_only(name: str) -> Layout:
    return _one(name, lambda array: array)


def vector(name: str) -> Layouts:
    """A parameter with the same layout."""
    return {"": _same(name)}


def linear(name: str) -> Layouts:
    """A Linear: weight (out, in) of torch, or kernel (in, out) of Flax -> kernel (in, out)."""
    transposed = _one(f"{name}.kernel", np.transpose, np.transpose)
    return {"weight": transposed, "bias": _same(f"{name}.bias"), "kernel": _read_only(f"{name}.kernel")}


def conv(name: str) -> Layouts:
    """A Conv2d: weight OIHW of torch, or kernel HWIO of Flax -> kernel HWIO."""
    transposed = _one(f"{name}.kernel", lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1))
    return {"weight": transposed, "bias": _same(f"{name}.bias"), "kernel": _read_only(f"{name}.kernel")}


def conv_of_patches(name: str) -> Layouts:
    """A Linear of flattened patches of three channels: weight (D, 3 P P), channels first -> kernel (P, P, 3, D)."""

    def ours(array: np.ndarray) -> np.ndarray:
        side = math.isqrt(array.shape[1] // 3)
        return array.reshape(-1, 3, side, side).transpose(2, 3, 1, 0)

    def theirs(array: np.ndarray) -> np.ndarray:
        return array.transpose(3, 2, 0, 1).reshape(array.shape[-1], -1)

    return {"weight": _one(f"{name}.kernel", ours, theirs)}


def norm(name: str) -> Layouts:
    """A LayerNorm: weight of torch, or scale of Flax -> scale."""
    return {"weight": _same(f"{name}.scale"), "bias": _same(f"{name}.bias"), "scale": _read_only(f"{name}.scale")}


def tokens(name: str, axes: int = 3) -> Layouts:
    """A parameter (1, k, D), (k, D) or (D,) -> (k, D). It is written with `axes` axes; two for an nn.Embedding."""

    def theirs(array: np.ndarray) -> np.ndarray:
        return array.reshape((1, *array.shape) if axes == 3 else array.shape[2 - axes :])

    either = _one(name, lambda array: array.reshape(-1, array.shape[-1]), theirs)
    return {"weight": _same(name), "embedding": _read_only(name)} if axes == 2 else {"": either}


def stacked(*names: str | None) -> Layouts:
    """Several Linears, k in number, stacked in one: weight (k H, D) -> k kernels (D, H).

    Such as query, key and value. FlaxDinov2 stacks its SwiGLU as a kernel (D, k H).
    """

    def split(array: np.ndarray) -> list[np.ndarray]:
        return np.split(array, len(names))

    return {
        "weight": Layout(
            tuple(name and f"{name}.kernel" for name in names),
            lambda array: [part.T for part in split(array)],
            lambda parts: np.concatenate([part.T for part in parts]),
        ),
        "kernel": Layout(
            tuple(name and f"{name}.kernel" for name in names), lambda array: np.split(array, len(names), axis=-1)
        ),
        "bias": Layout(tuple(name and f"{name}.bias" for name in names), split, np.concatenate),
    }


def qkv(name: str, key_bias: bool = True) -> Layouts:
    """Query, key and value of an attention, stacked in one Linear. Without `key_bias` the key's part is ignored."""
    whole = stacked(f"{name}.query", f"{name}.key", f"{name}.value")
    if key_bias:
        return whole
    return {"weight": whole["weight"], "bias": stacked(f"{name}.query", None, f"{name}.value")["bias"]}


def heads_in(name: str) -> Layouts:
    """Flax's projection to heads: kernel (D, heads, d), bias (heads, d) -> kernel (D, D), bias (D,)."""
    return {
        "kernel": _one(f"{name}.kernel", lambda a: a.reshape(a.shape[0], -1)),
        "bias": _one(f"{name}.bias", np.ravel),
    }


def heads_out(name: str) -> Layouts:
    """Flax's projection from heads: kernel (heads, d, D), bias (D,) -> kernel (D, D)."""
    return {
        "kernel": _one(f"{name}.kernel", lambda a: a.reshape(-1, a.shape[-1])),
        "bias": _read_only(f"{name}.bias"),
    }
