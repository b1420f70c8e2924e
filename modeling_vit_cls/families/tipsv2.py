"""TIPSv2 of transformers 5: DINOv2's block in Meta's names, with one register, a [CLS] token of synthetic captions."""

import math
from collections.abc import Mapping
from typing import Any

from ..configuration_vit_cls import ViTClsConfig
from ..errors import ConfigError
from ..files.tensor import Tensor
from .dinov2 import COPIED, mlp_ratio, mlp_width
from .dinov2 import TABLE as _DINOV2
from .family import ANY_SIZE, Export, Family, always, common_fields, square, vision_fields
from .layouts import conv, linear, norm, qkv, stacked, tokens, vector

# On disk the names of TIPS' own code; those of DINOv2 in transformers are what transformers has in memory.
TABLE = {
    "cls_token": tokens("embeddings.cls_token"),
    "register_tokens": tokens("embeddings.register_tokens"),
    "pos_embed": tokens("embeddings.position_embedding.embedding"),
    "patch_embed.proj": conv("embeddings.patch_embedding.projection"),
    "norm": norm("norm"),
    "blocks.{}.norm1": norm("{}.norm1"),
    "blocks.{}.attn.qkv": qkv("{}.attention"),
    "blocks.{}.attn.proj": linear("{}.attention.out"),
    "blocks.{}.ls1.gamma": vector("{}.layer_scale1"),
    "blocks.{}.norm2": norm("{}.norm2"),
    "blocks.{}.mlp.c_fc": linear("{}.mlp.fc1"),
    "blocks.{}.mlp.c_proj": linear("{}.mlp.fc2"),
    "blocks.{}.mlp.fc1": linear("{}.mlp.fc1"),
    "blocks.{}.mlp.fc2": linear("{}.mlp.fc2"),
    "blocks.{}.mlp.w12": stacked("{}.mlp.gate", "{}.mlp.fc1"),
    "blocks.{}.mlp.w3": linear("{}.mlp.fc2"),
    "blocks.{}.ls2.gamma": vector("{}.layer_scale2"),
    **{name: layouts for name, layouts in _DINOV2.items() if name != "classifier"},
}


def _fields(fields: dict[str, Any], _: Mapping[str, Tensor]) -> dict[str, Any]:
    vision = vision_fields(fields)
    ours = {name: vision[name] for name in COPIED if name in vision}
    swiglu = bool(vision.get("use_swiglu_ffn", False))
    if swiglu:  # transformers ignores hidden_act here and always uses SiLU
        ours |= {"mlp": "swiglu", "hidden_act": "silu"}
    return {
        **ours,
        "intermediate_size": mlp_width(vision.get("hidden_size", 768), vision.get("mlp_ratio", 4), swiglu),
        "image_size": vision.get("image_size", 448),
        "patch_size": vision.get("patch_size", 14),
        "layer_scale_init_value": vision.get("layerscale_value", 1.0),
        "num_register_tokens": vision.get("num_register_tokens", 1),
        "position_interpolation": "bilinear_antialias",
        "layer_norm_eps": vision.get("layer_norm_eps", 1e-6),
        **ANY_SIZE,
    }


def _export(config: ViTClsConfig, has_head: bool) -> Export:
    if has_head:
        rule = "transformers has no classifier on TIPSv2: export the backbone, FlaxViTClsModel"
        raise ConfigError("num_labels", config.num_labels, rule)
    square(config, "transformers' TIPSv2")
    if config.layer_scale_init_value is None:
        raise ConfigError("layer_scale_init_value", None, "transformers' TIPSv2 always scales: needs a number")
    gated = config.mlp == "swiglu"
    fields = {
        "architectures": ["Tipsv2VisionModel"],
        "model_type": "tipsv2_vision_model",
        **common_fields(config, COPIED, has_head),
        "layer_norm_eps": config.layer_norm_eps,
        "layerscale_value": config.layer_scale_init_value,
        "mlp_ratio": mlp_ratio(config) if gated else _ratio(config),
        "patch_size": config.patch_size,
        "use_swiglu_ffn": gated,
        "num_register_tokens": config.num_register_tokens,
    }
    without = tuple(f"blocks.{{}}.mlp.{name}" for name in ("c_fc", "c_proj", "fc1", "fc2") if gated)
    return Export(fields, "", without, {"mask_token": (1, config.hidden_size)})


def _ratio(config: ViTClsConfig) -> float:
    """The `mlp_ratio` from which transformers computes our `intermediate_size`, rounding downwards."""
    ratio = config.intermediate_size / config.hidden_size
    exact = int(config.hidden_size * ratio) == config.intermediate_size
    return ratio if exact else math.nextafter(ratio, math.inf)


FAMILIES = (
    Family(
        "transformers TIPSv2",
        _fields,
        TABLE,
        model_types=("tipsv2", "tipsv2_vision_model"),
        prefixes=("vision_encoder.", "vision_model."),
        ignored=("text_encoder.*", "text_model.*", "temperature", "mask_token", "embeddings.mask_token"),
        processor=always({"resample": 2, "do_normalize": False}),
        processor_class="Tipsv2ImageProcessor",
        export=_export,
    ),
)
