"""Layers of a Transformer in flax.linen: attention, MLP, pre-norm block. Notation for shapes: vit.py."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from ..configuration_vit_cls import ViTClsConfig
from .fused_attention import fused_attention
from .linear import Dtype, kernel_init, layer_norm, linear, rows
from .matmul import product
from .mesh import by_batch
from .positions import relative_bias, relative_sides, resample_relative, rotate
from .resampling import Grid

Rope = tuple[np.ndarray, np.ndarray] | None  # cosines and sines (N, d), see positions.rope_table


def gelu(x: jax.Array) -> jax.Array:
    """GELU(x) = x Phi(x), with Phi the standard normal distribution function. Hendrycks & Gimpel 2016, section 2.

    Computed with erf, as in PyTorch. jax.nn.gelu uses erfc, which takes more than twice as long on a CPU.
    """
    return x * (0.5 * (1 + jax.lax.erf(x * np.float32(0.5**0.5))))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "gelu_pytorch_tanh": partial(nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "silu": nn.silu,
    "relu": nn.relu,
}


@jax.custom_vjp
def _thrice(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`x` for three products. Their gradients are added in an order in which cuBLAS adds each sum to a product.

    In JAX's own order XLA adds one of them by itself: 1 % of a training step of B/16 (H100, 2026-11-27).
    """
    return x, x, x


_thrice.defvjp(lambda x: ((x, x, x), None), lambda _, slopes: (slopes[0] + (slopes[1] + slopes[2]),))


# The activations that a scan stores of each block for the backward pass. Norms, softmax and activation functions are
# recomputed, which is faster than to write and read them.
SAVE_PRODUCTS = jax.checkpoint_policies.save_only_these_names("heads", "mixed", "middle", "hidden")


class Attention(nn.Module):
    """Multi-head attention: queries (B, Q, D), context (B, T, D) -> (B, Q, D) and probabilities (B, heads, Q, T).

    softmax(q k^T / sqrt(d)) v in each head: Vaswani et al. 2017, equation 1. The softmax is in float32.

    Attributes:
        fused: None computes plain products. A number uses the fused kernel on a sequence of this many tokens, with
            padding after them; the queries are those of all tokens, and no probabilities are returned (None).
    """

    config: ViTClsConfig
    dtype: Dtype = jnp.float32
    fused: int | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: jax.Array,
        rope: Rope = None,
        deterministic: bool = True,
        bias: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Attend from the tokens `x` (B, Q, D) to the tokens `context` (B, T, D).

        Args:
            x: the tokens of the queries; with rotary positions, the first Q tokens of the context.
            context: the tokens of keys and values.
            rope: cosines and sines (N, d) of rotary positions for the last N tokens of the context, or None.
            deterministic: False applies dropout to the probabilities.
            bias: added to the scores, (heads, Q, T), without the fused kernel.
        """
        c = self.config
        key_bias = c.qkv_bias if c.key_bias is None else c.key_bias

        def heads(tokens: jax.Array, name: str, use_bias: bool) -> jax.Array:  # (B, T, D) -> (B, heads, T, d)
            projected = linear(c, c.hidden_size, self.dtype, name, use_bias)(tokens)
            return projected.reshape(*projected.shape[:2], c.num_attention_heads, -1).swapaxes(1, 2)

        x, keys, values = (x, context, context) if self.fused is None else _thrice(context)
        query, key = heads(x, "query", c.qkv_bias), heads(keys, "key", key_bias)
        value = heads(values, "value", c.qkv_bias)
        if rope is not None:
            prefix = context.shape[1] - len(rope[0])
            query, key = rotate(query, rope, prefix), rotate(key, rope, prefix)
        if self.fused is not None:  # (B, T, heads, d), the order in memory of the products above
            query, key, value = (array.swapaxes(1, 2) for array in (query, key, value))
        query, key, value = (checkpoint_name(array, "heads") for array in (query, key, value))
        probabilities = None
        if self.fused is not None:
            mixed = fused_attention(query, key, value, self.fused)
        else:
            scores = product("bhqd,bhkd->bhqk", query, key, jnp.float32) * query.shape[-1] ** -0.5
            scores = scores if bias is None else scores + bias[None]
            probabilities = jax.nn.softmax(scores).astype(self.dtype)
            dropped = nn.Dropout(c.attention_probs_dropout_prob)(probabilities, deterministic)
            mixed = product("bhqk,bhkd->bhqd", dropped, value).astype(self.dtype).swapaxes(1, 2)
        mixed = checkpoint_name(mixed.reshape(x.shape), "mixed")
        return linear(c, c.hidden_size, self.dtype, "out")(mixed), probabilities


class RelativePositions(nn.Module):
    """The table of a block's relative positions for a grid (h, w): ((2h - 1)(2w - 1) + 3, heads), see `relative_rows`.

    The learned table belongs to the grid of the config and is resampled to another one.
    """

    config: ViTClsConfig

    @nn.compact
    def __call__(self, grid: Grid) -> jax.Array:
        c = self.config
        shape = (math.prod(relative_sides(c.grid)) + 3, c.num_attention_heads)
        table = self.param("embedding", kernel_init(c.initializer_range), shape, jnp.float32)
        return resample_relative(table, c.grid, grid, c.position_interpolation)


class Mlp(nn.Module):
    """MLP of each token: (..., D) -> (..., D).

    fc2(act(fc1 x)); with `gated`, fc2(act(gate x) * fc1 x), SwiGLU for act = SiLU (Shazeer 2020, equation 6).
    """

    config: ViTClsConfig
    dtype: Dtype = jnp.float32
    gated: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        act = ACTIVATIONS[c.hidden_act]

        def features(name: str) -> jax.Array:
            projected = linear(c, c.intermediate_size, self.dtype, name)(x)
            return checkpoint_name(projected, "hidden").astype(jnp.float32)

        hidden = act(features("gate")) * features("fc1") if self.gated else act(features("fc1"))
        return linear(c, c.hidden_size, self.dtype, "fc2")(hidden.astype(self.dtype))


class EncoderBlock(nn.Module):
    """Pre-norm block: tokens (B, T, D) -> tokens (B, T, D) and attention probabilities (B, heads, T, T).

    y = x + attention(norm1(x)), then y + mlp(norm2(y)): Dosovitskiy et al. 2021, equations 2 and 3. `fused` as in
    `Attention`; `grid` are the rows and columns of patches, None for those of the config. On a mesh, the tokens of an
    image stay on its device.
    """

    config: ViTClsConfig
    dtype: Dtype = jnp.float32
    fused: int | None = None
    grid: Grid | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, positions: Any, deterministic: bool, drop_path_rate: Any = 0.0, tokens: int | None = None
    ) -> tuple[jax.Array, jax.Array | None]:
        """Apply the block to tokens (B, T, D).

        Args:
            x: the tokens.
            positions: those of attention: cosines and sines (N, d) of rotary ones, the table's row for each query and
                key (T, T) of relative ones, or None.
            deterministic: False applies dropout and stochastic depth.
            drop_path_rate: probability that a branch is dropped, for each image. It may be traced, because a scan runs
                one program with another rate in each block.
            tokens: return only this number of first tokens; of the others only keys and values are computed.
        """
        c = self.config

        def drop_path(y: jax.Array) -> jax.Array:  # stochastic depth: Huang et al. 2016, section 3
            if deterministic or c.drop_path_rate == 0:
                return y
            keep = 1 - jnp.asarray(drop_path_rate, jnp.float32)
            kept = jax.random.bernoulli(self.make_rng("dropout"), keep, (len(y), 1, 1))
            return jnp.where(kept, (y / keep).astype(y.dtype), 0)

        def branch(y: jax.Array, number: int) -> jax.Array:
            y = nn.Dropout(c.hidden_dropout_prob)(y, deterministic)
            if c.layer_scale_init_value is not None:
                init = nn.initializers.constant(c.layer_scale_init_value)
                scale = self.param(f"layer_scale{number}", init, (c.hidden_size,), jnp.float32)
                y = y * scale.astype(self.dtype)[None, None]
            return drop_path(y)

        x, rope, bias = by_batch(x), positions, None
        if c.position_embedding == "relative":
            table = RelativePositions(c, name="relative_positions")(self.grid or c.grid)
            rope, bias = None, relative_bias(table, positions[:tokens])
        y = layer_norm(c, self.dtype, "norm1", not deterministic)(rows(x)).reshape(x.shape)
        x = x[:, :tokens]
        shape = x.shape
        attention = Attention(c, self.dtype, self.fused, name="attention")
        y, probabilities = attention(y[:, :tokens], y, rope, deterministic, bias)
        x = checkpoint_name(rows(x) + rows(branch(by_batch(y), 1)), "middle")
        y = layer_norm(c, self.dtype, "norm2", not deterministic)(x)
        y = Mlp(c, self.dtype, c.mlp == "swiglu", name="mlp")(y)
        return by_batch((x + rows(branch(y.reshape(shape), 2))).reshape(shape)), probabilities
