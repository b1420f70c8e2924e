"""Checkpoints for other libraries: their tensor names and layouts, config and image processor."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..config_rules import FIELD_NAMES
from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, ConfigError
from ..families import FAMILIES, timm_export
from ..families.family import Family
from ..families.open import Source, open_checkpoint
from ..families.strict import checked_tensors
from ..files.weights import write_weights
from ..images.processor import ViTClsImageProcessor
from ..names import CONFIG, PROCESSOR
from ..pretrained.processor_fit import of_one_size

TARGETS = ("transformers", "timm")
# Fields that matter only in training or at another image size. The target may differ in them, with a warning.
_MAY_DIFFER = ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "initializer_range")
_MAY_DIFFER += ("position_interpolation",)
_IN_TRAINING = "it acts in training only, and changes no prediction"
_CONSEQUENCES = {
    "hidden_dropout_prob": _IN_TRAINING,
    "attention_probs_dropout_prob": _IN_TRAINING,
    "drop_path_rate": _IN_TRAINING,
    "position_interpolation": "scores are the same at {size}; at other image sizes positions are resampled in another "
    "way there, and scores differ a little",
    "crop_rounding": "the central crop can begin one pixel further, and scores differ a little",
    "initializer_range": "it acts when new parameters are drawn, and changes no prediction",
    "dynamic_image_size": "scores are the same at {size}; images of another size are refused there, unless each call "
    "has interpolate_pos_encoding=True",
    "image_mean": "its image processor takes grey images alone, as arrays (H, W, 1), and none in colour; their scores "
    "are the same",
    "size": "images are resized to {size} there, without keeping the aspect ratio; scores differ",
}
# The config field behind a parameter, by the parameter's name or its beginning.
_FIELD_OF = {
    "classifier": "num_labels",
    "distillation_classifier": "use_distillation_head",
    "embeddings.cls_token": "use_cls_token",
    "embeddings.distillation_token": "use_distillation_token",
    "embeddings.register_tokens": "num_register_tokens",
    "embeddings.position_embedding": "position_embedding",
    "pre_norm": "pre_norm",
    "representation": "representation_size",
    "projection": "projection_size",
    "readout": "readout",
}
_FIELD_IN_BLOCK = {
    "relative_positions": "position_embedding",
    "layer_scale": "layer_scale_init_value",
    "mlp.gate": "mlp",
    ".bias": "qkv_bias",
}


def write_foreign(
    folder: Path,
    target: str,
    config: ViTClsConfig,
    tensors: Mapping[str, Any],
    image_processor: ViTClsImageProcessor | None,
) -> list[str]:
    """Write a checkpoint for "transformers" or "timm" into an empty folder; names in `tensors` are canonical.

    Returns the permitted differences as "field=value" (`consequence` explains them): config fields that matter only in
    training or at another image size, the rounding of a central crop, an image size that keeps the aspect ratio, and
    the conversion to grey. The checkpoint is read back and compared with the model. Raises ConfigError, naming the
    field, for any other difference, and for an image processor of a size that the exported model refuses.
    """
    family = family_for(target, config)
    has_head = "classifier.kernel" in tensors
    assert family.export is not None
    export = family.export(config, has_head)
    arrays = {name: np.asarray(array) for name, array in tensors.items()}
    restored, unknown = family.restore(arrays, config.num_hidden_layers, export)
    for name in sorted(unknown):
        field = _field_of(name)
        raise ConfigError(field, getattr(config, field), f"cannot be expressed by {family.name}, which has no {name!r}")
    write_weights(folder, restored)
    files, differences = {CONFIG: export.fields}, []
    if image_processor is not None and "max_num_patches" in image_processor.size:
        differences.append(f"size={image_processor.size!r}")  # exported as SigLIP, which has one image size
        image_processor = of_one_size(image_processor, config)
    if image_processor is not None:
        if target == "timm":  # timm keeps it in config.json
            export.fields["pretrained_cfg"] |= timm_export.transform(image_processor, config)
        else:
            files[PROCESSOR] = _transformers_processor(image_processor)
            if len(image_processor.image_mean) == 1:  # timm converts to grey
                differences.append(f"image_mean={image_processor.image_mean!r}")
        rounding = "torchvision" if target == "timm" else "transformers"
        if image_processor.do_center_crop and image_processor.crop_rounding != rounding:
            differences.append(f"crop_rounding={image_processor.crop_rounding!r}")
    for name, fields in files.items():
        (folder / name).write_text(json.dumps(fields, indent=2) + "\n")
    written = _read_back(folder, family)
    if image_processor is not None and not written.config.dynamic_image_size:
        _check_size(image_processor, config, family)
    names = _differences(written, family, config, has_head)
    return differences + [f"{name}={getattr(config, name)!r}" for name in names]


def consequence(difference: str, config: ViTClsConfig) -> str:
    """What a difference "field=value" of `write_foreign` changes for users of the exported model."""
    height, width = config.image_hw
    return _CONSEQUENCES[difference.partition("=")[0]].format(size=f"{width} x {height} pixels")


def family_for(target: str, config: ViTClsConfig) -> Family:
    """The family of a target that can express a config, chosen by the features that only this family has."""
    gated, rope = config.mlp == "swiglu", config.position_embedding == "rope"
    if target == "timm":
        name = "timm Eva" if timm_export.is_eva(config) else "timm DINOv2 giant" if gated else "timm ViT"
        name = "timm BEiT" if config.position_embedding == "relative" else name
    elif config.readout == "cls_concat":
        name = "transformers C-RADIO"
    elif config.num_cls_tokens > 1:
        name = "transformers Pixio"
    elif config.position_embedding == "relative":
        name = "transformers BEiT"
    elif rope:
        name = "transformers DINOv3"
    elif config.num_register_tokens:
        is_tips = config.position_interpolation == "bilinear_antialias"
        name = "transformers TIPSv2" if is_tips else "transformers DINOv2 with registers"
    elif gated or config.layer_scale_init_value is not None:
        name = "transformers DINOv2"
    elif config.pre_norm:
        name = "transformers CLIP"
    elif not config.use_cls_token:
        name = "transformers SigLIP"
    else:
        name = "transformers DeiT" if config.use_distillation_token else "transformers ViT"
    return next(family for family in FAMILIES if family.name == name)


def _read_back(folder: Path, family: Family) -> Source:
    """Open the written checkpoint. Raises CheckpointError if this family cannot express the config."""
    try:
        return open_checkpoint(folder)
    except (CheckpointError, ConfigError) as error:
        reason = str(error).replace(f"{folder}{os.sep}", "")  # a temporary folder, which means nothing to the user
        raise CheckpointError(f"{family.name} cannot express this config ({reason})") from error


def _check_size(processor: ViTClsImageProcessor, config: ViTClsConfig, family: Family) -> None:
    """Raise ConfigError for a processor whose image size is not the one that the exported model accepts by default."""
    if processor.output_hw != config.image_hw:
        field = "crop_size" if processor.do_center_crop else "size"
        height, width = config.image_hw
        rule = f"{family.name} takes only {width} x {height} pixels: set model.image_processor to one of this size"
        if processor.output_hw is not None:
            rule += f", or load the model with image_size={processor.output_hw}"
        raise ConfigError(field, getattr(processor, field), rule)


def _differences(source: Source, family: Family, config: ViTClsConfig, has_head: bool) -> list[str]:
    """Names of fields in which a written checkpoint differs and may. Raises ConfigError for any other difference."""
    written = source.config
    ignored = ("dynamic_image_size", *_MAY_DIFFER, *(() if has_head else ("use_distillation_head", "classifier_input")))
    differing = [name for name in FIELD_NAMES if _meaning(config, name) != _meaning(written, name)]
    for name in differing:
        if name not in ignored:
            rule = f"cannot be expressed by {family.name}, which would have {_meaning(written, name)!r}"
            raise ConfigError(name, getattr(config, name), rule)
    checked_tensors(source, allow_missing=False)
    fixed_size = ["dynamic_image_size"] if config.dynamic_image_size and not written.dynamic_image_size else []
    return [name for name in _MAY_DIFFER if name in differing] + fixed_size


def _meaning(config: ViTClsConfig, name: str) -> Any:
    """The effective value of a field: None is replaced by its meaning, and the result is None for an unused field."""
    if name == "image_size":
        return config.image_hw
    if name == "key_bias":
        return config.qkv_bias if config.key_bias is None else config.key_bias
    if name == "use_distillation_head":
        return config.has_distillation_head
    if name == "layer_scale_init_value":
        return config.layer_scale_init_value is not None
    if name == "ignore_border":  # compared at the config's image size only
        return config.ignore_border and any(side % config.patch_size for side in config.image_hw)
    position, tables = config.position_embedding, ["learned", "relative"]
    used_by = {"rope_theta": ["rope"], "position_embedding_tokens": ["learned"], "position_interpolation": tables}
    return getattr(config, name) if position in used_by.get(name, [position]) else None


def _field_of(parameter: str) -> str:
    """The config field because of which a parameter exists."""
    for prefix, field in _FIELD_OF.items():
        if parameter.startswith(f"{prefix}.") or parameter == prefix:
            return field
    return next((field for part, field in _FIELD_IN_BLOCK.items() if part in parameter), "num_hidden_layers")


def _transformers_processor(processor: ViTClsImageProcessor) -> dict[str, Any]:
    """Fields of preprocessor_config.json for the class of transformers that resizes and crops in the same way."""
    if "min_height" in processor.size:
        raise ConfigError("size", processor.size, "transformers can keep the aspect ratio only by the shortest edge")
    fields = {name: value for name, value in processor.to_dict().items() if not name.startswith(("_", "crop_rounding"))}
    has_exact_size = "shortest_edge" not in processor.size
    name = "ViTImageProcessor" if has_exact_size and not processor.do_center_crop else "DeiTImageProcessor"
    if len(processor.image_mean) == 1:
        fields["do_convert_rgb"] = False  # else Bit's class makes three channels of a grey image
    return {**fields, "image_processor_type": name if has_exact_size else "BitImageProcessor"}
