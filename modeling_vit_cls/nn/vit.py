"""flax.linen modules: images -> patches -> tokens -> encoder -> readout -> logits.

Shapes: B batch, H W C image height, width (pixels) and channels, P patch side (pixels), N patches, T tokens,
D hidden size, K classes. Parameters are float32; `dtype` is what products are computed in.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ..configuration_vit_cls import ViTClsConfig
from .embeddings import Embeddings
from .fused_attention import is_fused, padding
from .layers import KEPT, Attention, Dtype, EncoderBlock, Mlp, Rope, layer_norm, linear
from .outputs import FlaxBaseModelOutputWithPooling, FlaxViTClsClassifierOutput
from .positions import rope_table
from .scan import STACK


class Encoder(nn.Module):
    """The stack of blocks: (B, T, D) -> (B, T, D), every block's input and output, every block's probabilities.

    With `scan`, parameters are stacked (scan.py) and one program runs all blocks but the last: the time to compile it
    does not grow with depth, and it keeps the last output alone. `tokens` limits the last block to the first tokens.
    `fused` computes attention by a fused kernel, without probabilities, in all blocks that are not so limited.
    """

    config: ViTClsConfig
    dtype: Dtype = jnp.float32
    gradient_checkpointing: bool = False
    scan: bool = False
    fused: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, rope: Rope, deterministic: bool, tokens: int | None = None
    ) -> tuple[jax.Array, tuple[jax.Array, ...], tuple[Any, ...]]:
        c = self.config
        rates = np.linspace(0, c.drop_path_rate, c.num_hidden_layers)
        block = nn.remat(EncoderBlock, static_argnums=(3, 5)) if self.gradient_checkpointing else EncoderBlock
        last, length = len(rates) - 1, x.shape[1]
        fused, whole_rope = length if self.fused else None, rope
        if self.fused:  # once, not in each block
            added = (0, padding(length))
            x = jnp.pad(x, ((0, 0), added, (0, 0)))
            if rope is not None:
                rope = np.pad(rope[0], (added, (0, 0))), np.pad(rope[1], (added, (0, 0)))
        if self.scan and last:
            x = self._scan(x, rope, deterministic, rates[:last], fused)
        hidden_states, attentions = [x[:, :length]], []
        for i in range(last if self.scan else 0, len(rates)):
            if i == last and tokens is not None:  # few queries: plain products
                x, rope, fused = x[:, :length], whole_rope, None
            layer = block(c, self.dtype, fused, name=f"layer_{i:02d}")
            x, probabilities = layer(x, rope, deterministic, float(rates[i]), tokens if i == last else None)
            hidden_states.append(x[:, :length])
            attentions.append(probabilities)
        x = x[:, :length]
        return (x, (), ()) if self.scan else (x, tuple(hidden_states), tuple(attentions))

    def _scan(self, x: jax.Array, rope: Rope, deterministic: bool, rates: np.ndarray, fused: int | None) -> jax.Array:
        keys = None if deterministic else jax.random.split(self.make_rng("dropout"), len(rates))
        block = EncoderBlock(self.config, self.dtype, fused, parent=None)

        def step(x: jax.Array, layer: tuple[Any, jax.Array, jax.Array | None]) -> tuple[jax.Array, None]:
            params, rate, key = layer
            rngs = None if key is None else {"dropout": key}
            return block.apply({"params": params}, x, rope, deterministic, rate, rngs=rngs)[0], None  # pyright: ignore

        kept = None if self.gradient_checkpointing else KEPT
        step = jax.checkpoint(step, policy=kept, prevent_cse=False)
        layers = (self.variables["params"][STACK], jnp.asarray(rates, jnp.float32), keys)
        return jax.lax.scan(step, x, layers)[0]


class AttentionPooling(nn.Module):
    """One learned query reads all tokens: (B, T, D) -> (B, D). Zhai et al. 2022, section 3.2 (MAP head)."""

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
    """Tokens to one vector an image: (B, T, D) -> (B, D), or (B, 2D) for "cls_mean"."""

    config: ViTClsConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        c = self.config
        if c.readout == "map":
            return AttentionPooling(c, self.dtype, name="attention_pooling")(tokens)
        cls = tokens[:, 0]
        if c.readout == "cls":
            return cls
        mean = tokens[:, c.num_prefix_tokens :].mean(axis=1)  # patches alone: never [CLS], never a register
        if c.readout == "mean":
            return mean
        if c.readout == "cls_mean":
            return jnp.concatenate([cls, mean], axis=-1)
        raise NotImplementedError(f"readout={c.readout!r}")


class FlaxViTClsModule(nn.Module):
    """Images to tokens and their readout: (B, H, W, C) -> last_hidden_state (B, T, D), pooler_output (B, F).

    `readout_only` leaves out what the readout, or the distillation head, does not depend on: of the last block, and of
    `last_hidden_state`, the tokens after these two; all hidden states and attentions. Without `attention_maps` there
    are none, and attention may run by a fused kernel (fused_attention.py), unless its probabilities are dropped out.
    With `scan` the parameters are those of `scan.stack_params`, and there are no hidden states to return: raises
    ValueError unless `readout_only`.
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
        if self.scan and not readout_only:
            raise ValueError("scan=True keeps no hidden states: call the module with readout_only=True")
        c = self.config
        x = Embeddings(c, self.dtype, name="embeddings")(images.astype(self.dtype), deterministic)
        if c.pre_norm:
            x = layer_norm(c, self.dtype, "pre_norm")(x)
        rope = None
        if c.position_embedding == "rope":
            grid = (images.shape[1] // c.patch_size, images.shape[2] // c.patch_size)
            rope = rope_table(grid, c.hidden_size // c.num_attention_heads, c.rope_theta)
        head_size = c.hidden_size // c.num_attention_heads
        fused = is_fused(self.attn_implementation, self.dtype, head_size) and (readout_only or not attention_maps)
        fused = fused and (deterministic or c.attention_probs_dropout_prob == 0)
        encoder = Encoder(c, self.dtype, self.gradient_checkpointing, self.scan, fused, name="encoder")
        read = 1 + c.has_distillation_head if readout_only and c.readout == "cls" else None
        x, hidden_states, attentions = encoder(x, rope, deterministic, read)
        if readout_only:
            hidden_states = ()
        if readout_only or not attention_maps:
            attentions = ()

        norm, readout = layer_norm(c, self.dtype, "norm"), Readout(c, self.dtype, name="readout")
        if c.norm_position == "before_readout":
            x = norm(x)
            pooled = readout(x)
        else:
            pooled = norm(readout(x))
        if c.representation_size is not None:
            pooled = jnp.tanh(linear(c, c.representation_size, self.dtype, "representation")(pooled))
        embeds = None
        if c.projection_size is not None:
            embeds = linear(c, c.projection_size, self.dtype, "projection", use_bias=False)(pooled)
        return FlaxBaseModelOutputWithPooling(x, pooled, hidden_states, attentions, embeds)


class FlaxViTClsForImageClassificationModule(nn.Module):
    """Images to logits: (B, H, W, C) -> (B, K), in float32 whatever `dtype` is.

    `readout_only` computes the same logits, and no more than they depend on.
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
        c = self.config
        backbone = FlaxViTClsModule(
            c, self.dtype, self.gradient_checkpointing, self.scan, self.attn_implementation, name="vit_cls"
        )
        outputs = backbone(images, deterministic, readout_only, attention_maps)
        pooled: Any = outputs.pooler_output
        logits = linear(c, c.num_classes, self.dtype, "classifier", result=jnp.float32)(pooled)
        cls_logits = distillation_logits = None
        if c.has_distillation_head:  # Touvron et al. 2021, section 4: at inference the two heads are averaged
            token = outputs.last_hidden_state[:, 1]
            cls_logits = logits
            head = linear(c, c.num_classes, self.dtype, "distillation_classifier", result=jnp.float32)
            distillation_logits = head(token)
            logits = (cls_logits + distillation_logits) / 2
        return FlaxViTClsClassifierOutput(
            logits, outputs.hidden_states, outputs.attentions, cls_logits, distillation_logits
        )
