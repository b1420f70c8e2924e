"""Our config as timm's: the architecture that computes the same, and its arguments."""

import math
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from ..configuration_vit_cls import ViTClsConfig
from ..errors import ConfigError
from ..images.processor import ViTClsImageProcessor
from ..label_maps import numbered
from .family import Export

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
_SIDES = (("height", "width"), ("min_height", "min_width"), ("shortest_edge", "shortest_edge"))
_POOLS = {"cls": "token", "mean": "avg", "map": "map"}  # timm's global_pool by our readout


def export(config: ViTClsConfig, has_head: bool) -> Export:
    """The config.json for timm's `create_model("local-dir:...")` and `create_model("hf-hub:...")`.

    Raises ConfigError, naming the field, for a model that timm cannot build.
    """
    if config.readout not in _POOLS:
        raise ConfigError("readout", config.readout, f"must be one that timm has: {', '.join(_POOLS)}")
    pool, fc_norm = _POOLS[config.readout], config.norm_position == "after_readout"
    if config.readout == "map" and config.num_prefix_tokens and is_eva(config):
        rule = "timm's Eva pools only patches, ours all tokens: only models without [CLS] and registers can be exported"
        raise ConfigError("readout", "map", rule)
    if config.readout == "map" and (config.mlp == "swiglu" or not config.qkv_bias):
        raise ConfigError(
            "readout", "map", "timm's pooling always has a plain MLP and biases: needs qkv_bias and mlp='mlp'"
        )
    if config.pre_norm and config.patch_bias:
        raise ConfigError("patch_bias", True, "must be False with pre_norm in timm")
    if config.use_distillation_token and config.readout != "cls":
        raise ConfigError("readout", config.readout, "must be 'cls' with a distillation token in timm")
    if config.use_distillation_token and not has_head:
        rule = "timm's distilled backbones return the mean of both tokens: export the classifier instead"
        raise ConfigError("use_distillation_token", True, rule)
    patches_only = config.position_embedding_tokens == "patches" or config.num_positioned_prefix_tokens == 0
    height, width = config.image_hw
    arguments = {
        "img_size": [height, width],
        "patch_size": config.patch_size,
        "in_chans": config.num_channels,
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": _ratio(config, packed=config.mlp == "swiglu" and not is_eva(config)),
        "qkv_bias": config.qkv_bias,
        "init_values": config.layer_scale_init_value,
        "global_pool": pool,
    }
    if config.position_embedding == "relative":
        arguments |= {"use_fc_norm": fc_norm}
    elif is_eva(config):
        arguments |= {"num_reg_tokens": config.num_register_tokens, "use_fc_norm": fc_norm}
        arguments |= {"swiglu_mlp": True} if config.mlp == "swiglu" else {}
    else:
        arguments |= {"reg_tokens": config.num_register_tokens, "fc_norm": fc_norm, "pre_norm": config.pre_norm}
        arguments |= {} if config.norm_position != "none" else {"final_norm": False}
        arguments |= {"pool_include_prefix": True} if config.readout == "map" and config.num_prefix_tokens else {}
    if config.position_embedding not in ("rope", "relative"):
        arguments |= {"class_token": config.use_cls_token, "no_embed_class": patches_only}
        arguments |= {"dynamic_img_size": config.position_interpolation != "bilinear"}
    if config.position_embedding != "relative" and any(side % config.patch_size for side in config.image_hw):
        arguments |= {"dynamic_img_size": False}  # where it is True, timm refuses an image with a border of no patch
    fields = {
        "architecture": _architecture(config),
        "num_classes": config.num_classes if has_head else 0,
        "num_features": config.hidden_size,
        "global_pool": pool,
        "pretrained_cfg": {
            "input_size": [config.num_channels, height, width],
            "num_classes": config.num_classes if has_head else 0,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": ["head", "head_dist"] if config.use_distillation_token else "head",
        },
        "model_args": arguments,
    }
    if has_head:
        names = numbered(config.id2label)
        fields["label_names"] = [names[number] for number in range(config.num_classes)]
    without = ["norm" if fc_norm else "fc_norm"]
    if config.mlp == "mlp":
        without.append("blocks.{}.mlp.fc1_x")
    finish = partial(_with_positions, config) if config.num_register_tokens and not patches_only else dict
    return Export(fields, without=tuple(without), finish=finish)


def is_eva(config: ViTClsConfig) -> bool:
    """Whether timm has such a block in its class Eva alone: with rotary positions, or without a bias of the keys."""
    return config.position_embedding == "rope" or (config.qkv_bias and config.key_bias is False)


def _with_positions(config: ViTClsConfig, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays with positions for registers, which are zero: where [CLS] has one in timm, registers have one too."""
    if "pos_embed" not in arrays:
        return arrays
    zeros = np.zeros((1, config.num_register_tokens, config.hidden_size), arrays["pos_embed"].dtype)
    prefix, patches = np.split(arrays["pos_embed"], [config.num_positioned_prefix_tokens], axis=1)
    return {**arrays, "pos_embed": np.concatenate([prefix, zeros, patches], axis=1)}


def _architecture(config: ViTClsConfig) -> str:
    """The name of an architecture with the same block; all sizes are given as arguments."""
    if config.position_embedding == "relative":
        return "beit_base_patch16_224"
    if config.position_embedding == "rope":
        size = "huge_plus" if config.mlp == "swiglu" else "small"
        return f"vit_{size}_patch16_dinov3" + ("_qkvb" if config.qkv_bias else "")
    if is_eva(config):
        return "eva_giant_patch14_224"
    if config.mlp == "swiglu":
        return "vit_giant_patch14_dinov2"
    if config.use_distillation_token:
        return "deit_tiny_distilled_patch16_224"
    if config.layer_norm_eps == 1e-5:
        return "vit_base_patch16_clip" + ("_quickgelu" if config.hidden_act == "quick_gelu" else "") + "_224"
    if config.position_interpolation == "bilinear" and config.hidden_act == "gelu":
        return "flexivit_base"
    return "vit_so400m_patch16_siglip_256" if config.hidden_act == "gelu_pytorch_tanh" else "vit_base_patch16_224"


def _ratio(config: ViTClsConfig, packed: bool) -> float:
    """The `mlp_ratio` from which timm computes the same width, rounding down."""
    width = config.intermediate_size * (2 if packed else 1)
    ratio = width / config.hidden_size
    return ratio if int(config.hidden_size * ratio) == width else (width + 0.5) / config.hidden_size


def transform(processor: ViTClsImageProcessor, config: ViTClsConfig) -> dict[str, Any]:
    """The `pretrained_cfg` of an image processor. Raises ConfigError, naming the field, if timm has none like it."""
    always = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255}
    squash = "height" in processor.size
    if not squash:
        always["do_center_crop"] = True
    for name, value in always.items():
        if getattr(processor, name) != value:
            raise ConfigError(name, getattr(processor, name), f"must be {value!r} in timm")
    if processor.output_hw != config.image_hw or not processor.emits(config):
        raise ConfigError("crop_size", processor.crop_size, f"must be image_size={config.image_size!r} in timm")
    interpolation = Image.Resampling(processor.resample).name.lower()
    if interpolation not in INTERPOLATIONS:
        raise ConfigError("resample", processor.resample, f"must be one that timm has: {', '.join(INTERPOLATIONS)}")
    channels, normalizes = len(processor.image_mean), processor.do_normalize  # by 0 and 1 timm changes nothing
    return {
        "mean": list(processor.image_mean) if normalizes else [0.0] * channels,
        "std": list(processor.image_std) if normalizes else [1.0] * channels,
        "interpolation": interpolation,
        "crop_pct": _crop_share(processor.size, config.image_hw),
        "crop_mode": "squash" if squash else "center",
    }


def _crop_share(size: dict[str, int], image_hw: tuple[int, int]) -> float:
    """The `crop_pct` from which timm computes the size before the crop: each side of the crop / crop_pct, as floor."""
    names = next(pair for pair in _SIDES if pair[0] in size)
    resized = (size[names[0]], size[names[1]])
    share = min(crop / side for crop, side in zip(image_hw, resized))
    for crop_pct in (share, share * (1 - 1e-12)):  # rounding may make the quotient slightly too small
        if tuple(math.floor(side / crop_pct) for side in image_hw) == resized:
            return crop_pct
    rule = f"must be both sides of the crop, {image_hw}, divided by one number and rounded down, in timm"
    raise ConfigError("size", size, rule)
