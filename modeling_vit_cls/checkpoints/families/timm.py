"""timm's `vit_*`, `deit*` and their DINOv2, CLIP and SigLIP variants: fused qkv, sizes read off the tensors."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from ...errors import CheckpointError
from ..weights import Tensor
from .table import Family, conv, has, linear, norm, qkv, stacked, tokens, vector

# Architectures whose block is ours; others share the names of their tensors but compute something else with them.
_KNOWN = re.compile(
    r"vit_(tiny|small|medium|base|large|huge|so400m|giantopt)_patch\d+(_reg\d)?(_clip(_quickgelu)?|_siglip|_dinov2)?"
    r"(_gap)?(_\d+)?|deit3?_(tiny|small|medium|base|large|huge)(_distilled)?_patch\d+_\d+"
)
_HEADS = {192: 3, 384: 6, 512: 8, 768: 12, 1024: 16, 1152: 16, 1280: 16, 1536: 16}
_ACTIVATIONS = {
    "*_quickgelu_*": "quick_gelu",
    "vit_so400m_*siglip*": "gelu_pytorch_tanh",
    "vit_giantopt_*siglip*": "gelu_pytorch_tanh",
    "vit_base_patch32_siglip_*": "gelu_pytorch_tanh",
    "vit_large_patch16_siglip*_512": "gelu_pytorch_tanh",
}
_READOUTS = {"token": "cls", "avg": "mean", "map": "map", "": "cls"}
_RESAMPLING = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}

_POOLING = "readout.attention_pooling"
TABLE = {
    "cls_token": tokens("embeddings.cls_token"),
    "reg_token": tokens("embeddings.register_tokens"),
    "dist_token": tokens("embeddings.distillation_token"),
    "pos_embed": tokens("embeddings.position_embedding.embedding"),
    "patch_embed.proj": conv("embeddings.patch_embedding.projection"),
    "norm_pre": norm("pre_norm"),
    "norm": norm("norm"),
    "fc_norm": norm("norm"),
    "head": linear("classifier"),
    "head_dist": linear("distillation_classifier"),
    "attn_pool.latent": tokens(f"{_POOLING}.probe"),
    "attn_pool.q": linear(f"{_POOLING}.attention.query"),
    "attn_pool.kv": stacked(f"{_POOLING}.attention.key", f"{_POOLING}.attention.value"),
    "attn_pool.proj": linear(f"{_POOLING}.attention.out"),
    "attn_pool.norm": norm(f"{_POOLING}.norm"),
    "attn_pool.mlp.fc1": linear(f"{_POOLING}.mlp.fc1"),
    "attn_pool.mlp.fc2": linear(f"{_POOLING}.mlp.fc2"),
    "blocks.{}.norm1": norm("{}.norm1"),
    "blocks.{}.attn.qkv": qkv("{}.attention"),
    "blocks.{}.attn.proj": linear("{}.attention.out"),
    "blocks.{}.ls1.gamma": vector("{}.layer_scale1"),
    "blocks.{}.norm2": norm("{}.norm2"),
    "blocks.{}.mlp.fc1": linear("{}.mlp.fc1"),
    "blocks.{}.mlp.fc2": linear("{}.mlp.fc2"),
    "blocks.{}.ls2.gamma": vector("{}.layer_scale2"),
}


def _fields(fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    name, given = str(fields["architecture"]), fields.get("model_args") or {}
    if not _KNOWN.fullmatch(name):
        raise CheckpointError(f"config.json: architecture={name!r} is none of timm's plain Vision Transformers")
    side, _, channels, width = _shape(tensors, "embeddings.patch_embedding.projection.kernel", 4)
    _, hidden = _shape(tensors, "encoder.layer_00.mlp.fc1.kernel", 2)
    rows, _ = _shape(tensors, "embeddings.position_embedding.embedding", 2)
    heads = given.get("num_heads") or _HEADS.get(width)
    if heads is None:
        raise CheckpointError(f"config.json: model_args must give num_heads for a width of {width}")
    size = _size(fields, given)
    patches = (size[0] // side) * (size[1] // side)
    prefix = int(has(tensors, "embeddings.cls_token")) + int(has(tensors, "embeddings.distillation_token"))
    registers = re.search(r"_reg(\d)", name)
    norms = [tensors[key].name for key in ("norm.scale", "norm.bias") if key in tensors]
    scaled = has(tensors, "encoder.layer_00.layer_scale1")
    averaged = fields.get("global_pool", given.get("global_pool", "token"))
    ours = {
        "hidden_size": width,
        "num_hidden_layers": len({key[:16] for key in tensors if key.startswith("encoder.layer_")}),
        "num_attention_heads": heads,
        "intermediate_size": hidden,
        "image_size": size,
        "patch_size": side,
        "num_channels": channels,
        "patch_bias": "_clip" not in name,
        "hidden_act": next((act for pattern, act in _ACTIVATIONS.items() if fnmatchcase(name, pattern)), "gelu"),
        "layer_norm_eps": 1e-5 if "_clip" in name else 1e-6,
        "qkv_bias": has(tensors, "encoder.layer_00.attention.query.bias"),
        "readout": _READOUTS.get(averaged, averaged),
        "use_cls_token": has(tensors, "embeddings.cls_token"),
        "use_distillation_token": has(tensors, "embeddings.distillation_token"),
        "num_register_tokens": given.get("reg_tokens", int(registers[1]) if registers else 0),
        "position_embedding_tokens": "patches" if rows == patches and prefix else "all",
        "position_interpolation": "bicubic_antialias",
        "layer_scale_init_value": 1e-5 if scaled else None,
        "pre_norm": has(tensors, "pre_norm"),
        "norm_position": "after_readout" if any(key.startswith("fc_norm") for key in norms) else "before_readout",
    }
    classes = fields.get("num_classes")  # 0 for a backbone
    return ours | ({"num_labels": classes} if classes else {}) | _labels(fields)


def _shape(tensors: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    """The shape that a size is read off. Raises CheckpointError where the tensor is not there or has other axes."""
    if name not in tensors:
        raise CheckpointError(f"no tensor that would be our {name!r}")
    if len(tensors[name].shape) != axes:
        raise CheckpointError(f"tensor {tensors[name].name!r} has shape {tensors[name].shape}, expected {axes} axes")
    return tensors[name].shape


def _size(fields: dict[str, Any], given: dict[str, Any]) -> tuple[int, int]:
    size = given.get("img_size") or (fields.get("pretrained_cfg") or fields).get("input_size", (3, 224, 224))[1:]
    return (size, size) if isinstance(size, int) else tuple(size)


def _labels(fields: dict[str, Any]) -> dict[str, Any]:
    names = fields.get("label_names") or (fields.get("pretrained_cfg") or {}).get("label_names")
    return {"id2label": dict(enumerate(names))} if names else {}


def _processor(fields: dict[str, Any]) -> dict[str, Any]:
    """Image processor of a `pretrained_cfg`: shortest edge size / crop_pct, then the central crop."""
    said = fields.get("pretrained_cfg") or fields
    height, width = _size(fields, fields.get("model_args") or {})
    share = said.get("crop_pct") or 0.875
    return {
        "size": {"shortest_edge": int(max(height, width) / share)},
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "resample": _RESAMPLING.get(said.get("interpolation", "bicubic"), 3),
        "image_mean": list(said.get("mean", (0.485, 0.456, 0.406))),
        "image_std": list(said.get("std", (0.229, 0.224, 0.225))),
    }


FAMILIES = (Family("timm", ("timm",), _fields, TABLE, processor=_processor),)
