"""Matrix products in the compute type, accumulated in float32: the one place where the platforms differ.

GPUs and TPUs accumulate half precision in float32 whatever the result's type. XLA on a CPU does too, but multiplies at
the speed of float32, unless a float32 result is asked for: then at up to four times that where the processor has
instructions for bfloat16, and at two thirds where it has none.
"""

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp


def product(spec: str, a: jax.Array, b: jax.Array, dtype: Any = None) -> jax.Array:
    """Contraction of two arrays of one type, as `jnp.einsum`: -> `dtype`, or what the platform has it in soonest.

    That is float32 or the arrays' type. Each index of `spec` stands in two of its three terms.
    """
    if dtype is None:
        dtype = jnp.float32 if _widens(a.dtype) else a.dtype
    if a.dtype.itemsize == 2 and dtype == jnp.float32:
        return _accumulated(spec, a, b)
    return jnp.einsum(spec, a, b, preferred_element_type=dtype)


def _widens(dtype: Any) -> bool:
    """Whether products of a type are fastest with a float32 result."""
    if jax.default_backend() != "cpu":
        return False
    return dtype == jnp.float16 or (dtype == jnp.bfloat16 and _multiplies_bfloat16())


@cache
def _multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16, as Linux tells; elsewhere that is taken for granted."""
    told = Path("/proc/cpuinfo")
    return not told.exists() or "bf16" in told.read_text()


def _multiply(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def _forward(spec: str, a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _multiply(spec, a, b), (a, b)


def _backward(spec: str, kept: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    a, b = kept
    first, second, result = spec.replace("->", ",").split(",")
    cotangent = cotangent.astype(a.dtype)
    left = _accumulated(f"{result},{second}->{first}", cotangent, b)
    if a.size <= cotangent.size:
        right = _accumulated(f"{first},{result}->{second}", a, cotangent)
    else:  # XLA copies the left one into another order, slowly: let it be the smaller, and let XLA not exchange them
        turned = f"{second[:-2]}{second[-1]}{second[-2]}"
        right = jax.lax.optimization_barrier(_accumulated(f"{result},{first}->{turned}", cotangent, a))
        right = right.swapaxes(-1, -2)
    return left.astype(a.dtype), right.astype(b.dtype)


# Product of half precision -> float32, whose gradient's products are of half precision as well: JAX alone would
# multiply float32 by half precision there, at the speed of float32. There is no forward mode.
_accumulated = jax.custom_vjp(_multiply, nondiff_argnums=(0,))
_accumulated.defvjp(_forward, _backward)


def patch_product(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution whose strides are its kernel's size: (B, H, W, C), (P, P, C, D) -> (B, h, w, D).

    What fills no patch is left out.
    """
    side = kernel.shape[0]
    rows, columns = images.shape[1] // side, images.shape[2] // side
    whole = images[:, : rows * side, : columns * side]
    patches = whole.reshape(images.shape[0], rows, side, columns, side, -1).swapaxes(2, 3)
    return product("bhwpqc,pqcd->bhwd", patches, kernel)
