"""Vision towers of SigLIP and SigLIP 2 (Zhai et al. 2023; Tschannen et al. 2025): no [CLS], attention pooling."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..configuration_vit_cls import ViTClsConfig
from ..files.tensor import Tensor
from .family import (
    BICUBIC,
    Export,
    Family,
    always,
    common_fields,
    has_classifier,
    labels,
    side_of,
    square,
    vision_fields,
)
from .layouts import Layout, conv, linear, norm, qkv, tokens

_COPIED = [
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "image_size",
    "patch_size",
    "num_channels",
]

_POOLING = "readout.attention_pooling"
TABLE = {
    "embeddings.patch_embedding": conv("embeddings.patch_embedding.projection"),
    "embeddings.position_embedding": tokens("embeddings.position_embedding.embedding", axes=2),
    "post_layernorm": norm("norm"),
    "classifier": linear("classifier"),
    "head.probe": tokens(f"{_POOLING}.probe"),
    "head.attention.in_proj_weight": {"": qkv(f"{_POOLING}.attention")["weight"]},
    "head.attention.in_proj_bias": {"": qkv(f"{_POOLING}.attention")["bias"]},
    "head.attention.out_proj": linear(f"{_POOLING}.attention.out"),
    "head.layernorm": norm(f"{_POOLING}.norm"),
    "head.mlp.fc1": linear(f"{_POOLING}.mlp.fc1"),
    "head.mlp.fc2": linear(f"{_POOLING}.mlp.fc2"),
    "encoder.layers.{}.layer_norm1": norm("{}.norm1"),
    "encoder.layers.{}.self_attn.q_proj": linear("{}.attention.query"),
    "encoder.layers.{}.self_attn.k_proj": linear("{}.attention.key"),
    "encoder.layers.{}.self_attn.v_proj": linear("{}.attention.value"),
    "encoder.layers.{}.self_attn.out_proj": linear("{}.attention.out"),
    "encoder.layers.{}.layer_norm2": norm("{}.norm2"),
    "encoder.layers.{}.mlp.fc1": linear("{}.mlp.fc1"),
    "encoder.layers.{}.mlp.fc2": linear("{}.mlp.fc2"),
}


def _fields(fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    vision, classifies = vision_fields(fields), has_classifier(fields, tensors)
    pooled = vision.get("vision_use_head", True) and not classifies  # its classifier uses the mean of the patches
    return {
        **{name: vision[name] for name in _COPIED if name in vision},
        **(labels(fields) if classifies else {}),
        "hidden_act": vision.get("hidden_act", "gelu_pytorch_tanh"),
        "layer_norm_eps": vision.get("layer_norm_eps", 1e-6),
        "attention_probs_dropout_prob": vision.get("attention_dropout", 0.0),
        "use_cls_token": False,
        "readout": "map" if pooled else "mean",
    }


def _export(config: ViTClsConfig, has_head: bool) -> Export:
    vision = {
        **common_fields(config, _COPIED, has_head=False),
        "model_type": "siglip_vision_model",
        "image_size": square(config, "transformers' SigLIP"),
        "hidden_act": config.hidden_act,
        "layer_norm_eps": config.layer_norm_eps,
        "attention_dropout": config.attention_probs_dropout_prob,
        "vision_use_head": config.readout == "map",
    }
    if not has_head:
        return Export({"architectures": ["SiglipVisionModel"], **vision}, "vision_model.")
    fields = {"architectures": ["SiglipForImageClassification"], "model_type": "siglip", "vision_config": vision}
    return Export(fields | common_fields(config, [], has_head), "vision_model.")


def _flexible_fields(fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """SigLIP 2 NaFlex: images of any size; one square table of positions is resampled to the grid of the image."""
    vision = vision_fields(fields)
    size = math.isqrt(vision.get("num_patches", 256)) * side_of(vision.get("patch_size", 16))
    ours = _fields(fields, tensors) | {"image_size": size}
    return ours | {"position_interpolation": "bilinear_antialias", "dynamic_image_size": True}


def _flexible_processor(fields: dict[str, Any], config: ViTClsConfig) -> dict[str, Any]:
    """Keep the aspect ratio, with at most as many patches as the table has positions."""
    return {"size": {"max_num_patches": math.prod(config.grid), "patch_size": config.patch_size}}


def _flat_patches(weight: np.ndarray) -> np.ndarray:
    """A Linear on flattened RGB patches, weight (D, P P 3) -> kernel (P, P, 3, D)."""
    side = math.isqrt(weight.shape[1] // 3)
    return weight.reshape(-1, side, side, 3).transpose(1, 2, 3, 0)


_PATCHES = "embeddings.patch_embedding.projection"
_FLEXIBLE = TABLE | {
    "embeddings.patch_embedding": {
        "weight": Layout((f"{_PATCHES}.kernel",), lambda weight: [_flat_patches(weight)]),
        "bias": conv(_PATCHES)["bias"],
    }
}
_IGNORED = ("text_model.*", "logit_scale", "logit_bias", "embeddings.position_ids")
FAMILIES = (
    Family(
        "transformers SigLIP",
        _fields,
        TABLE,
        model_types=("siglip", "siglip_vision_model"),
        prefixes=("vision_model.",),
        ignored=_IGNORED,
        processor=always(BICUBIC),
        processor_class="SiglipImageProcessor",
        export=_export,
    ),
    Family(
        "transformers SigLIP 2",
        _flexible_fields,
        _FLEXIBLE,
        model_types=("siglip2", "siglip2_vision_model"),
        prefixes=("vision_model.",),
        ignored=_IGNORED,
        processor=_flexible_processor,
        processor_class="Siglip2ImageProcessor",
    ),
)
