"""The Vision Transformer in flax.linen: images -> patches -> tokens -> encoder -> readout -> logits.

Notation for shapes, here and in the rest of the package:

    B  images in a batch        H, W, C  height, width (pixels) and channels of an image
    P  patch side (pixels)      h, w     rows and columns of patches, H / P and W / P
    N  patches, h w             T        [CLS] tokens, distillation token, registers (each if configured), patches
    D  hidden size              F        features of the readout
    L  encoder blocks           d        features of an attention head, D / heads
    K  classes

Parameters are float32. `dtype` is the type in which matrix products are computed.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ..configuration_vit_cls import ViTClsConfig
from .embeddings import Embeddings
from .fused_attention import may_fuse, padding
from .layers import SAVE_PRODUCTS, Attention, EncoderBlock, Mlp
from .linear import Dtype, layer_norm, linear
from .outputs import FlaxBaseModelOutputWithPooling, FlaxViTClsClassifierOutput
from .positions import relative_rows, rope_table
from .resampling import Grid
from .scan import STACK


class Encoder(nn.Module):
    """L pre-norm blocks: tokens (B, T, D) -> tokens (B, T, D), L + 1 hidden states (B, T, D), L attention maps.

    The first hidden state is the encoder's input. An attention map is (B, heads, T, T).

    Attributes:
        gradient_checkpointing: recompute each block in the backward pass instead of storing its activations.
        scan: run all blocks but the last as one `jax.lax.scan` over stacked parameters (scan.py). Compile time then
            does not grow with L. No hidden states and no attention maps are returned.
        fused: compute attention by the fused kernel (fused_attention.py); attention maps are then None.
        grid: rows and columns of the images' patches.
    """

    config: ViTClsConfig
    dtype: Dtype = jnp.float32
    gradient_checkpointing: bool = False
    scan: bool = False
    fused: bool = False
    grid: Grid | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, positions: Any, deterministic: bool, tokens: int | None = None
    ) -> tuple[jax.Array, tuple[jax.Array, ...], tuple[Any, ...]]:
        """Encode tokens (B, T, D).

        Args:
            x: the tokens.
            positions: those of attention, as in `EncoderBlock`.
            deterministic: False applies dropout and stochastic depth.
            tokens: compute only this number of first tokens in the last block, without the fused kernel.
        """
        c = self.config
        rates = np.linspace(0, c.drop_path_rate, c.num_hidden_layers)
        block = nn.remat(EncoderBlock, static_argnums=(3, 5)) if self.gradient_checkpointing else EncoderBlock
        last, length = len(rates) - 1, x.shape[1]
        fused, unpadded = length if self.fused else None, positions
        if self.fused and not deterministic:  # in training, pad the sequence once and not in each block
            widths = (0, padding(length))
            x = jnp.pad(x, ((0, 0), widths, (0, 0)))
            if positions is not None:  # rotary: relative positions do not use the fused kernel
                positions = tuple(np.pad(table, (widths, (0, 0))) for table in positions)
        if self.scan and last:
            x = self._scan(x, positions, deterministic, rates[:last], fused)
        hidden_states, attentions = [x[:, :length]], []
        for i in range(last if self.scan else 0, len(rates)):
            if i == last and tokens is not None:  # one or two queries: plain products without padding
                x, positions, fused = x[:, :length], unpadded, None
            layer = block(c, self.dtype, fused, self.grid, name=f"layer_{i:02d}")
            x, probabilities = layer(x, positions, deterministic, float(rates[i]), tokens if i == last else None)
            hidden_states.append(x[:, :length])
            attentions.append(probabilities)
        x = x[:, :length]
        return (x, (), ()) if self.scan else (x, tuple(hidden_states), tuple(attentions))

    def _scan(
        self, x: jax.Array, positions: Any, deterministic: bool, rates: np.ndarray, fused: int | None
    ) -> jax.Array:
        """All blocks but the last: (B, T, D) -> (B, T, D). `rates` (L - 1,) are their drop-path rates."""
        keys = None if deterministic else jax.random.split(self.make_rng("dropout"), len(rates))
        block = EncoderBlock(self.config, self.dtype, fused, self.grid, parent=None)

        def step(x: jax.Array, layer: tuple[Any, jax.Array, jax.Array | None]) -> tuple[jax.Array, None]:
            params, rate, key = layer
            rngs = None if key is None else {"dropout": key}
            return block.apply({"params": params}, x, positions, deterministic, rate, rngs=rngs)[0], None  # pyright: ignore

        policy = None if self.gradient_checkpointing else SAVE_PRODUCTS
        step = jax.checkpoint(step, policy=policy, prevent_cse=False)
        layers = (self.variables["params"][STACK], jnp.asarray(rates, jnp.float32), keys)
        return jax.lax.scan(step, x, layers)[0]


class AttentionPooling(nn.Module):
    """Attention of one learned query to all tokens, then an MLP: (B, T, D) -> (B, D).

    Zhai et al. 2022, "Scaling Vision Transformers", section 3.2 (MAP head).
    """

    config: ViTClsConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        c = self.config
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, c.hidden_size), jnp.float32)
        query = jnp.broadcast_to(probe.astype(self.dtype)[None], (tokens.shape[0], 1, c.hidden_size))
        x, _ = Attention(c, self.dtype, name="attention")(query, tokens)
        x = x + Mlp(c, self.dtype, name="mlp")(layer_norm(c, self.dtype, "norm")(x))
        return x[:, 0]


class Readout(nn.Module):
    """Tokens to one vector per image: (B, T, D) -> (B, F).

    "cls" is the [CLS] token, or the mean of several, "cls_concat" all of them in a row; "mean" the mean of the patches;
    "cls_mean" [CLS] and this mean in a row; "map" attention pooling.
    """

    config: ViTClsConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        c = self.config
        if c.readout == "map":
            return AttentionPooling(c, self.dtype, name="attention_pooling")(tokens)
        if c.readout == "cls_concat":
            return tokens[:, : c.num_cls_tokens].reshape(tokens.shape[0], -1)
        cls = tokens[:, 0] if c.num_cls_tokens == 1 else tokens[:, : c.num_cls_tokens].mean(axis=1)
        if c.readout == "cls":
            return cls
        mean = tokens[:, c.num_prefix_tokens :].mean(axis=1)  # patches only, without [CLS] and registers
        if c.readout == "mean":
            return mean
        if c.readout == "cls_mean":
            return jnp.concatenate([cls, mean], axis=-1)
        raise NotImplementedError(f"readout={c.readout!r}")


class FlaxViTClsModule(nn.Module):
    """The backbone: images (B, H, W, C) -> last_hidden_state (B, T, D) and its readout, pooler_output (B, F).

    Attributes:
        gradient_checkpointing: recompute each block in the backward pass: less memory, more work.
        scan: run the blocks as a loop over the parameters that `scan.stack_params` returns. It needs `readout_only`.
        attn_implementation: "auto", "xla" or "cudnn" (see `fused_attention.is_fused`).
    """

    config: ViTClsConfig
    dtype: Dtype = jnp.float32
    gradient_checkpointing: bool = False
    scan: bool = False
    attn_implementation: str = "auto"

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        deterministic: bool = True,
        readout_only: bool = False,
        attention_maps: bool = True,
    ) -> FlaxBaseModelOutputWithPooling:
        """Encode images (B, H, W, C), normalised floats.

        Args:
            images: of any height and width; pixels at the border that do not fill a patch are left out.
            deterministic: False applies dropout and stochastic depth, which need a random key "dropout".
            readout_only: compute only what the readout and the distillation head depend on. No hidden states and no
                attention maps are returned; with readout "cls" or "cls_concat", `last_hidden_state` has only the tokens
                of the heads.
            attention_maps: False returns no attention maps, so that attention may use the fused kernel. Dropout of
                attention probabilities always takes plain products.

        Raises ValueError with `scan` unless `readout_only`: a loop returns no hidden states.
        """
        if self.scan and not readout_only:
            raise ValueError("scan=True keeps no hidden states: call the module with readout_only=True")
        c = self.config
        x = Embeddings(c, self.dtype, name="embeddings")(images.astype(self.dtype), deterministic)
        if c.pre_norm:
            x = layer_norm(c, self.dtype, "pre_norm")(x)
        grid = (images.shape[1] // c.patch_size, images.shape[2] // c.patch_size)
        positions: Any = None
        if c.position_embedding == "rope":
            positions = rope_table(grid, c.hidden_size // c.num_attention_heads, c.rope_theta)
        if c.position_embedding == "relative":
            positions = jnp.asarray(relative_rows(grid))
        fused = may_fuse(self) and (readout_only or not attention_maps)
        fused = fused and (deterministic or c.attention_probs_dropout_prob == 0)
        encoder = Encoder(c, self.dtype, self.gradient_checkpointing, self.scan, fused, grid, name="encoder")
        reads_cls = c.readout in ("cls", "cls_concat")
        tokens = c.num_cls_tokens + c.has_distillation_head if readout_only and reads_cls else None
        x, hidden_states, attentions = encoder(x, positions, deterministic, tokens)
        if readout_only:
            hidden_states = ()
        if readout_only or not attention_maps:
            attentions = ()

        norm, readout = layer_norm(c, self.dtype, "norm"), Readout(c, self.dtype, name="readout")
        if c.norm_position == "before_readout":
            x = norm(x)
        pooled = readout(x)
        if c.norm_position == "after_readout":
            pooled = norm(pooled)
        if c.representation_size is not None:
            pooled = jnp.tanh(linear(c, c.representation_size, self.dtype, "representation")(pooled))
        embeds = None
        if c.projection_size is not None:
            embeds = linear(c, c.projection_size, self.dtype, "projection", use_bias=False)(pooled)
        return FlaxBaseModelOutputWithPooling(x, pooled, hidden_states, attentions, embeds)


class FlaxViTClsForImageClassificationModule(nn.Module):
    """The backbone and a linear classifier on its readout: images (B, H, W, C) -> logits (B, K), always float32.

    With `classifier_input="unit_embedding"` the classifier reads an image's embedding at length 1: the projection if
    there is one, else the readout (zero-shot: Radford et al. 2021, section 3.1). A model with a distillation head has a
    second classifier, on the distillation token. Attributes as in `FlaxViTClsModule`.
    """

    config: ViTClsConfig
    dtype: Dtype = jnp.float32
    gradient_checkpointing: bool = False
    scan: bool = False
    attn_implementation: str = "auto"

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        deterministic: bool = True,
        readout_only: bool = False,
        attention_maps: bool = True,
    ) -> FlaxViTClsClassifierOutput:
        """Classify images (B, H, W, C). Arguments as in `FlaxViTClsModule`; `readout_only` gives the same logits."""
        c = self.config
        backbone = FlaxViTClsModule(
            c, self.dtype, self.gradient_checkpointing, self.scan, self.attn_implementation, name="vit_cls"
        )
        outputs = backbone(images, deterministic, readout_only, attention_maps)
        features: Any = outputs.pooler_output
        if c.classifier_input == "unit_embedding":
            embeddings = (features if outputs.image_embeds is None else outputs.image_embeds).astype(jnp.float32)
            squares = jnp.sum(embeddings**2, axis=-1, keepdims=True)
            features = embeddings / jnp.sqrt(jnp.maximum(squares, jnp.finfo(jnp.float32).tiny))  # zeros stay zeros
        logits = linear(c, c.num_classes, self.dtype, "classifier", result=jnp.float32)(features)
        cls_logits = distillation_logits = None
        if c.has_distillation_head:  # Touvron et al. 2021, section 4: at inference the two heads are averaged
            token = outputs.last_hidden_state[:, c.num_cls_tokens]
            cls_logits = logits
            head = linear(c, c.num_classes, self.dtype, "distillation_classifier", result=jnp.float32)
            distillation_logits = head(token)
            logits = (cls_logits + distillation_logits) / 2
        return FlaxViTClsClassifierOutput(
            logits, outputs.hidden_states, outputs.attentions, cls_logits, distillation_logits
        )
