"""The models FlaxViTClsModel and FlaxViTClsForImageClassification, and `vit_cls_forward`, a model as one function."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import unfreeze
from flax.traverse_util import flatten_dict, unflatten_dict

from .configuration_vit_cls import ViTClsConfig
from .errors import BadImageError, ConfigError, shorten
from .families.open import parameter_shapes
from .nn.outputs import FlaxBaseModelOutputWithPooling
from .nn.vit import FlaxViTClsForImageClassificationModule, FlaxViTClsModule
from .pretrained.base import FlaxPreTrainedModel


class FlaxViTClsModel(FlaxPreTrainedModel):
    """The backbone: pixels (B, C, H, W) -> last_hidden_state (B, T, D) and pooler_output, the readout (B, F)."""

    module_class = FlaxViTClsModule

    def get_image_features(
        self,
        pixel_values: Any,
        params: Mapping | None = None,
        dropout_rng: jax.Array | None = None,
        train: bool = False,
        interpolate_pos_encoding: bool = False,
    ) -> jax.Array:
        """One embedding per image: (B, C, H, W) -> (B, F), as in transformers' FlaxCLIPModel.

        It is `image_embeds` if the config has a `projection_size` (CLIP), else `pooler_output`. It is not normalised.
        Arguments as in a call of the model.
        """
        size = {"interpolate_pos_encoding": interpolate_pos_encoding}
        return embedding_of(self(pixel_values, params, dropout_rng, train, return_dict=True, **size))

    def with_classifier(self, config: ViTClsConfig, kernel: Any, bias: Any) -> "FlaxViTClsForImageClassification":
        """A classifier of `config` on this backbone, with the head `kernel` (F, K) and `bias` (K,).

        The parameters of the backbone are shared; those that `config` does not use are left out.
        """
        head = {"classifier.kernel": jnp.asarray(kernel), "classifier.bias": jnp.asarray(bias)}
        body = {f"vit_cls.{name}": leaf for name, leaf in flatten_dict(unfreeze(self.params), sep=".").items()}
        shapes = parameter_shapes(FlaxViTClsForImageClassificationModule, config)
        module: Any = self.module
        model = FlaxViTClsForImageClassification(
            config,
            dtype=self.dtype,
            attn_implementation=module.attn_implementation,
            params=unflatten_dict({name: (head | body)[name] for name in shapes}, sep="."),
            image_processor=self._image_processor,
        )
        if module.gradient_checkpointing:
            model.enable_gradient_checkpointing()
        return model


def embedding_of(outputs: FlaxBaseModelOutputWithPooling) -> Any:
    """The embeddings (B, F) in a backbone's outputs: the projection where the model has one, else the readout."""
    return outputs.pooler_output if outputs.image_embeds is None else outputs.image_embeds


class FlaxViTClsForImageClassification(FlaxPreTrainedModel):
    """The backbone and a linear classifier on its readout: pixels (B, C, H, W) -> logits (B, K) in float32."""

    module_class = FlaxViTClsForImageClassificationModule
    returns_readout_only = True

    @classmethod
    def from_text_embeddings(
        cls, backbone: FlaxViTClsModel, embeddings: Any, labels: Sequence[str], scale: float, bias: float | None = None
    ) -> "FlaxViTClsForImageClassification":
        """A zero-shot classifier from an image tower of CLIP or SigLIP and the embeddings of K texts (K, F).

        The logits are `scale` x cosine similarity of image and text + `bias`, as in the whole model. The scaled texts
        become the kernel of the classifier, so that the model is saved, loaded and fine-tuned as any other
        (`classifier_input="unit_embedding"` of its config). It shares the parameters of `backbone`.

        Args:
            backbone: the image tower; F is the width of its `get_image_features`.
            embeddings: a text embedding for each class, of any length above 0. Of several texts for a class, give the
                mean of their embeddings at length 1.
            labels: K different class names, in the order of the embeddings.
            scale: factor of the similarities, `exp(logit_scale)` of CLIP and SigLIP.
            bias: `logit_bias` of SigLIP. SigLIP's scores are sigmoids: `function_to_apply="sigmoid"` of the pipeline.

        Raises ConfigError, naming the argument, for embeddings, labels, scale or bias that do not fit.
        """
        if not isinstance(backbone, FlaxViTClsModel):
            raise ConfigError("backbone", type(backbone).__name__, "must be a FlaxViTClsModel")
        labels = list(labels)
        texts = _unit_texts(embeddings, labels, backbone.config.embedding_size)
        scale, bias = _number("scale", scale), _number("bias", 0.0 if bias is None else bias)
        if scale <= 0:
            raise ConfigError("scale", scale, "must be above 0: exp(logit_scale), not logit_scale itself")
        names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
        config = ViTClsConfig.from_dict(backbone.config.to_dict(), **names, classifier_input="unit_embedding")
        kernel, biases = (scale * texts.T).astype(np.float32), np.full(len(labels), bias, np.float32)
        return backbone.with_classifier(config, kernel, biases)


def reread(model: Any, readout: str) -> Any:
    """A model of the same parameters, all of them and no others, with another readout.

    Raises ConfigError where `with_readout` would draw new parameters: a classifier of another width, attention pooling.
    """
    if readout == model.config.readout:
        return model
    fields = {**model.config.to_dict(), "readout": readout}
    other = type(model)(type(model.config).from_dict(fields), _do_init=False)
    if other.params_shape_tree != model.params_shape_tree:
        rule = f"needs parameters that this model does not have: its own readout is {model.config.readout!r}"
        raise ConfigError("readout", readout, rule)
    return model.with_readout(readout)


def _number(name: str, value: Any) -> float:
    """A finite number, also from an array with one element. Raises ConfigError for anything else."""
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "iuf" or not abs(array) <= np.finfo(np.float32).max:
        raise ConfigError(name, value, "must be a finite number in float32")
    return float(array.reshape(()))


def _unit_texts(embeddings: Any, labels: Sequence[str], width: int) -> np.ndarray:
    """Text embeddings (K, F) at length 1, in float64. Raises ConfigError if they or the labels do not fit."""
    texts = np.asarray(embeddings, np.float64)
    if texts.shape != (len(labels), width):
        rule = f"must have shape ({len(labels)}, {width}): a row for each label, of the width of the image embeddings"
        raise ConfigError("embeddings", texts.shape, rule)
    if not labels or not all(isinstance(label, str) for label in labels) or len(set(labels)) < len(labels):
        raise ConfigError("labels", labels, "must be different texts, one for each class")
    lengths = np.linalg.norm(texts, axis=1, keepdims=True)
    for label, length in zip(labels, lengths[:, 0]):
        if not math.isfinite(length) or length == 0:
            raise ConfigError("embeddings", label, f"the embedding of this label has length {length}")
    return texts / lengths


def vit_cls_forward(
    seed: int,
    image: Any,
    patch_size: int,
    d_model: int,
    num_heads: int,
    d_ff: int,
    num_layers: int,
    num_classes: int,
) -> jax.Array:
    """Classify one image by a ViT with a [CLS] token and random parameters: (H, W, C) -> logits (K,) float32.

    The parameters are drawn from `seed`; the logits are the same as those of
    `FlaxViTClsForImageClassification(config, seed=seed)`.

    Args:
        seed: seed of the parameters.
        image: floats (H, W, C).
        patch_size: patch side in pixels.
        d_model: hidden size D.
        num_heads: number of attention heads.
        d_ff: hidden features of the MLP.
        num_layers: number of blocks.
        num_classes: number of classes K.

    Raises ConfigError for sizes that contradict each other, BadImageError for an image that is not (H, W, C) floats.
    """
    shape = getattr(image, "shape", ())
    if len(shape) != 3:
        raise BadImageError(f"expected an image of shape (height, width, channels), got {shorten(shape or image)}")
    config = ViTClsConfig(
        hidden_size=d_model,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        intermediate_size=d_ff,
        image_size=tuple(shape[:2]),
        patch_size=patch_size,
        num_channels=shape[2],
        num_labels=num_classes,
    )
    model = FlaxViTClsForImageClassification(config, seed=seed)
    return model(jnp.asarray(image).transpose(2, 0, 1)[None]).logits[0]
