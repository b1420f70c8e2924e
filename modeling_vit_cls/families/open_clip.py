"""OpenCLIP's own files: open_clip_config.json, and a vision tower, OpenCLIP's or timm's, under `visual.`."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, shorten
from ..files.tensor import Tensor
from ..files.weights import holds_standard_weights
from ..images.processor_classes import CLIP
from ..names import CONFIG, OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS
from . import timm
from .family import Family
from .layouts import conv, linear, norm, qkv, tokens, vector
from .timm_architectures import ARCHITECTURES, present_name

_BLOCK = "transformer.resblocks.{}"
TABLE = {
    "class_embedding": tokens("embeddings.cls_token", axes=1),
    "positional_embedding": tokens("embeddings.position_embedding.embedding"),
    "conv1": conv("embeddings.patch_embedding.projection"),
    "ln_pre": norm("pre_norm"),
    "ln_post": norm("norm"),
    "proj": vector("projection.kernel"),  # (D, F), as ours
    f"{_BLOCK}.ln_1": norm("{}.norm1"),
    f"{_BLOCK}.attn.in_proj_weight": {"": qkv("{}.attention")["weight"]},
    f"{_BLOCK}.attn.in_proj_bias": {"": qkv("{}.attention")["bias"]},
    f"{_BLOCK}.attn.out_proj": linear("{}.attention.out"),
    f"{_BLOCK}.ls_1.gamma": vector("{}.layer_scale1"),
    f"{_BLOCK}.ln_2": norm("{}.norm2"),
    f"{_BLOCK}.mlp.c_fc": linear("{}.mlp.fc1"),
    f"{_BLOCK}.mlp.c_proj": linear("{}.mlp.fc2"),
    f"{_BLOCK}.ls_2.gamma": vector("{}.layer_scale2"),
}

# Fields of `vision_cfg` that change the tower: those that are read here, those of timm's towers, those that act in
# training or in an unused pooling only, and those that no tower of ours computes.
_READ = {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "ls_init_value", "no_ln_pre"}
_READ |= {"pos_embed_type", "final_ln_after_pool", "pool_type", "act_kwargs", "norm_kwargs", "block_type"}
_OF_TIMM = {"image_size", "timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias"}
_OF_TIMM |= {"timm_drop", "timm_drop_path"}
_UNUSED = {"patch_dropout", "output_tokens", "attn_pooler_queries", "attn_pooler_heads"}
_REFUSED = ("attentional_pool", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn")
_REFUSED += ("scale_fc",)
_GELUS = {None: "gelu", "none": "gelu", "tanh": "gelu_pytorch_tanh"}  # by torch's argument `approximate`


def is_open_clip(path: Path) -> bool:
    """Whether a folder, or a weight file, is read as OpenCLIP's: it has no config, or no weights, of another library.

    Raises CheckpointError for a weight file of OpenCLIP's without its config.
    """
    folder = path if path.is_dir() else path.parent
    has_config = (folder / OPEN_CLIP_CONFIG).is_file()
    if path.is_file() and path.name in OPEN_CLIP_WEIGHTS:
        if not has_config:
            raise CheckpointError(f"{path}: needs the checkpoint's {OPEN_CLIP_CONFIG} in its folder")
        return True
    has_others = (folder / CONFIG).is_file() and (path.is_file() or holds_standard_weights(path))
    return has_config and not has_others


def weights_of(path: Path) -> Path:
    """The weight file of an OpenCLIP folder, or the folder itself if it has none of OpenCLIP's names."""
    names = OPEN_CLIP_WEIGHTS if path.is_dir() else ()
    return next((path / name for name in names if (path / name).is_file()), path)


def family_of_model(fields: Mapping[str, Any], file: object) -> Family:
    """The family of an open_clip_config.json, `file`. Raises CheckpointError for a field that is not supported."""
    model = fields["model_cfg"]
    vision = model.get("vision_cfg") if isinstance(model, dict) else None
    if not isinstance(vision, dict):
        raise CheckpointError(f"{file}: has no model_cfg with a vision_cfg")
    try:
        if not vision.get("timm_model_name"):
            _check_tower(vision)
            return _TOWER
        family = _family_of_trunk(vision)  # first, as another tower is the reason for most of the other fields
        _check_trunk(vision)
        return family
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error


def _family_of_trunk(vision: Mapping[str, Any]) -> Family:
    """The family of a tower of timm. Raises CheckpointError for one that is not supported."""
    name = vision["timm_model_name"]
    for family, trunk in _TRUNKS:
        if isinstance(name, str) and re.fullmatch(trunk.architectures, present_name(name)):
            return family
    problem = "is not one of timm's plain Vision Transformers, which are the supported ones"
    raise CheckpointError(f"vision_cfg: timm_model_name={shorten(name)} {problem}")


def _check_tower(vision: Mapping[str, Any]) -> None:
    """Raise CheckpointError for the first field of a `vision_cfg` that changes the tower in a way that ours has not."""
    for name in sorted(set(vision) - _READ - _OF_TIMM - _UNUSED - set(_REFUSED)):
        raise CheckpointError(f"vision_cfg: {name}={shorten(vision[name])} is not known, and may change the model")
    for name in _REFUSED:
        if vision.get(name):
            raise _unsupported(vision, name, "false")
    if isinstance(vision.get("layers"), list):
        raise _unsupported(vision, "layers", "a number, of a Vision Transformer's blocks")
    if vision.get("block_type") not in (None, "default"):
        raise _unsupported(vision, "block_type", "'default'")
    if vision.get("pool_type", "tok") not in ("tok", "avg"):
        raise _unsupported(vision, "pool_type", "'tok' and 'avg'")


def _check_trunk(vision: Mapping[str, Any]) -> None:
    """Raise CheckpointError for a projection after timm's model that ours has not."""
    projection = vision.get("timm_proj", "linear")
    if projection not in ("linear", "none"):
        raise _unsupported(vision, "timm_proj", "'linear' and 'none'")
    if projection == "linear" and vision.get("timm_proj_bias"):
        raise _unsupported(vision, "timm_proj_bias", "false")
    if projection == "none" and not vision.get("timm_pool", "avg"):
        raise _unsupported(vision, "timm_pool", "a pooling, where timm_proj='none'")


def _unsupported(vision: Mapping[str, Any], name: str, expected: str) -> CheckpointError:
    return CheckpointError(f"vision_cfg: {name}={shorten(vision.get(name))} cannot be loaded, only {expected}")


def _only(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors with a prefix, without it. All others are of the text tower, or the scale of the loss."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _fields(fields: dict[str, Any], _: Mapping[str, Tensor]) -> dict[str, Any]:
    vision = fields["model_cfg"]["vision_cfg"]
    pool, late = vision.get("pool_type", "tok"), bool(vision.get("final_ln_after_pool", False))
    norm_kwargs, width = dict(vision.get("norm_kwargs") or {}), vision.get("width", 768)
    eps = norm_kwargs.pop("eps", 1e-5)
    if norm_kwargs:
        raise _unsupported(vision, "norm_kwargs", "eps")
    return {
        "hidden_size": width,
        "num_hidden_layers": vision.get("layers", 12),
        "num_attention_heads": width // vision.get("head_width", 64),
        "intermediate_size": int(width * vision.get("mlp_ratio", 4.0)),
        "image_size": vision.get("image_size", 224),
        "patch_size": vision.get("patch_size", 16),
        "hidden_act": _activation(fields, vision),
        "layer_norm_eps": eps,
        "layer_scale_init_value": vision.get("ls_init_value"),
        "patch_bias": False,
        "pre_norm": not vision.get("no_ln_pre", False),
        "readout": "cls" if pool == "tok" else "mean",
        # of [CLS] alone the norm is the same before and after the readout: as in transformers' CLIP
        "norm_position": "after_readout" if late or pool == "tok" else "before_readout",
        "position_interpolation": "bicubic_antialias",
        "projection_size": fields["model_cfg"].get("embed_dim"),
    }


def _activation(fields: Mapping[str, Any], vision: Mapping[str, Any]) -> str:
    given = dict(vision.get("act_kwargs") or {})
    if fields["model_cfg"].get("quick_gelu", False) and not given:
        return "quick_gelu"
    approximate = given.pop("approximate", None)
    if given or approximate not in _GELUS or fields["model_cfg"].get("quick_gelu", False):
        raise _unsupported(vision, "act_kwargs", "approximate='tanh', without quick_gelu")
    return _GELUS[approximate]


def _fields_of_trunk(trunk: Family) -> Callable[[dict[str, Any], Mapping[str, Tensor]], dict[str, Any]]:
    """The fields of a timm model that OpenCLIP builds by its name, with a projection after it."""

    def fields_of_trunk(fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        vision = fields["model_cfg"]["vision_cfg"]
        name, size, pool = vision["timm_model_name"], vision.get("image_size", 224), vision.get("timm_pool", "avg")
        built, projected = ARCHITECTURES[present_name(name)], vision.get("timm_proj", "linear") == "linear"
        given = {"global_pool": pool or built["global_pool"]}
        if projected:  # timm's model is built with its own pooling, which decides where its norm is, then gets another
            given["fc_norm"] = built["global_pool"] == "avg" if built["fc_norm"] is None else built["fc_norm"]
        height, width = (size, size) if isinstance(size, int) else size
        theirs = {"architecture": name, "num_classes": 0, "model_args": given}
        theirs["pretrained_cfg"] = {"input_size": (3, height, width)}
        inner = {key: tensor._replace(name=tensor.name.removeprefix(_TRUNK)) for key, tensor in tensors.items()}
        ours = trunk.fields(theirs, inner)
        return ours | ({"projection_size": fields["model_cfg"].get("embed_dim")} if projected else {})

    return fields_of_trunk


def _processor(fields: dict[str, Any], config: ViTClsConfig) -> dict[str, Any]:
    """The image processor of a `preprocess_cfg`, as in open_clip.image_transform for inference.

    Raises CheckpointError for resize_mode 'longest', which pads.
    """
    given = fields.get("preprocess_cfg") or {}
    mode, filter_name = given.get("resize_mode") or "shortest", given.get("interpolation") or "bicubic"
    if mode not in ("shortest", "squash"):
        raise CheckpointError(f"preprocess_cfg: resize_mode={shorten(mode)} is not supported: 'shortest' and 'squash'")
    if filter_name not in ("bicubic", "bilinear", "random"):  # random is for training: bicubic otherwise
        raise CheckpointError(f"preprocess_cfg: interpolation={shorten(filter_name)} must be 'bicubic' or 'bilinear'")
    height, width = config.image_hw
    size: dict[str, int] = {"shortest_edge": height}
    if mode == "squash":
        size = {"height": height, "width": width}
    elif height != width:
        size = {"min_height": height, "min_width": width}
        filter_name = "bicubic"
    return {
        "size": size,
        "do_center_crop": mode == "shortest",
        "crop_size": {"height": height, "width": width},
        "crop_rounding": "torchvision",
        "resample": int(Image.Resampling.BILINEAR if filter_name == "bilinear" else Image.Resampling.BICUBIC),
        "image_mean": _each_channel(given.get("mean") or CLIP["image_mean"]),
        "image_std": _each_channel(given.get("std") or CLIP["image_std"]),
    }


def _each_channel(numbers: Any) -> list[Any]:
    return list(numbers) if isinstance(numbers, list | tuple) else [numbers] * 3


_TRUNK = "visual.trunk."
_TOWER = Family("OpenCLIP", _fields, TABLE, prepare=lambda tensors: _only(tensors, "visual."), processor=_processor)


def _with_trunk(trunk: Family) -> Family:
    def prepare(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        others = {name: tensor for name, tensor in tensors.items() if name.startswith("visual.")}
        inner = _only(tensors, _TRUNK)
        return {**trunk.prepare(inner), **{n: t for n, t in others.items() if not n.startswith(_TRUNK)}}

    return Family(
        f"OpenCLIP with {trunk.name}",
        _fields_of_trunk(trunk),
        {**trunk.table, "visual.head.proj": linear("projection")},
        ignored=trunk.ignored,
        prepare=prepare,
        processor=_processor,
    )


_TRUNKS = [(_with_trunk(trunk), trunk) for trunk in timm.FAMILIES]
FAMILIES = (_TOWER, *(family for family, _ in _TRUNKS))
