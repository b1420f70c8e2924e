"""Types of computing and of storing: float32, bfloat16, float16."""

from typing import Any

import jax
import jax.numpy as jnp
from flax.core import unfreeze

from ..errors import ConfigError


def compute_dtype(dtype: Any) -> jnp.dtype:
    """float32, bfloat16 or float16 from a type or its name. Raises ConfigError for any other."""
    try:
        found = jnp.dtype(dtype)
    except TypeError as error:
        raise ConfigError("dtype", dtype, "must be float32, bfloat16 or float16") from error
    if found not in (jnp.float32, jnp.bfloat16, jnp.float16):
        raise ConfigError("dtype", dtype, "must be float32, bfloat16 or float16")
    return found


def cast_floating(params: Any, dtype: Any, mask: Any) -> Any:
    """A copy of a tree with its floating-point leaves in `dtype`, save where a mask like it is False."""

    def cast(leaf: Any, chosen: bool = True) -> Any:
        return leaf.astype(dtype) if chosen and jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    tree = unfreeze(params)
    return jax.tree.map(cast, tree) if mask is None else jax.tree.map(cast, tree, unfreeze(mask))
