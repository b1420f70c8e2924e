"""What a model returns: transformers' ModelOutput (fields, keys, indices) that is a JAX pytree too."""

from collections import OrderedDict
from dataclasses import fields

import flax.struct
import jax
from transformers.utils.generic import ModelOutput


class _Output(ModelOutput):
    """Fields that are None are absent from keys, indices and `to_tuple()`, as everywhere in transformers."""

    def __post_init__(self) -> None:
        # transformers 5 takes a lone jax array for a list of key-value pairs: fill the mapping ourselves.
        for field in fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, field.name)
            if value is not None:
                OrderedDict.__setitem__(self, field.name, value)


@flax.struct.dataclass
class FlaxBaseModelOutputWithPooling(_Output):
    """Tokens (B, T, D), their readout (B, F), and on request every hidden state and attention map.

    `hidden_states` holds L + 1 arrays (B, T, D), the encoder's input first; `attentions` L arrays (B, heads, T, T).
    `image_embeds` (B, projection_size) is the projected readout of a model that has such a projection.
    """

    last_hidden_state: jax.Array
    pooler_output: jax.Array | None = None
    hidden_states: tuple[jax.Array, ...] | None = None
    attentions: tuple[jax.Array, ...] | None = None
    image_embeds: jax.Array | None = None


@flax.struct.dataclass
class FlaxViTClsClassifierOutput(_Output):
    """Logits (B, K), hidden states and attention maps; with a distillation token also the two heads' own logits."""

    logits: jax.Array
    hidden_states: tuple[jax.Array, ...] | None = None
    attentions: tuple[jax.Array, ...] | None = None
    cls_logits: jax.Array | None = None
    distillation_logits: jax.Array | None = None
