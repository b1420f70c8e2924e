"""From images to the encoder's input: patches, [CLS] and other tokens, positions. Notation for shapes: vit.py."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ..configuration_vit_cls import ViTClsConfig
from .linear import Dtype, kernel_init
from .matmul import patch_product
from .positions import sincos2d_table
from .resampling import Grid, resample_positions


class PatchEmbedding(nn.Module):
    """Linear embedding of non-overlapping patches: (B, H, W, C) -> (B, N, D), in row-major order."""

    config: ViTClsConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        c = self.config
        patches = PatchProjection(c, self.dtype, name="projection")(images)
        return patches.reshape(patches.shape[0], -1, c.hidden_size)


class PatchProjection(nn.Module):
    """Convolution with kernel size and stride P: (B, H, W, C) -> (B, h, w, D)."""

    config: ViTClsConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        c = self.config
        shape = (c.patch_size, c.patch_size, images.shape[-1], c.hidden_size)
        kernel = self.param("kernel", kernel_init(c.initializer_range), shape, jnp.float32)
        if c.patch_padding:
            _, height, width, _ = images.shape
            before = (c.patch_padding, 0)
            images = jnp.pad(images, ((0, 0), before, before, (0, 0)))[:, :height, :width]
        patches = patch_product(images.astype(self.dtype), kernel.astype(self.dtype))
        if c.patch_bias:
            bias = self.param("bias", nn.initializers.zeros, (c.hidden_size,), jnp.float32)
            patches = patches + bias.astype(self.dtype)[None, None, None]
        return patches.astype(self.dtype)


class PositionEmbedding(nn.Module):
    """Position embeddings of a grid (h, w), to be added to the tokens: (prefix + N, D).

    The prefix are the tokens before the patches that have a position: learned, or zero for sine-cosine positions. A
    learned table belongs to the grid of the config and is resampled to another one.
    """

    config: ViTClsConfig

    @nn.compact
    def __call__(self, grid: Grid) -> jax.Array:
        c = self.config
        prefix = c.num_positioned_prefix_tokens if c.position_embedding_tokens == "all" else 0
        if c.position_embedding == "sincos2d":  # zero for [CLS]: Chen et al. 2021 (MoCo v3)
            return jnp.pad(sincos2d_table(grid, c.hidden_size), ((prefix, 0), (0, 0)))
        rows, columns = c.grid
        shape = (prefix + rows * columns, c.hidden_size)
        table = self.param("embedding", kernel_init(c.initializer_range), shape, jnp.float32)
        patches = resample_positions(table[prefix:], c.grid, grid, c.position_interpolation)
        return jnp.concatenate([table[:prefix], patches])


class Embeddings(nn.Module):
    """Images to the sequence [CLS, distillation token, registers, patches] with positions: (B, H, W, C) -> (B, T, D).

    Dosovitskiy et al. 2021, equation 1.
    """

    config: ViTClsConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, deterministic: bool = True) -> jax.Array:
        c = self.config
        grid = (images.shape[1] // c.patch_size, images.shape[2] // c.patch_size)
        patches = PatchEmbedding(c, self.dtype, name="patch_embedding")(images)

        def tokens(name: str, count: int) -> jax.Array:
            init = nn.initializers.normal(c.initializer_range)
            token = self.param(name, init, (count, c.hidden_size), jnp.float32)
            return jnp.broadcast_to(token.astype(self.dtype)[None], (images.shape[0], count, c.hidden_size))

        sequence = [patches]
        if c.use_distillation_token:
            sequence.insert(0, tokens("distillation_token", 1))
        if c.use_cls_token:
            sequence.insert(0, tokens("cls_token", c.num_cls_tokens))
        x = jnp.concatenate(sequence, axis=1)
        if c.position_embedding in ("learned", "sincos2d"):
            positions = PositionEmbedding(c, name="position_embedding")(grid).astype(self.dtype)
            x = x + jnp.pad(positions, ((x.shape[1] - len(positions), 0), (0, 0)))[None]
        if c.num_register_tokens:  # inserted after the positions are added: registers have none (Darcet et al. 2024)
            prefix, patches = jnp.split(x, [c.num_positioned_prefix_tokens], axis=1)
            x = jnp.concatenate([prefix, tokens("register_tokens", c.num_register_tokens), patches], axis=1)
        return nn.Dropout(c.hidden_dropout_prob)(x, deterministic)
