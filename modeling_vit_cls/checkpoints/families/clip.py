"""Vision towers of CLIP (Radford et al. 2021): a norm before the blocks, one after [CLS] alone, a projection."""

from collections.abc import Mapping
from typing import Any

from ..weights import Tensor
from .siglip import TABLE as _SIGLIP
from .table import BICUBIC, Family, always, has, linear, norm, tokens

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
    "embeddings.class_embedding": tokens("embeddings.cls_token"),
    "pre_layrnorm": norm("pre_norm"),  # so spelled
    "visual_projection": linear("projection"),
}


def _fields(fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    vision = fields.get("vision_config") or fields
    size = fields.get("projection_dim", vision.get("projection_dim", 512))
    classes = {"CLIPModel", "CLIPVisionModelWithProjection"}
    projected = has(tensors, "projection") or not classes.isdisjoint(fields.get("architectures") or ())
    return {
        "patch_size": 32,
        **{name: vision[name] for name in _COPIED if name in vision},
        "hidden_act": vision.get("hidden_act", "quick_gelu"),
        "layer_norm_eps": vision.get("layer_norm_eps", 1e-5),
        "attention_probs_dropout_prob": vision.get("attention_dropout", 0.0),
        "patch_bias": False,
        "pre_norm": True,
        "norm_position": "after_readout",
        "projection_size": size if projected else None,
    }


FAMILIES = (
    Family(
        "transformers CLIP",
        ("clip", "clip_vision_model"),
        _fields,
        TABLE,
        ("vision_model.",),
        ("text_model.*", "text_projection.*", "logit_scale", "embeddings.position_ids"),
        always(
            {
                **BICUBIC,
                "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711],
            }
        ),
    ),
)
