"""Types for computing and for storing parameters: float32, bfloat16, float16."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import unfreeze

from ..errors import ConfigError
from ..files.tensor import Tensor

_SHORT = {"float": "float32", "fp32": "float32", "half": "float16", "fp16": "float16", "bf16": "bfloat16"}
_RULE = "must be float32, bfloat16 or float16"


def compute_dtype(dtype: Any) -> jnp.dtype:
    """float32, bfloat16 or float16 for a type of NumPy, JAX or PyTorch, or its name; float32 for None.

    Raises ConfigError for any other type.
    """
    name = dtype
    if isinstance(dtype, str) or type(dtype).__module__ == "torch":  # "torch.float16", or the type itself
        text = str(dtype).removeprefix("torch.").removeprefix("jnp.")
        name = _SHORT.get(text, text)
    try:
        result = jnp.dtype(jnp.float32 if name is None else name)
    except TypeError as error:
        raise ConfigError("dtype", dtype, f'{_RULE}; from_pretrained also takes "auto"') from error
    if result not in (jnp.float32, jnp.bfloat16, jnp.float16):
        raise ConfigError("dtype", dtype, _RULE)
    return result


def dtype_of_file(tensors: Iterable[Tensor]) -> jnp.dtype:
    """The type for dtype="auto": bfloat16 or float16 if most numbers of a checkpoint have this type, else float32."""
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[tensor.dtype] += math.prod(tensor.shape)
    most = max(sizes, key=lambda name: sizes[name], default="float32")
    return compute_dtype(most if most in ("bfloat16", "float16") else "float32")


def cast_floating(params: Any, dtype: Any, mask: Any) -> Any:
    """A tree with its floating-point leaves in `dtype`, except those for which `mask` is False.

    Leaves that have this type already are shared with `params`, not copied.
    """

    def cast(leaf: Any, chosen: bool = True) -> Any:
        return leaf.astype(dtype) if chosen and jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    tree = unfreeze(params)
    return jax.tree.map(cast, tree) if mask is None else jax.tree.map(cast, tree, unfreeze(mask))
