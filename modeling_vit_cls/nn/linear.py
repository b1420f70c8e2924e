"""What acts on each row of an array (..., D), in flax.linen: the linear layer and LayerNorm. Shapes: vit.py."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ..configuration_vit_cls import ViTClsConfig
from .matmul import product

Dtype = Any

# Standard deviation of the standard normal distribution truncated at -2 and 2.
_TRUNCATED_STD = 0.87962566103423978


def kernel_init(std: float) -> nn.initializers.Initializer:
    """Initialiser: a normal distribution, truncated at two standard deviations and scaled to the deviation `std`."""
    return nn.initializers.truncated_normal(std / _TRUNCATED_STD)


def rows(x: jax.Array) -> jax.Array:
    """All but the last axis as one: (..., D) -> (M, D), M rows. In half precision on a CPU the array is unchanged.

    Norms, sums and products of rows have one order in memory. For arrays (B, T, D) XLA on a GPU chose one in which the
    images lie side by side, and transposed them before and after each product: 11 % of a training step. On a CPU in
    half precision it is the rows that are slow: a training step of S/16 took 1.15 times as long (AMD EPYC, 2026-11-26).
    """
    if x.dtype.itemsize == 2 and jax.default_backend() == "cpu":
        return x
    return x.reshape(-1, x.shape[-1])


class Linear(nn.Module):
    """y = x W + b: (..., D) -> (..., features).

    Computed in `dtype` and accumulated in float32. The result has type `result`, by default `dtype`.
    """

    features: int
    std: float
    dtype: Dtype = jnp.float32
    use_bias: bool = True
    result: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", kernel_init(self.std), (x.shape[-1], self.features), jnp.float32)
        y = rows(x.astype(self.dtype))
        axes = "abcd"[: y.ndim - 1]
        y = product(f"{axes}y,yz->{axes}z", y, kernel.astype(self.dtype), self.result)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
        return y.astype(self.result or self.dtype).reshape(*x.shape[:-1], self.features)


def linear(
    config: ViTClsConfig, features: int, dtype: Dtype, name: str, use_bias: bool = True, result: Dtype = None
) -> Linear:
    """A linear layer (..., D) -> (..., features) with the initialisation of the config."""
    return Linear(features, config.initializer_range, dtype, use_bias, result, name=name)


def layer_norm(config: ViTClsConfig, dtype: Dtype, name: str, training: bool = False) -> nn.LayerNorm:
    """LayerNorm over the last axis; the variance in two passes as in PyTorch, accurate for large means too.

    With `training`, as in the blocks, it is in one pass on a GPU in half precision: what the difference of two float32
    sums loses is less than the rounding of the inputs. XLA fuses the two passes to one kernel only where no gradient
    needs their sums.
    """
    if training and jax.default_backend() == "gpu":
        one_pass = jnp.dtype(dtype).itemsize == 2
        return _LayerNormWithSums(config.layer_norm_eps, dtype, use_fast_variance=one_pass, name=name)
    return nn.LayerNorm(config.layer_norm_eps, dtype, use_fast_variance=False, name=name)


# Keeps the sums of each row for the backward pass. Without them XLA on a GPU computes them anew in a kernel that writes
# a float32 number for each input; another kernel sums these up to the gradient of the scale: 3 % of a training step of
# B/16, and one pass instead of two is 2 % (H100, 2026-11-27).
_LayerNormWithSums = nn.remat(nn.LayerNorm, policy=lambda primitive, *_, **__: primitive is jax.lax.reduce_sum_p)
