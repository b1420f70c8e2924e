"""Attention by cuDNN's fused kernel, which never writes the scores to memory: where it runs, and the call."""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from ..errors import ConfigError

Implementation = Literal["auto", "xla", "cudnn"]
_MULTIPLE = 8  # of lengths that the kernel takes in training


def is_fused(implementation: str, dtype: Any, head_size: int) -> bool:
    """Whether attention of heads of `head_size` features in `dtype` is computed by cuDNN's kernel.

    "auto" takes it in half precision on NVIDIA's Hopper and later, where it was measured to be faster; "xla" never;
    "cudnn" always. Raises ConfigError for another name, and for "cudnn" where the kernel does not run.
    """
    if implementation not in get_args(Implementation):
        rule = "must be one of " + ", ".join(map(repr, get_args(Implementation)))
        raise ConfigError("attn_implementation", implementation, rule)
    if implementation == "xla":
        return False
    capability = _compute_capability()
    half = jnp.dtype(dtype).itemsize == 2
    runs = half and head_size % 8 == 0 and head_size <= 128 and capability >= 8
    if implementation == "cudnn" and not runs:
        rule = "needs an NVIDIA GPU (Ampere or later), bfloat16 or float16, and heads of a multiple of 8 up to 128"
        raise ConfigError("attn_implementation", implementation, f"{rule}; these have {head_size} in {dtype}")
    return runs and (implementation == "cudnn" or capability >= 9)


def padding(tokens: int) -> int:
    """How many tokens to add to a sequence, so that its length is one that the kernel takes, and takes fast."""
    return -tokens % _MULTIPLE


def fused_attention(query: jax.Array, key: jax.Array, value: jax.Array, tokens: int) -> jax.Array:
    """Attention of every token to the first `tokens`: three arrays (B, T, heads, d) -> (B, T, heads, d).

    Softmax in float32. Rows after these are finite, and to be ignored.
    """
    lengths = {}
    if tokens < key.shape[1]:
        lengths = dict.fromkeys(("query_seq_lengths", "key_value_seq_lengths"), jnp.full(len(key), tokens, jnp.int32))
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn", **lengths)


def _compute_capability() -> float:
    """NVIDIA's number of the default device's generation, 9.0 for Hopper; 0 where it is no such GPU."""
    if jax.default_backend() != "gpu":
        return 0.0
    try:
        return float(getattr(jax.devices()[0], "compute_capability", 0))
    except ValueError:  # AMD's devices have names there
        return 0.0
