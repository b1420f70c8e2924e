"""What forward_intermediates needs: which blocks are meant, and a compiled function that computes no later ones."""

import operator
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import ConfigError
from ..nn.layers import layer_norm


def chosen_blocks(indices: Any, depth: int) -> tuple[int, ...]:
    """Blocks by number from 0: all for None, the last n for an integer, those of a sequence in its order (-1: last).

    Raises ConfigError, saying what is allowed, for anything else.
    """
    if indices is None:
        return tuple(range(depth))
    try:
        given = [*indices] if isinstance(indices, Iterable) else range(-operator.index(indices), 0)
        # a flag would pass for one block, a mask of booleans for blocks 0 and 1
        right = not isinstance(indices, bool) and all(
            not isinstance(block, bool) and -depth <= operator.index(block) < depth for block in given
        )
    except TypeError:
        given, right = [], False
    if not given or not right:
        allowed = f"a number of last blocks from 1 to {depth}, or a sequence of blocks from {-depth} to {depth - 1}"
        raise ConfigError("indices", indices, f"must be {allowed}, or None for all")
    return tuple(operator.index(block) % depth for block in given)


def compile_intermediates(module: Any) -> Callable[..., tuple]:
    """Parameters, pixels (B, C, H, W) -> for each block the patches (B, N, D) or (B, h, w, D), or with the prefix.

    jax.jit drops whatever no result depends on: the blocks after the last one asked for, the readout and the heads.
    """
    c = module.config

    def intermediates(
        params: Any, pixels: jax.Array, *, blocks: tuple[int, ...], reshape: bool, prefix: bool, norm: bool
    ) -> tuple:
        images = pixels.transpose(0, 2, 3, 1)
        states = module.apply({"params": params}, images, attention_maps=False).hidden_states
        norm_params = params.get("vit_cls", params)["norm"]
        grid = (pixels.shape[2] // c.patch_size, pixels.shape[3] // c.patch_size)
        found = []
        for block in blocks:
            tokens: Any = states[block + 1]  # states[0] is the encoder's input
            if norm:
                tokens = layer_norm(c, module.dtype, "norm").apply({"params": norm_params}, tokens)
            before, patches = jnp.split(tokens, [c.num_prefix_tokens], axis=1)
            if reshape:
                patches = patches.reshape(len(patches), *grid, c.hidden_size)
            found.append((patches, before) if prefix else patches)
        return tuple(found)

    return jax.jit(intermediates, static_argnames=("blocks", "reshape", "prefix", "norm"))
