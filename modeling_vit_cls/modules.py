"""flax.linen modules: images -> patches -> tokens -> encoder -> readout -> logits.

Shapes: B batch, H W C image height, width (pixels) and channels, P patch side (pixels), N patches, T tokens,
D hidden size, K classes. Parameters are float32; `dtype` is what products are computed in.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from .configuration_vit_cls import ViTClsConfig
from .outputs import FlaxBaseModelOutputWithPooling, FlaxViTClsClassifierOutput
from .positions import Grid, resample_positions, rope_table, rotate, sincos2d_table

Dtype = Any
Rope = tuple[np.ndarray, np.ndarray] | None

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": partial(nn.gelu, approximate=False),
    "gelu_pytorch_tanh": partial(nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "silu": nn.silu,
    "relu": nn.relu,
}

# JAX's truncated normal keeps 0.8796 of the standard deviation it is given; torch's keeps all of it.
_TRUNCATED_STD = 0.87962566103423978


def kernel_init(std: float) -> nn.initializers.Initializer:
    """Truncated normal of standard deviation `std`, cut at two deviations of its parent."""
    return nn.initializers.truncated_normal(std / _TRUNCATED_STD)


def dense(config: ViTClsConfig, features: int, dtype: Dtype, name: str, use_bias: bool = True) -> nn.Dense:
    """Linear layer (..., in) -> (..., features) with the model's initialisation."""
    return nn.Dense(features, use_bias, dtype, kernel_init=kernel_init(config.initializer_range), name=name)


def layer_norm(config: ViTClsConfig, dtype: Dtype, name: str) -> nn.LayerNorm:
    """LayerNorm over D, its variance in two passes as in torch: the fast one loses digits on large means."""
    return nn.LayerNorm(config.layer_norm_eps, dtype, use_fast_variance=False, name=name)


class PatchEmbedding(nn.Module):
    """Images to patches by a strided convolution: (B, H, W, C) -> (B, N, D), rows first."""

    config: ViTClsConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        c = self.config
        side = (c.patch_size, c.patch_size)
        init = kernel_init(c.initializer_range)
        conv = nn.Conv(c.hidden_size, side, side, "VALID", dtype=self.dtype, kernel_init=init, name="projection")
        patches = conv(images)
        return patches.reshape(patches.shape[0], -1, c.hidden_size)


class PositionEmbedding(nn.Module):
    """Positions that are added to tokens: grid -> (prefix tokens covered + N, D).

    A learned table belongs to the configured grid and is resampled to any other.
    """

    config: ViTClsConfig

    @nn.compact
    def __call__(self, grid: Grid) -> jax.Array:
        c = self.config
        covered = c.num_positioned_prefix_tokens if c.position_embedding_tokens == "all" else 0
        if c.position_embedding == "sincos2d":  # Chen et al. 2021 (MoCo v3): [CLS] stands at zero
            return jnp.pad(sincos2d_table(grid, c.hidden_size), ((covered, 0), (0, 0)))
        rows, columns = c.grid
        shape = (covered + rows * columns, c.hidden_size)
        table = self.param("embedding", kernel_init(c.initializer_range), shape)
        patches = resample_positions(table[covered:], c.grid, grid, c.position_interpolation)
        return jnp.concatenate([table[:covered], patches])


class Embeddings(nn.Module):
    """Images to the sequence [CLS, distillation, registers, patches]: (B, H, W, C) -> (B, T, D)."""

    config: ViTClsConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, deterministic: bool = True) -> jax.Array:
        c = self.config
        grid = (images.shape[1] // c.patch_size, images.shape[2] // c.patch_size)
        patches = PatchEmbedding(c, self.dtype, name="patch_embedding")(images)

        def tokens(name: str, count: int) -> jax.Array:
            token = self.param(name, nn.initializers.normal(c.initializer_range), (count, c.hidden_size))
            return jnp.broadcast_to(token.astype(self.dtype), (len(images), count, c.hidden_size))

        sequence = [patches]
        if c.use_distillation_token:
            sequence.insert(0, tokens("distillation_token", 1))
        if c.use_cls_token:
            sequence.insert(0, tokens("cls_token", 1))
        x = jnp.concatenate(sequence, axis=1)
        if c.position_embedding in ("learned", "sincos2d"):
            positions = PositionEmbedding(c, name="position_embedding")(grid).astype(self.dtype)
            x = x + jnp.pad(positions, ((x.shape[1] - len(positions), 0), (0, 0)))
        if c.num_register_tokens:  # Darcet et al. 2024: registers have no position
            prefix, patches = jnp.split(x, [c.num_positioned_prefix_tokens], axis=1)
            x = jnp.concatenate([prefix, tokens("register_tokens", c.num_register_tokens), patches], axis=1)
        return nn.Dropout(c.hidden_dropout_prob)(x, deterministic)


class Attention(nn.Module):
    """Multi-head attention of some tokens to all: (B, Q, D), (B, T, D) -> (B, Q, D), probabilities (B, heads, Q, T).

    Vaswani et al. 2017, equation 1; softmax in float32.
    """

    config: ViTClsConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, context: jax.Array, rope: Rope = None, deterministic: bool = True
    ) -> tuple[jax.Array, jax.Array]:
        c = self.config
        key_bias = c.qkv_bias if c.key_bias is None else c.key_bias

        def heads(tokens: jax.Array, name: str, use_bias: bool) -> jax.Array:  # (B, T, D) -> (B, heads, T, d)
            projected = dense(c, c.hidden_size, self.dtype, name, use_bias)(tokens)
            return projected.reshape(*projected.shape[:2], c.num_attention_heads, -1).swapaxes(1, 2)

        query, key = heads(x, "query", c.qkv_bias), heads(context, "key", key_bias)
        value = heads(context, "value", c.qkv_bias)
        if rope is not None:
            query, key = rotate(query, rope), rotate(key, rope)
        query = query * (query.shape[-1] ** -0.5)
        scores = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32)
        probabilities = nn.softmax(scores).astype(self.dtype)
        dropped = nn.Dropout(c.attention_probs_dropout_prob)(probabilities, deterministic)
        mixed = jnp.einsum("bhqk,bhkd->bqhd", dropped, value).reshape(x.shape)
        return dense(c, c.hidden_size, self.dtype, "out")(mixed), probabilities


class Mlp(nn.Module):
    """Two linear layers, or three with a gate (Shazeer 2020, equation 6): (B, T, D) -> (B, T, D)."""

    config: ViTClsConfig
    dtype: Dtype = jnp.float32
    gated: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        act = ACTIVATIONS[c.hidden_act]
        hidden = dense(c, c.intermediate_size, self.dtype, "fc1")(x)
        gate = act(dense(c, c.intermediate_size, self.dtype, "gate")(x)) if self.gated else None
        hidden = act(hidden) if gate is None else gate * hidden
        return dense(c, c.hidden_size, self.dtype, "fc2")(hidden)


class EncoderBlock(nn.Module):
    """Pre-norm block: (B, T, D) -> (B, T, D) and attention probabilities. Dosovitskiy et al. 2021, equations 2, 3."""

    config: ViTClsConfig
    drop_path_rate: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, rope: Rope, deterministic: bool) -> tuple[jax.Array, jax.Array]:
        c = self.config

        def branch(y: jax.Array, number: int) -> jax.Array:
            y = nn.Dropout(c.hidden_dropout_prob)(y, deterministic)
            if c.layer_scale_init_value is not None:
                init = nn.initializers.constant(c.layer_scale_init_value)
                y = y * self.param(f"layer_scale{number}", init, (c.hidden_size,)).astype(self.dtype)
            return nn.Dropout(self.drop_path_rate, broadcast_dims=(1, 2))(y, deterministic)  # whole images drop

        y = layer_norm(c, self.dtype, "norm1")(x)
        y, probabilities = Attention(c, self.dtype, name="attention")(y, y, rope, deterministic)
        x = x + branch(y, 1)
        y = layer_norm(c, self.dtype, "norm2")(x)
        y = Mlp(c, self.dtype, c.mlp == "swiglu", name="mlp")(y)
        return x + branch(y, 2), probabilities


class Encoder(nn.Module):
    """The stack of blocks: (B, T, D) -> (B, T, D), every block's input and output, every block's probabilities."""

    config: ViTClsConfig
    dtype: Dtype = jnp.float32
    gradient_checkpointing: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, rope: Rope, deterministic: bool
    ) -> tuple[jax.Array, tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        c = self.config
        block = nn.remat(EncoderBlock, static_argnums=(3,)) if self.gradient_checkpointing else EncoderBlock
        rates = np.linspace(0, c.drop_path_rate, c.num_hidden_layers)
        hidden_states, attentions = [x], []
        for i, rate in enumerate(rates):
            x, probabilities = block(c, float(rate), self.dtype, name=f"layer_{i:02d}")(x, rope, deterministic)
            hidden_states.append(x)
            attentions.append(probabilities)
        return x, tuple(hidden_states), tuple(attentions)


class AttentionPooling(nn.Module):
    """One learned query reads all tokens: (B, T, D) -> (B, D). Zhai et al. 2022, section 3.2 (MAP head)."""

    config: ViTClsConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        c = self.config
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, c.hidden_size)).astype(self.dtype)
        query = jnp.broadcast_to(probe, (len(tokens), 1, c.hidden_size))
        x, _ = Attention(c, self.dtype, name="attention")(query, tokens)
        x = x + Mlp(c, self.dtype, name="mlp")(layer_norm(c, self.dtype, "norm")(x))
        return x[:, 0]


class Readout(nn.Module):
    """Tokens to one vector an image: (B, T, D) -> (B, D), or (B, 2D) for "cls_mean"."""

    config: ViTClsConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        c = self.config
        if c.readout == "map":
            return AttentionPooling(c, self.dtype, name="attention_pooling")(tokens)
        mean = tokens[:, c.num_prefix_tokens :].mean(axis=1)  # patches alone: never [CLS], never a register
        if c.readout == "mean":
            return mean
        cls = tokens[:, 0]
        return cls if c.readout == "cls" else jnp.concatenate([cls, mean], axis=-1)


class FlaxViTClsModule(nn.Module):
    """Images to tokens and their readout: (B, H, W, C) -> last_hidden_state (B, T, D), pooler_output (B, F)."""

    config: ViTClsConfig
    dtype: Dtype = jnp.float32
    gradient_checkpointing: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, deterministic: bool = True) -> FlaxBaseModelOutputWithPooling:
        c = self.config
        x = Embeddings(c, self.dtype, name="embeddings")(images.astype(self.dtype), deterministic)
        if c.pre_norm:
            x = layer_norm(c, self.dtype, "pre_norm")(x)
        rope = None
        if c.position_embedding == "rope":
            grid = (images.shape[1] // c.patch_size, images.shape[2] // c.patch_size)
            rope = rope_table(grid, c.hidden_size // c.num_attention_heads, c.rope_theta)
        encoder = Encoder(c, self.dtype, self.gradient_checkpointing, name="encoder")
        x, hidden_states, attentions = encoder(x, rope, deterministic)

        norm, readout = layer_norm(c, self.dtype, "norm"), Readout(c, self.dtype, name="readout")
        if c.norm_position == "before_readout":
            x = norm(x)
            pooled = readout(x)
        else:
            pooled = norm(readout(x))
        if c.representation_size is not None:
            pooled = jnp.tanh(dense(c, c.representation_size, self.dtype, "representation")(pooled))
        return FlaxBaseModelOutputWithPooling(x, pooled, hidden_states, attentions)


class FlaxViTClsForImageClassificationModule(nn.Module):
    """Images to logits: (B, H, W, C) -> (B, K), in float32 whatever `dtype` is."""

    config: ViTClsConfig
    dtype: Dtype = jnp.float32
    gradient_checkpointing: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, deterministic: bool = True) -> FlaxViTClsClassifierOutput:
        c = self.config
        backbone = FlaxViTClsModule(c, self.dtype, self.gradient_checkpointing, name="vit_cls")
        outputs = backbone(images, deterministic)
        logits = dense(c, c.num_classes, self.dtype, "classifier")(outputs.pooler_output).astype(jnp.float32)
        cls_logits = distillation_logits = None
        if c.use_distillation_token:  # Touvron et al. 2021, section 4: at inference the two heads are averaged
            token = outputs.last_hidden_state[:, 1]
            cls_logits = logits
            distillation_logits = dense(c, c.num_classes, self.dtype, "distillation_classifier")(token)
            distillation_logits = distillation_logits.astype(jnp.float32)
            logits = (cls_logits + distillation_logits) / 2
        return FlaxViTClsClassifierOutput(
            logits, outputs.hidden_states, outputs.attentions, cls_logits, distillation_logits
        )
