"""torchvision's VisionTransformer, its state dict saved as safetensors: fused in-projections, no config."""

from collections.abc import Mapping
from typing import Any

from ..tensor import Tensor
from .layouts import conv, linear, norm, qkv, tokens
from .sizes import sizes, square_of_positions
from .table import IMAGENET, Family, always, has

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


FAMILIES = (
    Family(
        "torchvision",
        _fields,
        TABLE,
        signature=("encoder.layers.encoder_layer_*",),
        prefixes=("module.",),
        processor=always(
            IMAGENET
            | {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}}
        ),
    ),
)
