"""Attention by cuDNN's fused kernel, which does not write the attention scores to memory."""

from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from ..errors import ConfigError
from .gpu import HOPPER, compiler_options, compute_capability

Implementation = Literal["auto", "xla", "cudnn"]
_MULTIPLE = 8  # the kernel of the gradient needs sequence lengths that are multiples of 8


def is_fused(implementation: str, dtype: Any, head_size: int) -> bool:
    """Whether attention with heads of `head_size` features in `dtype` uses cuDNN's kernel.

    "auto" uses it in half precision on NVIDIA Hopper and later, where it was measured to be faster. "xla" never uses
    it, "cudnn" always does. Raises ConfigError for another name, and for "cudnn" where the kernel cannot run.
    """
    if implementation not in get_args(Implementation):
        rule = "must be one of " + ", ".join(map(repr, get_args(Implementation)))
        raise ConfigError("attn_implementation", implementation, rule)
    if implementation == "xla":
        return False
    capability = compute_capability()
    is_half = jnp.dtype(dtype).itemsize == 2
    can_run = is_half and head_size % 8 == 0 and head_size <= 128 and capability >= 8
    if implementation == "cudnn" and not can_run:
        rule = "needs an NVIDIA GPU (Ampere or later), bfloat16 or float16, and heads of a multiple of 8 up to 128"
        raise ConfigError("attn_implementation", implementation, f"{rule}; these have {head_size} in {dtype}")
    return can_run and (implementation == "cudnn" or capability >= HOPPER)


def may_fuse(module: Any) -> bool:
    """Whether attention of a module (vit.py) uses the kernel where no maps are asked for. Errors as in `is_fused`."""
    c = module.config
    head_size = c.hidden_size // c.num_attention_heads
    return is_fused(module.attn_implementation, module.dtype, head_size) and c.position_embedding != "relative"


def program_options(module: Any) -> dict[str, Any] | None:
    """`compiler_options` of `jax.jit` for a function that calls a module: those of gpu.py if it may fuse attention.

    A call that asks for maps has them too, although it computes plain products. Where all are plain products, they made
    inference of B/16 slower: 7,152 images/s for 8,775 (H100, 2026-11-27).
    """
    return compiler_options(module.dtype) if may_fuse(module) else None


def padding(tokens: int) -> int:
    """Number of padding tokens that bring a sequence of `tokens` to a length that the gradient's kernel supports."""
    return -tokens % _MULTIPLE


def fused_attention(query: jax.Array, key: jax.Array, value: jax.Array, tokens: int) -> jax.Array:
    """Attention to the first `tokens` tokens: query, key and value (B, T, heads, d) -> (B, T, heads, d).

    The tokens after these are padding: their outputs are finite but have no meaning. The softmax is in float32.
    """
    if tokens == key.shape[1]:
        return _unmasked(query, key, value)
    lengths = jnp.full(len(key), tokens, jnp.int32)
    masks: dict[str, Any] = {"query_seq_lengths": lengths, "key_value_seq_lengths": lengths}
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn", **masks)


@jax.custom_vjp
def _unmasked(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Attention to all tokens, of any number. The gradient pads them if it must."""
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")


def _padded(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    tokens = key.shape[1]
    if padding(tokens) == 0:
        return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")
    widths = ((0, 0), (0, padding(tokens)), (0, 0), (0, 0))
    query, key, value = (jnp.pad(array, widths) for array in (query, key, value))
    return fused_attention(query, key, value, tokens)[:, :tokens]


_unmasked.defvjp(partial(jax.vjp, _padded), lambda gradient, slope: gradient(slope))
