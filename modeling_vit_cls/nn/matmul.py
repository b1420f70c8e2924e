"""Matrix products in the compute type, accumulated in float32. Only this file differs between platforms.

GPUs and TPUs accumulate products of half precision in float32, for any type of the result. XLA on a CPU does too, but
there the speed depends on the type of the result. With a half-precision result it is the speed of float32. With a
float32 result it is up to four times that on a processor with fast bfloat16 instructions, and less without them.
"""

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp


def product(spec: str, a: jax.Array, b: jax.Array, dtype: Any = None) -> jax.Array:
    """`jnp.einsum(spec, a, b)` of two arrays of one type, accumulated in float32.

    The result has type `dtype`; by default float32 or the arrays' type, whichever is faster on this platform. Each
    index of `spec` must occur in exactly two of its three terms.
    """
    if dtype is None:
        dtype = jnp.float32 if _is_faster_in_float32(a.dtype) else a.dtype
    if a.dtype.itemsize == 2 and dtype == jnp.float32:
        return _accumulated(spec, a, b)
    return jnp.einsum(spec, a, b, preferred_element_type=dtype)


def _is_faster_in_float32(dtype: Any) -> bool:
    """Whether products of arrays of this type are faster with a float32 result."""
    if jax.default_backend() != "cpu":
        return False
    return dtype == jnp.float16 or (dtype == jnp.bfloat16 and _multiplies_bfloat16())


_CPUINFO = Path("/proc/cpuinfo")


@cache
def _multiplies_bfloat16() -> bool:
    """Whether the processor has fast bfloat16 instructions, by Linux's list of them; True on other systems.

    Those of AMD and Arm, and AMX of Intel. Intel's AVX-512 instructions alone reached 160 GFLOP/s with a float32 result
    and 200 with a bfloat16 result (the product of `benchmarks.work`, two cores of a Xeon without AMX, 2026-11-25).
    """
    if not _CPUINFO.exists():
        return True
    text = _CPUINFO.read_text()
    return "amx_bf16" in text or ("bf16" in text and "GenuineIntel" not in text)


def _multiply(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def _forward(spec: str, a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _multiply(spec, a, b), (a, b)


def _backward(spec: str, residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    a, b = residuals
    first, second, result = spec.replace("->", ",").split(",")
    cotangent = cotangent.astype(a.dtype)
    grad_a = _accumulated(f"{result},{second}->{first}", cotangent, b)
    if a.size <= cotangent.size:
        grad_b = _accumulated(f"{first},{result}->{second}", a, cotangent)
    else:  # XLA reorders the left operand by a slow copy: put the smaller one there, and keep XLA from swapping them
        transposed = f"{second[:-2]}{second[-1]}{second[-2]}"
        grad_b = jax.lax.optimization_barrier(_accumulated(f"{result},{first}->{transposed}", cotangent, a))
        grad_b = grad_b.swapaxes(-1, -2)
    return grad_a.astype(a.dtype), grad_b.astype(b.dtype)


# Product of half precision with a float32 result, whose gradient is computed in half precision too. JAX's own gradient
# would multiply float32 by half precision, at the speed of float32. Forward-mode differentiation is not supported.
_accumulated = jax.custom_vjp(_multiply, nondiff_argnums=(0,))
_accumulated.defvjp(_forward, _backward)


def patch_product(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution with stride P: images (B, H, W, C), kernel (P, P, C, D) -> (B, h, w, D).

    Pixels at the right and bottom border that do not fill a patch are left out.
    """
    side = kernel.shape[0]
    rows, columns = images.shape[1] // side, images.shape[2] // side
    cropped = images[:, : rows * side, : columns * side]
    patches = cropped.reshape(images.shape[0], rows, side, columns, side, -1).swapaxes(2, 3)
    return product("bhwpqc,pqcd->bhwd", patches, kernel)
