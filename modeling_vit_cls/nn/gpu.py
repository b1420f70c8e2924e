"""What is chosen for an NVIDIA GPU: by its compute capability, and options of XLA's compiler."""

import os
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

HOPPER = 9.0  # compute capability

# Products by cuBLAS, which adds the bias too. XLA also tries kernels of its own, which doubles the time of compiling,
# and where cuBLAS wins, another kernel adds the bias: inference was 3 to 6 % slower. The second option keeps the
# products of query and key apart, because one for both is followed by kernels that add the biases: a training step of
# B/16 takes 2 % less (H100, 2026-11-27).
_OPTIONS = {"xla_gpu_enable_triton_gemm": False, "xla_gpu_dot_merger_threshold_mb": 0}


def compute_capability() -> float:
    """NVIDIA's compute capability of the default device; 0 without an NVIDIA GPU."""
    device: Any = jax.config.jax_default_device or jax.default_backend()  # pyright: ignore[reportAttributeAccessIssue]
    device = jax.devices(device)[0] if isinstance(device, str) else device
    if device.platform != "gpu":
        return 0.0
    try:
        return float(getattr(device, "compute_capability", 0))
    except ValueError:  # AMD's devices have a name as their capability
        return 0.0


def compiler_options(dtype: Any) -> dict[str, Any] | None:
    """`compiler_options` of `jax.jit` for a function that computes in `dtype`; None for XLA's own choice.

    They are for half precision on Hopper and later, the only kind that was tried. An option in XLA_FLAGS is the user's,
    and one that this version of XLA does not know is left out.
    """
    if jnp.dtype(dtype).itemsize != 2 or compute_capability() < HOPPER:
        return None
    flags = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in _OPTIONS.items() if name not in flags and _is_known(name, value)} or None


@cache
def _is_known(name: str, value: Any) -> bool:
    """Whether this version of XLA has an option."""
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
