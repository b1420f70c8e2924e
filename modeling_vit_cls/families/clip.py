"""Vision towers of CLIP and MetaCLIP 2: a norm before the blocks, a norm of [CLS] only, and a projection.

Radford et al. 2021; Chuang et al. 2025.
"""

from collections.abc import Mapping
from typing import Any

from ..configuration_vit_cls import ViTClsConfig
from ..errors import ConfigError
from ..files.tensor import Tensor
from ..images.processor_classes import CLIP
from .family import BICUBIC, Export, Family, common_fields, cropped, has, has_classifier, labels, square, vision_fields
from .layouts import linear, norm, tokens
from .siglip import TABLE as _SIGLIP

_COPIED = [
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "image_size",
    "patch_size",
    "num_channels",
    "initializer_range",
]

TABLE = {
    **{name: targets for name, targets in _SIGLIP.items() if not name.startswith(("head.", "classifier"))},
    "embeddings.class_embedding": tokens("embeddings.cls_token", axes=1),
    "pre_layrnorm": norm("pre_norm"),  # transformers' spelling
    "visual_projection": linear("projection"),
    "classifier": linear("classifier"),
}


def _fields(fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    classifies = has_classifier(fields, tensors)  # the mean of the patches, without the norm and the projection
    vision = vision_fields(fields)
    if fields.get("vision_config_dict") is not None:  # in old files; CLIPConfig takes it and its defaults instead
        vision = fields["vision_config_dict"]
    size = fields.get("projection_dim", vision.get("projection_dim", 512))
    classes = fields.get("architectures") or ()
    projected = not classifies and (has(tensors, "projection") or not _WITH_PROJECTION.isdisjoint(classes))
    return {
        "patch_size": 32,
        **{name: vision[name] for name in _COPIED if name in vision},
        "hidden_act": vision.get("hidden_act", "quick_gelu"),
        "layer_norm_eps": vision.get("layer_norm_eps", 1e-5),
        "attention_probs_dropout_prob": vision.get("attention_dropout", 0.0),
        "patch_bias": False,
        "pre_norm": True,
        "norm_position": "none" if classifies else "after_readout",
        "readout": "mean" if classifies else "cls",
        **(labels(fields) if classifies else {}),
        "projection_size": size if projected else None,
    }


def _export(config: ViTClsConfig, has_head: bool) -> Export:
    if has_head:
        rule = "a classifier on CLIP cannot be exported: export the backbone, FlaxViTClsModel"
        raise ConfigError("num_labels", config.num_labels, rule)
    fields = {
        **common_fields(config, _COPIED, has_head),
        "architectures": ["CLIPVisionModelWithProjection" if config.projection_size else "CLIPVisionModel"],
        "model_type": "clip_vision_model",
        "image_size": square(config, "transformers' CLIP"),
        "hidden_act": config.hidden_act,
        "layer_norm_eps": config.layer_norm_eps,
        "attention_dropout": config.attention_probs_dropout_prob,
        **({"projection_dim": config.projection_size} if config.projection_size else {}),
    }
    return Export(fields, "vision_model.")


_CLIP, _METACLIP = ("clip", "clip_vision_model"), ("metaclip_2", "metaclip_2_vision_model")
_WITH_PROJECTION = {
    f"{name}{kind}" for name in ("CLIP", "MetaClip2") for kind in ("Model", "VisionModelWithProjection")
}
FAMILIES = tuple(
    Family(
        f"transformers {name}",
        _fields,
        TABLE,
        model_types=model_types,
        prefixes=("vision_model.",),
        ignored=("text_model.*", "text_projection.*", "logit_scale", "embeddings.position_ids"),
        processor=cropped(BICUBIC | CLIP, margin=1.0),
        processor_class="CLIPImageProcessor",
        export=_export,
        unused_by_classifier=("norm.", "projection."),
    )
    for name, model_types in (("CLIP", _CLIP), ("MetaCLIP 2", _METACLIP))
)
