"""Outputs of the models: each is a transformers ModelOutput (fields, keys, indices) and a JAX pytree."""

from collections import OrderedDict
from dataclasses import fields

import flax.struct
import jax
from transformers.utils.generic import ModelOutput


class _Output(ModelOutput):
    """A ModelOutput. Fields that are None are absent from its keys, indices and `to_tuple()`, as in transformers."""

    def __post_init__(self) -> None:
        # Not by transformers 5, which reads a single jax array as a list of key-value pairs.
        for field in fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, field.name)
            if value is not None:
                OrderedDict.__setitem__(self, field.name, value)


@flax.struct.dataclass
class FlaxBaseModelOutputWithPooling(_Output):
    """Outputs of the backbone.

    Attributes:
        last_hidden_state: the tokens (B, T, D).
        pooler_output: their readout (B, F).
        hidden_states: on request, L + 1 arrays (B, T, D); the first one is the encoder's input.
        attentions: on request, L attention maps (B, heads, T, T).
        image_embeds: the projected readout (B, projection_size), for a config with a `projection_size`.
    """

    last_hidden_state: jax.Array
    pooler_output: jax.Array | None = None
    hidden_states: tuple[jax.Array, ...] | None = None
    attentions: tuple[jax.Array, ...] | None = None
    image_embeds: jax.Array | None = None


@flax.struct.dataclass
class FlaxViTClsClassifierOutput(_Output):
    """Outputs of the classifier.

    Attributes:
        logits: (B, K) float32. With a distillation head, the mean of the two heads' logits.
        hidden_states: on request, as in `FlaxBaseModelOutputWithPooling`.
        attentions: on request, as in `FlaxBaseModelOutputWithPooling`.
        cls_logits: logits (B, K) of the [CLS] head, for a model with a distillation head.
        distillation_logits: logits (B, K) of the distillation head.
    """

    logits: jax.Array
    hidden_states: tuple[jax.Array, ...] | None = None
    attentions: tuple[jax.Array, ...] | None = None
    cls_logits: jax.Array | None = None
    distillation_logits: jax.Array | None = None
