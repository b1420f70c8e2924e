"""The state dict of torchvision's VisionTransformer, saved as safetensors: fused in-projections, no config."""

from collections.abc import Mapping
from typing import Any

from ..configuration_vit_cls import ViTClsConfig
from ..files.tensor import Tensor
from .family import BICUBIC, IMAGENET, Family, has
from .layouts import conv, linear, norm, qkv, tokens
from .sizes import sizes, square_of_positions

TABLE = {
    "class_token": tokens("embeddings.cls_token"),
    "encoder.pos_embedding": tokens("embeddings.position_embedding.embedding"),
    "conv_proj": conv("embeddings.patch_embedding.projection"),
    "encoder.ln": norm("norm"),
    "heads.head": linear("classifier"),
    "heads.pre_logits": linear("representation"),
    "encoder.layers.encoder_layer_{}.ln_1": norm("{}.norm1"),
    "encoder.layers.encoder_layer_{}.self_attention.in_proj_weight": {"": qkv("{}.attention")["weight"]},
    "encoder.layers.encoder_layer_{}.self_attention.in_proj_bias": {"": qkv("{}.attention")["bias"]},
    "encoder.layers.encoder_layer_{}.self_attention.out_proj": linear("{}.attention.out"),
    "encoder.layers.encoder_layer_{}.ln_2": norm("{}.norm2"),
    "encoder.layers.encoder_layer_{}.mlp.0": linear("{}.mlp.fc1"),
    "encoder.layers.encoder_layer_{}.mlp.3": linear("{}.mlp.fc2"),
    "encoder.layers.encoder_layer_{}.mlp.linear_1": linear("{}.mlp.fc1"),  # before torchvision 0.14
    "encoder.layers.encoder_layer_{}.mlp.linear_2": linear("{}.mlp.fc2"),
}


def _fields(_: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    ours = sizes(tensors)
    ours |= square_of_positions(tensors, ours["patch_size"], prefix=1)
    ours |= {"layer_norm_eps": 1e-6, "position_interpolation": "bicubic_align_corners"}
    if has(tensors, "representation"):
        ours["representation_size"] = tensors["representation.kernel"].shape[-1]
    return ours


def _processor(_: dict[str, Any], config: ViTClsConfig) -> dict[str, Any]:
    """The preset of torchvision's weights at this size: IMAGENET1K_V1 at 224 pixels, fine-tuned SWAG at other sizes.

    SWAG's linear probes at 224 pixels have another preset, but the same tensors as IMAGENET1K_V1. Only ViT-H/14 is
    certain, because it has no IMAGENET1K_V1.
    """
    height, width = config.image_hw
    is_v1 = (height, width) == (224, 224) and config.hidden_size != 1280
    edge = 242 if (config.hidden_size, config.patch_size) == (1024, 16) else 256  # ViT-L/16
    return {
        **IMAGENET,
        **({"resample": 2} if is_v1 else BICUBIC),
        "size": {"shortest_edge": edge if is_v1 else min(height, width)},
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "crop_rounding": "torchvision",
    }


FAMILIES = (
    Family(
        "torchvision",
        _fields,
        TABLE,
        signature=("encoder.layers.encoder_layer_*",),
        prefixes=("module.",),
        processor=_processor,
    ),
)
