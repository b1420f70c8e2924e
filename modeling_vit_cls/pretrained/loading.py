"""From a checkpoint's files to a model without parameters, its parameters and a report of both."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, ConfigError, shorten
from ..families.family import NATIVE, canonical
from ..families.open import Source, checked_tensors, open_checkpoint
from ..files.folder import to_path
from ..label_maps import LABEL_FIELDS
from ..nn.vit import FlaxViTClsForImageClassificationModule
from .dtypes import dtype_of_file
from .processor_files import interpolated_in_calls, read_processor
from .report import LoadReport


def read_model(
    model_class: type[Any],
    path: Path,
    dtype: Any,
    how: Mapping[str, Any],
    config: Any,
    overrides: Mapping[str, Any],
    ignore_mismatched_sizes: bool,
    allow_missing: bool,
) -> tuple[Any, dict[str, Any], LoadReport]:
    """Model (without parameters), parameters and report of a folder or weight file; arguments as `from_pretrained`'s.

    `how` are more of the class's own: `seed` of a new head, `attn_implementation`.

    Raises CheckpointError or ConfigError.
    """
    source = open_checkpoint(path)
    target = target_config(source, config, _without_pooler(source, model_class, config, overrides))
    if isinstance(dtype, str) and dtype == "auto":
        dtype = dtype_of_file(source.tensors.values())
    model = model_class(target, dtype=dtype, _do_init=False, **how)
    model._image_processor = read_processor(source, target)
    tensors, missing = checked_tensors(source, allow_missing)
    report = LoadReport(missing_keys=[name for name in missing if name in map(canonical, model._shapes)])
    report.verified_keys += [name for name, tensor in tensors.items() if tensor.digest is not None]
    report.interpolated_keys += interpolated_in_calls(model)
    report.converted_keys += [] if source.family is NATIVE else list(tensors)
    report.unexpected_keys += source.spare
    report.dropped_keys += [name for name in source.tensors if name not in tensors]
    report.config_notes += source.notes if config is None and not set(LABEL_FIELDS) & set(overrides) else ()
    try:
        return model, model.take_over(tensors, source.config, report, ignore_mismatched_sizes), report
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _without_pooler(
    source: Source, model_class: type[Any], config: Any, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Config overrides, with no representation layer where the source library would leave its pooler out.

    transformers' ViTForImageClassification classifies the token itself: the tanh layer of a ViTModel's file is the
    backbone's alone. `add_pooling_layer=False` leaves it out of the backbone too.
    """
    wanted = {name: value for name, value in overrides.items() if name != "add_pooling_layer"}
    classifies = issubclass(model_class.module_class, FlaxViTClsForImageClassificationModule)
    left_out = classifies or overrides.get("add_pooling_layer") is False
    if left_out and config is None and source.family.tanh_of_backbone:
        return {"representation_size": None, **wanted}
    return wanted


def target_config(source: Source, config: Any, overrides: Mapping[str, Any]) -> ViTClsConfig:
    """The config of a checkpoint, or the one given instead of it, with some fields overridden."""
    if config is None:
        base = source.config.to_dict()
    elif isinstance(config, ViTClsConfig):
        base = config.to_dict()
    elif isinstance(config, str | os.PathLike):
        path = os.fspath(to_path(config))
        try:
            base = ViTClsConfig.get_config_dict(path)[0]
        except OSError as error:
            raise CheckpointError(f"config={shorten(path)}: no config.json found there") from error
    else:
        raise ConfigError("config", config, "must be a ViTClsConfig, a folder or a Hub id")
    target = ViTClsConfig.from_dict(base, **overrides)
    target.dtype = None  # a type of jax's, left there by transformers 4.57, could not be saved
    return target
