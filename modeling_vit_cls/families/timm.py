"""timm's `vit_*` and `deit*`, with its DINOv2, DINOv3, CLIP and SigLIP: fused qkv; its config.json names the model."""

import math
from collections.abc import Mapping
from typing import Any

from PIL import Image

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, shorten
from ..files.tensor import Tensor
from .family import IMAGENET, Family
from .layouts import conv, linear, norm, qkv, stacked, tokens, vector
from .sizes import sizes
from .timm_architectures import arguments, present_name
from .timm_export import INTERPOLATIONS, export

# Architectures with our block. Others have the same tensor names but compute something else.
_PLAIN = (
    r"vit_(tiny|small|medium|base|large|huge|so400m|giantopt)_patch\d+(_reg\d)?(_clip(_quickgelu)?|_siglip|_dinov2)?"
    r"(_gap)?(_\d+)?|deit3?_(tiny|small|medium|base|large|huge)(_distilled)?_patch\d+_\d+"
)
_GIANT = r"vit_giant_patch14(_reg4)?_dinov2"
_DINOV3 = r"vit_(tiny|small|small_plus|base|large|huge_plus|7b)_patch16_dinov3(_qkvb)?"
_ACT_LAYERS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu", "silu": "silu"}
# Arguments of create_model that are used here, are visible in the shape of a tensor, or matter only in training. Any
# other argument may change what the model computes, so it is refused.
_ARGUMENTS = {"img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "num_heads", "mlp_ratio"}
_ARGUMENTS |= {"qkv_bias", "init_values", "class_token", "no_embed_class", "reg_tokens", "num_reg_tokens", "pre_norm"}
_ARGUMENTS |= {"fc_norm", "use_fc_norm", "global_pool", "act_layer", "swiglu_mlp", "swiglu_align_to", "weight_init"}
_ARGUMENTS |= {"dynamic_img_size", "strict_img_size", "drop_rate", "pos_drop_rate", "patch_drop_rate"}
_ARGUMENTS |= {"proj_drop_rate", "attn_drop_rate", "drop_path_rate"}
_EVA_NAMES = {"num_reg_tokens": "reg_tokens", "use_fc_norm": "fc_norm"}
READOUTS = {"token": "cls", "avg": "mean", "map": "map", "": "cls"}  # ours by timm's global_pool

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
_SWIGLU = TABLE | {"blocks.{}.mlp.fc1": stacked("{}.mlp.gate", "{}.mlp.fc1")}
_EVA_ROWS = {
    "blocks.{}.attn.qkv": {"weight": qkv("{}.attention")["weight"]},
    "blocks.{}.attn.q_bias": vector("{}.attention.query.bias"),
    "blocks.{}.attn.v_bias": vector("{}.attention.value.bias"),
    "blocks.{}.gamma_1": vector("{}.layer_scale1"),
    "blocks.{}.gamma_2": vector("{}.layer_scale2"),
    "blocks.{}.mlp.fc1_g": linear("{}.mlp.gate"),
    "blocks.{}.mlp.fc1_x": linear("{}.mlp.fc1"),
}
_EVA = _EVA_ROWS | TABLE | _EVA_ROWS  # the names of timm's Eva class come first, and replace those of TABLE


def _fields(fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The config of the model that timm's create_model("local-dir:...") builds.

    Its arguments come from `model_args`, or else from the name of the architecture.
    """
    name = present_name(fields["architecture"])
    given: dict[str, Any] = fields.get("model_args") or {}
    for argument in sorted(set(given) - _ARGUMENTS):
        problem = f"{argument}={given[argument]!r} is not supported, because it may change what the model computes"
        raise CheckpointError(f"config.json: model_args: {problem}")
    built = arguments(name)
    built |= {_EVA_NAMES.get(argument, argument): value for argument, value in given.items()}
    classes, pool = _num_classes(fields, given), built["global_pool"]
    _refuse_readouts(name, classes, built)
    act = built["act_layer"] or "gelu"
    fc_norm = pool == "avg" if built["fc_norm"] is None else bool(built["fc_norm"])
    _refuse_norms(tensors, fc_norm)
    ours = sizes(tensors) | {
        "num_hidden_layers": built["depth"],
        "num_attention_heads": built["num_heads"],
        "image_size": _size(fields, given),
        "qkv_bias": bool(built["qkv_bias"]),
        "layer_scale_init_value": built["init_values"] or None,
        "hidden_act": _ACT_LAYERS.get(act, act),
        "layer_norm_eps": 1e-5 if "_clip" in name or "_dinov3" in name else 1e-6,
        "pre_norm": bool(built["pre_norm"]),
        "patch_bias": not built["pre_norm"],
        "use_cls_token": bool(built["class_token"]),
        "use_distillation_token": "_distilled" in name,
        "num_register_tokens": built["reg_tokens"],
        "position_embedding_tokens": "patches" if built["no_embed_class"] and built["class_token"] else "all",
        "position_interpolation": "bicubic_antialias",
        "readout": READOUTS[pool],
        "norm_position": "after_readout" if fc_norm else "before_readout",
        "architectures": ["ViTClsForImageClassification" if classes else "ViTClsModel"],
    }
    if built["swiglu_mlp"]:
        ours |= {"mlp": "swiglu", "hidden_act": "silu"}
    if "_dinov3" in name:
        ours |= {"position_embedding": "rope", "key_bias": False}
    ours["dynamic_image_size"] = bool(given.get("dynamic_img_size", "_dinov3" in name))
    return ours | ({"num_labels": classes} | _labels(fields, classes) if classes else {})


def _num_classes(fields: dict[str, Any], given: dict[str, Any]) -> int:
    """The number of classes, 0 without a head. Raises CheckpointError if timm would replace the file's head."""
    count = fields.get("num_classes", (fields.get("pretrained_cfg") or {}).get("num_classes", 1000))
    if given.get("num_classes", count) != count:
        problem = f"num_classes={count!r}, but model_args has {given['num_classes']!r}: timm would draw a new head"
        raise CheckpointError(f"config.json: {problem}")
    if not isinstance(count, int) or count < 0:
        raise CheckpointError(f"config.json: num_classes={count!r} must be a number of classes, 0 for no head")
    return count


def _refuse_norms(tensors: Mapping[str, Tensor], fc_norm: bool) -> None:
    """Raise CheckpointError for a norm at the other place, before or after pooling; ours has the same name at both."""
    for tensor in (tensors[key] for key in ("norm.scale", "norm.bias") if key in tensors):
        if tensor.name.startswith("fc_norm") != fc_norm:
            expected = "fc_norm, after the pooling" if fc_norm else "norm, before the pooling"
            problem = f"has tensor {tensor.name!r}, but timm builds {expected}"
            raise CheckpointError(f"{tensor.file.name}: {problem}; check fc_norm and global_pool in config.json")


def _refuse_readouts(name: str, classes: int, built: dict[str, Any]) -> None:
    """Raise CheckpointError for a readout of timm that none of ours computes."""
    pool = built["global_pool"]
    if pool not in READOUTS:
        supported = ", ".join(map(repr, READOUTS))
        raise CheckpointError(f"config.json: global_pool={shorten(pool)} is not supported, only {supported}")
    if "_distilled" in name and pool != "token":
        raise CheckpointError(f"config.json: global_pool={pool!r}: timm's distilled models have 'token' alone")
    if pool == "map" and (built["class_token"] or built["reg_tokens"]):
        problem = (
            "global_pool='map' with [CLS] or registers is not supported: timm leaves them out, ours pools all tokens"
        )
        raise CheckpointError(f"config.json: {problem}")
    if pool == "" and classes:
        raise CheckpointError(
            "config.json: global_pool='' with a classifier is not supported: it classifies each token"
        )
    if "_distilled" in name and not classes:
        problem = "a distilled backbone without a head is not supported: timm averages both tokens, ours reads [CLS]"
        raise CheckpointError(f"config.json: {problem}")


def _size(fields: dict[str, Any], given: dict[str, Any]) -> tuple[int, int]:
    size = given.get("img_size") or (fields.get("pretrained_cfg") or fields).get("input_size", (3, 224, 224))[1:]
    return (size, size) if isinstance(size, int) else tuple(size)


def _labels(fields: dict[str, Any], count: int) -> dict[str, Any]:
    """The `id2label` of `count` classes from `label_names`, a list or a dict by number (which may have gaps).

    An old config.json without a `pretrained_cfg` may have them under "labels". Raises CheckpointError for names that do
    not fit the classifier.
    """
    pretrained = fields.get("pretrained_cfg")
    names = fields.get("label_names", (fields if pretrained is None else pretrained).get("label_names"))
    names = fields.get("labels", names) if pretrained is None else names
    if not names or not count:
        return {}
    pairs = dict(enumerate(names)) if isinstance(names, list) and len(names) == count else names
    pairs = pairs if isinstance(pairs, dict) else {"": names}
    id2label = {int(i): label for i, label in pairs.items() if str(i).isdecimal() and isinstance(label, str)}
    if len(id2label) != len(pairs) or max(id2label) >= count:
        raise CheckpointError(f"label_names={shorten(names)}: expected the names of {count} classes, a list or a dict")
    return {"id2label": {i: id2label.get(i, f"LABEL_{i}") for i in range(count)}}


def _processor(fields: dict[str, Any], config: ViTClsConfig) -> dict[str, Any]:
    """The image processor of a `pretrained_cfg`, as in timm.data.transforms_imagenet_eval, for the model's image size.

    With "center", the default, the aspect ratio is kept and the image covers size / crop_pct; with "squash" it is
    resized to exactly that. Then the centre is cropped. Raises CheckpointError for other modes.
    """
    pretrained = fields.get("pretrained_cfg") or fields
    share, mode = pretrained.get("crop_pct") or 0.875, pretrained.get("crop_mode") or "center"
    interpolation = pretrained.get("interpolation") or "bicubic"
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0.01 <= share <= 100:
        raise CheckpointError(f"crop_pct={shorten(share)} must be a number from 0.01 to 100")
    if mode not in ("center", "squash"):
        raise CheckpointError(f"crop_mode={shorten(mode)} is not supported, only 'center' and 'squash'")
    if interpolation not in INTERPOLATIONS:
        raise CheckpointError(f"interpolation={shorten(interpolation)} must be one of {', '.join(INTERPOLATIONS)}")
    height, width = config.image_hw
    rows, columns = math.floor(height / share), math.floor(width / share)
    if mode == "squash":
        size = {"height": rows, "width": columns}
    else:
        size = {"shortest_edge": rows} if rows == columns else {"min_height": rows, "min_width": columns}
    return {
        "size": size,
        "do_center_crop": mode == "center" or (rows, columns) != (height, width),
        "crop_size": {"height": height, "width": width},
        "crop_rounding": "torchvision",
        "resample": int(Image.Resampling[interpolation.upper()]),
        "image_mean": _each_channel(pretrained.get("mean") or IMAGENET["image_mean"], config.num_channels),
        "image_std": _each_channel(pretrained.get("std") or IMAGENET["image_std"], config.num_channels),
    }


def _each_channel(numbers: Any, channels: int) -> list[Any]:
    return list(numbers) * (channels if len(numbers) == 1 else 1)


FAMILIES = tuple(
    Family(
        f"timm {kind}",
        _fields,
        table,
        architectures=architectures,
        ignored=("mask_token",),
        processor=_processor,
        export=export,
    )
    for kind, architectures, table in (
        ("ViT", _PLAIN, TABLE),
        ("DINOv2 giant", _GIANT, _SWIGLU),
        ("DINOv3", _DINOV3, _EVA),
    )
)
