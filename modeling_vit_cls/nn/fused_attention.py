"""Attention by cuDNN's fused kernel, which does not write the attention scores to memory."""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from ..errors import ConfigError
from .gpu import HOPPER, compute_capability

Implementation = Literal["auto", "xla", "cudnn"]
_MULTIPLE = 8  # in training, the kernel needs sequence lengths that are multiples of 8


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


def padding(tokens: int) -> int:
    """Number of padding tokens that bring a sequence of `tokens` to a length that the kernel supports."""
    return -tokens % _MULTIPLE


def fused_attention(query: jax.Array, key: jax.Array, value: jax.Array, tokens: int) -> jax.Array:
    """Attention to the first `tokens` tokens: query, key and value (B, T, heads, d) -> (B, T, heads, d).

    The tokens after these are padding: their outputs are finite but have no meaning. The softmax is in float32.
    """
    lengths = {}
    if tokens < key.shape[1]:
        lengths = dict.fromkeys(("query_seq_lengths", "key_value_seq_lengths"), jnp.full(len(key), tokens, jnp.int32))
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn", **lengths)
