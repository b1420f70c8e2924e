"""The models FlaxViTClsModel and FlaxViTClsForImageClassification, and `vit_cls_forward`, a model as one function."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .configuration_vit_cls import ViTClsConfig
from .errors import BadImageError, shorten
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
        outputs = self(pixel_values, params, dropout_rng, train, return_dict=True, **size)
        return outputs.pooler_output if outputs.image_embeds is None else outputs.image_embeds


class FlaxViTClsForImageClassification(FlaxPreTrainedModel):
    """The backbone and a linear classifier on its readout: pixels (B, C, H, W) -> logits (B, K) in float32."""

    module_class = FlaxViTClsForImageClassificationModule
    returns_readout_only = True


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
