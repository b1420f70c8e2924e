"""Meta's state dicts of DINO, DINOv2 and DINOv3, saved as safetensors: nearly timm's names, no config."""

import re
from collections.abc import Mapping
from typing import Any

from ..files.tensor import Tensor
from .family import ANY_SIZE, BICUBIC, IMAGENET, Family, always, cropped, has
from .layouts import linear, qkv, stacked, tokens
from .sizes import dinov3_heads, shape_of, sizes, square_of_positions
from .timm import TABLE as _TIMM

_TIMM_ONLY = ("reg_token", "dist_token", "head", "attn_pool", "fc_norm", "norm_pre")
TABLE = {name: layouts for name, layouts in _TIMM.items() if not name.startswith(_TIMM_ONLY)}
TABLE |= {name: tokens("embeddings.register_tokens") for name in ("register_tokens", "storage_tokens")}
_DINOV2 = TABLE | {
    "blocks.{}.mlp.w12": stacked("{}.mlp.gate", "{}.mlp.fc1"),
    "blocks.{}.mlp.w3": linear("{}.mlp.fc2"),
}
_DINOV3 = TABLE | {
    "blocks.{}.attn.qkv": qkv("{}.attention", key_bias=False),
    "blocks.{}.mlp.w1": linear("{}.mlp.gate"),
    "blocks.{}.mlp.w2": linear("{}.mlp.fc1"),
    "blocks.{}.mlp.w3": linear("{}.mlp.fc2"),
}


def _without_chunks(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename blocks.CHUNK.NUMBER to blocks.NUMBER; Meta's sharded training counts blocks across its chunks."""
    return {re.sub(r"^blocks\.\d+\.(\d+\.)", r"blocks.\1", name): tensor for name, tensor in tensors.items()}


def _common(tensors: Mapping[str, Tensor], layer_scale: float | None) -> dict[str, Any]:
    """The config fields that all three families share. A SwiGLU is known by the names w1, w2, w3 of its Linears."""
    gated = any(re.search(r"\.mlp\.w\d", tensor.name) for tensor in tensors.values())
    return {
        **sizes(tensors),
        **({"mlp": "swiglu", "hidden_act": "silu"} if gated else {}),
        "use_cls_token": True,
        "layer_scale_init_value": layer_scale,
    }


def _dino(_: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    ours = _common(tensors, layer_scale=None)
    return {
        **ours,
        **square_of_positions(tensors, ours["patch_size"], prefix=1),
        "layer_norm_eps": 1e-6,
        "position_interpolation": "bicubic_offset",
        **ANY_SIZE,
    }


def _dinov2(_: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    ours, name = _common(tensors, layer_scale=1e-5), "embeddings.register_tokens"
    registers = shape_of(tensors, name, 2)[0] if name in tensors else 0  # they resample positions differently
    return {
        **ours,
        **square_of_positions(tensors, ours["patch_size"], prefix=1),
        "layer_norm_eps": 1e-6,
        "num_register_tokens": registers,
        "position_interpolation": "bicubic_antialias" if registers else "bicubic_offset",
        "dynamic_image_size": True,
    }


def _dinov3(_: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    ours = _common(tensors, layer_scale=1e-5)
    width = ours["hidden_size"]
    return {
        **ours,
        "num_attention_heads": dinov3_heads(width),
        "image_size": 224,
        "layer_norm_eps": 1e-5,
        "num_register_tokens": 4,
        "position_embedding": "rope",
        "qkv_bias": width != _WIDTH_7B or has(tensors, "encoder.layer_00.attention.query.bias"),
        "key_bias": False,
        **ANY_SIZE,
    }


_WIDTH_7B = 4096  # the only DINOv3 without biases in its attention
_PREFIXES = ("module.", "teacher.", "backbone.")
_PREFIXED = ("teacher.*", "*backbone.*")
# What a training has beside the teacher's backbone: heads of the losses of DINO, iBOT and DINOv2, and the student.
_TRAINING = ("head.mlp*.*", "head.last_layer*.*", "dino_head.*", "ibot_head.*", "student.*")
_IGNORED = ("mask_token", *_TRAINING)
_CROPPED = cropped(IMAGENET | BICUBIC)
FAMILIES = (
    Family(
        "Meta's DINOv3",
        _dinov3,
        _DINOV3,
        signature=("storage_tokens", "rope_embed.periods", "*.attn.qkv.bias_mask"),
        prefixes=_PREFIXES,
        ignored=(*_IGNORED, "rope_embed.periods", "*.attn.qkv.bias_mask", "local_cls_norm.*", "projectors.*"),
        processor=always(IMAGENET | BICUBIC),
    ),
    Family(
        "Meta's DINOv2",
        _dinov2,
        _DINOV2,
        signature=("blocks.*.ls1.gamma",),
        proof=("*mask_token", "*register_tokens", "*.mlp.w12.weight", *_PREFIXED),
        prefixes=_PREFIXES,
        ignored=_IGNORED,
        prepare=_without_chunks,
        processor=_CROPPED,
    ),
    Family(
        "Meta's DINO",
        _dino,
        TABLE,
        signature=("blocks.*.attn.qkv.weight",),
        proof=_PREFIXED,
        prefixes=_PREFIXES,
        ignored=_TRAINING,  # DINO has no mask token: with one, a DINOv2 without LayerScale would be taken for it
        processor=_CROPPED,
    ),
)
