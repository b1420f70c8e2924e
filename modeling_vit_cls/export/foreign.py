"""Checkpoints that other libraries load: their names, layouts, config and image processor, or a refusal by field."""

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
from ..families.open import Source, checked_tensors, open_checkpoint
from ..files.weights import write_weights
from ..images.processor import ViTClsImageProcessor
from ..names import CONFIG, PROCESSOR
from ..pretrained.processor_fit import of_one_size

TARGETS = ("transformers", "timm")
# What acts in training alone, or at another image size alone: where the target has it otherwise, that is said.
_ELSEWHERE = ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "initializer_range")
_ELSEWHERE += ("position_interpolation",)
_IN_TRAINING = "it acts in training alone, and in no prediction"
_CONSEQUENCES = {
    "hidden_dropout_prob": _IN_TRAINING,
    "attention_probs_dropout_prob": _IN_TRAINING,
    "drop_path_rate": _IN_TRAINING,
    "position_interpolation": "scores are the same at {size}; at another image size positions are resampled in another "
    "way there, and scores differ a little",
    "crop_rounding": "the central crop can begin one pixel further, and scores differ a little",
    "initializer_range": "it acts where new parameters are drawn, and in no prediction",
    "dynamic_image_size": "scores are the same at {size}; images of another size are refused there, unless each call "
    "has interpolate_pos_encoding=True",
    "size": "images are resized to {size} there, out of proportion; here they keep it, and scores differ",
}
# The field that a parameter comes from, by its name or what that begins with.
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
_FIELD_IN_BLOCK = {"layer_scale": "layer_scale_init_value", "mlp.gate": "mlp", ".bias": "qkv_bias"}


def write_foreign(
    folder: Path,
    target: str,
    config: ViTClsConfig,
    tensors: Mapping[str, Any],
    image_processor: ViTClsImageProcessor | None,
) -> list[str]:
    """Write a checkpoint for "transformers" or "timm" into an empty folder; names in `tensors` are canonical.

    Returns "field=value" for what the target has otherwise (`consequence` says what follows): config fields that act in
    training or at another image size alone, the rule by which a central crop begins, and a size that keeps
    proportions. Raises ConfigError, naming the field, for any other that it cannot express, and for an image processor
    of a size that the exported model refuses: what was written is read back, and must be the same model.
    """
    family = family_for(target, config)
    has_head = "classifier.kernel" in tensors
    assert family.export is not None
    export = family.export(config, has_head)
    arrays = {name: np.asarray(array) for name, array in tensors.items()}
    restored, left = family.restore(arrays, config.num_hidden_layers, export)
    for name in sorted(left):
        field = _field_of(name)
        raise ConfigError(field, getattr(config, field), f"cannot be expressed by {family.name}, which has no {name!r}")
    write_weights(folder, restored)
    files, other = {CONFIG: export.fields}, []
    if image_processor is not None and "max_num_patches" in image_processor.size:
        other.append(f"size={image_processor.size!r}")  # the model goes out as SigLIP, which takes one size
        image_processor = of_one_size(image_processor, config)
    if image_processor is not None:
        if target == "timm":  # which keeps it in config.json
            export.fields["pretrained_cfg"] |= timm_export.transform(image_processor, config)
        else:
            files[PROCESSOR] = _transformers_processor(image_processor)
        rounding = "torchvision" if target == "timm" else "transformers"
        if image_processor.do_center_crop and image_processor.crop_rounding != rounding:
            other.append(f"crop_rounding={image_processor.crop_rounding!r}")
    for name, fields in files.items():
        (folder / name).write_text(json.dumps(fields, indent=2) + "\n")
    back = _read_back(folder, family)
    if image_processor is not None and not back.config.dynamic_image_size:
        _check_size(image_processor, config, family)
    return other + [f"{name}={getattr(config, name)!r}" for name in _differences(back, family, config, has_head)]


def consequence(difference: str, config: ViTClsConfig) -> str:
    """What follows from a "field=value" of `write_foreign` for those who use the exported model."""
    height, width = config.image_hw
    return _CONSEQUENCES[difference.partition("=")[0]].format(size=f"{width} x {height} pixels")


def family_for(target: str, config: ViTClsConfig) -> Family:
    """The family of a target that a config belongs to, by what only that one has."""
    gated, rope = config.mlp == "swiglu", config.position_embedding == "rope"
    if target == "timm":
        name = "timm DINOv3" if rope else "timm DINOv2 giant" if gated else "timm ViT"
    elif rope:
        name = "transformers DINOv3"
    elif config.num_register_tokens:
        name = "transformers DINOv2 with registers"
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
    """The checkpoint that was written. Raises CheckpointError where its config cannot be one of this family."""
    try:
        return open_checkpoint(folder)
    except (CheckpointError, ConfigError) as error:
        reason = str(error).replace(f"{folder}{os.sep}", "")  # a folder that nobody has seen, and that is removed
        raise CheckpointError(f"{family.name} cannot express this config ({reason})") from error


def _check_size(processor: ViTClsImageProcessor, config: ViTClsConfig, family: Family) -> None:
    """Raise ConfigError for a processor whose images are not of the one size that the exported model takes unasked."""
    if processor.output_hw != config.image_hw:
        field = "crop_size" if processor.do_center_crop else "size"
        height, width = config.image_hw
        rule = f"{family.name} takes {width} x {height} pixels alone: set model.image_processor to one of this size"
        if processor.output_hw is not None:
            rule += f", or load the model with image_size={processor.output_hw}"
        raise ConfigError(field, getattr(processor, field), rule)


def _differences(source: Source, family: Family, config: ViTClsConfig, has_head: bool) -> list[str]:
    """Names of fields that a written checkpoint has otherwise and may have. Raises ConfigError at any other."""
    back = source.config
    unread = () if has_head else ("use_distillation_head",)
    for name in FIELD_NAMES:
        if name not in (*_ELSEWHERE, *unread, "dynamic_image_size") and _meaning(config, name) != _meaning(back, name):
            rule = f"cannot be expressed by {family.name}, which would have {_meaning(back, name)!r}"
            raise ConfigError(name, getattr(config, name), rule)
    checked_tensors(source, allow_missing=False)
    strict = ["dynamic_image_size"] if config.dynamic_image_size and not back.dynamic_image_size else []
    return [name for name in _ELSEWHERE if _meaning(config, name) != _meaning(back, name)] + strict


def _meaning(config: ViTClsConfig, name: str) -> Any:
    """A field's value, with what None stands for; what a model without such a part would ignore is left out."""
    if name == "image_size":
        return config.image_hw
    if name == "key_bias":
        return config.qkv_bias if config.key_bias is None else config.key_bias
    if name == "use_distillation_head":
        return config.has_distillation_head
    if name == "layer_scale_init_value":
        return config.layer_scale_init_value is not None
    if name == "ignore_border":  # at the configured size; elsewhere the target has its own rule
        return config.ignore_border and any(side % config.patch_size for side in config.image_hw)
    used_by = {"rope_theta": "rope", "position_embedding_tokens": "learned", "position_interpolation": "learned"}
    return getattr(config, name) if config.position_embedding == used_by.get(name, config.position_embedding) else None


def _field_of(parameter: str) -> str:
    """The config field that a parameter is there for."""
    for begins, field in _FIELD_OF.items():
        if parameter.startswith(f"{begins}.") or parameter == begins:
            return field
    return next((field for part, field in _FIELD_IN_BLOCK.items() if part in parameter), "num_hidden_layers")


def _transformers_processor(processor: ViTClsImageProcessor) -> dict[str, Any]:
    """A `preprocessor_config.json` of the class of transformers that resizes and crops in the same way."""
    if "min_height" in processor.size:
        raise ConfigError("size", processor.size, "transformers keeps the aspect ratio by the shortest edge alone")
    fields = {name: value for name, value in processor.to_dict().items() if not name.startswith(("_", "crop_rounding"))}
    exact = "shortest_edge" not in processor.size
    name = "ViTImageProcessor" if exact and not processor.do_center_crop else "DeiTImageProcessor"
    return {**fields, "image_processor_type": name if exact else "BitImageProcessor"}
