"""From a checkpoint's files to a model without parameters, its parameters and a report of both."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoints.adapt import canonical
from ..checkpoints.families.table import NATIVE
from ..checkpoints.folder import to_path
from ..checkpoints.json_file import read_json
from ..checkpoints.load import Source, checked_tensors, config_file, open_checkpoint
from ..checkpoints.report import LoadReport
from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, ConfigError, shorten
from ..label_maps import LABEL_FIELDS
from ..modules import FlaxViTClsForImageClassificationModule
from ..processing import ViTClsImageProcessor
from .dtypes import dtype_of_file


def read_model(
    model_class: type[Any],
    path: Path,
    dtype: Any,
    seed: int,
    config: Any,
    overrides: Mapping[str, Any],
    ignore_mismatched_sizes: bool,
    allow_missing: bool,
) -> tuple[Any, dict[str, Any], LoadReport]:
    """Model (without parameters), parameters and report of a folder or weight file; arguments as `from_pretrained`'s.

    Raises CheckpointError or ConfigError.
    """
    source = open_checkpoint(path)
    target = target_config(source, config, _without_pooler(source, model_class, config, overrides))
    if isinstance(dtype, str) and dtype == "auto":
        dtype = dtype_of_file(source.tensors.values())
    model = model_class(target, seed=seed, dtype=dtype, _do_init=False)
    model._image_processor = read_processor(source, target)
    tensors, missing = checked_tensors(source, allow_missing)
    report = LoadReport(missing_keys=[name for name in missing if name in map(canonical, model._shapes)])
    report.verified_keys += [name for name, tensor in tensors.items() if tensor.digest is not None]
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


def read_processor(source: Source, target: ViTClsConfig) -> ViTClsImageProcessor | None:
    """The checkpoint's image processor, at the new image size if one is asked for; its family's where it has none.

    None where nothing is said of one, and for models of other than 1 or 3 channels. Raises CheckpointError, naming the
    file, for fields that cannot be.
    """
    file = config_file(source.path).with_name("preprocessor_config.json")
    own = read_json(file)
    if not (own or source.processor) or source.config.num_channels not in (1, 3):
        return None
    default = ViTClsImageProcessor.for_config(source.config)
    processor = processor_of({**default.to_dict(), **source.processor}, config_file(source.path))
    processor = processor_of({**processor.to_dict(), **own}, file)
    return processor if source.config.image_hw == target.image_hw else processor.at_size(target.image_hw)


def processor_of(fields: Mapping[str, Any], file: Path) -> ViTClsImageProcessor:
    """The image processor of a file's fields. Raises CheckpointError, naming the file, for fields that cannot be."""
    try:
        return ViTClsImageProcessor.from_fields(fields)
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from error
