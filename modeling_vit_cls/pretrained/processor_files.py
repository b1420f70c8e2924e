"""The image processor of a checkpoint: read its file, and keep a file that cannot be followed as it is."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import transformers

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, ConfigError
from ..families.open import Source, config_file
from ..files.json_file import read_json
from ..files.nested_processor import nested_processor
from ..images.processor import ViTClsImageProcessor
from ..images.processor_classes import OURS, class_of
from ..names import NESTED_PROCESSOR, PROCESSOR
from .fit import POSITIONS, RELATIVE_POSITIONS
from .processor_fit import interpolates

_UNREAD = "unread"  # no class has this name, so that nobody loads the saved file as another processor
logger = logging.getLogger(__name__)


class UnreadProcessor(NamedTuple):
    """An image processor that is not supported: the reason, with file and field, and the unchanged fields.

    It is saved with the model, so that the new folder has the same processor as the old one.
    """

    problem: str
    fields: dict[str, Any]

    def to_json_file(self, file: str | Path) -> None:
        """Write the unchanged fields."""
        Path(file).write_text(json.dumps(self.fields, indent=2) + "\n")


AnyProcessor = ViTClsImageProcessor | UnreadProcessor | None


def read_processor(source: Source, target: ViTClsConfig) -> AnyProcessor:
    """The image processor of a checkpoint, resized if `target` has another image size.

    Without a file it is the default of the checkpoint's family; None if there is none, and for models with neither 1
    nor 3 channels. An adapter's own file comes before that of its base. A file that is not supported does not stop the
    model from loading: the result is an UnreadProcessor, and a warning tells why.
    """
    if source.config.num_channels not in (1, 3):
        return None
    fields: dict[str, Any] = {}
    try:
        file, fields = processor_fields(source.adapter.path if source.adapter else source.path)
        if source.adapter and not fields:
            file, fields = processor_fields(source.path)
        if not fields and not source.processor:
            return None
        processor = _processor(source, file, fields)
        return processor if source.config.image_hw == target.image_hw else processor.at_size(target.image_hw)
    except (CheckpointError, ConfigError) as error:
        logger.warning("%s; the model is loaded, its image_processor cannot be used", error)
        if not (fields.get("image_processor_type") or fields.get("feature_extractor_type")):
            implied = source.family.processor_class if fields else None  # without fields the file is not JSON
            fields = {**fields, "image_processor_type": implied or _UNREAD}
        return UnreadProcessor(str(error), fields)


def processor_fields(path: Path) -> tuple[Path, dict[str, Any]]:
    """The file of a checkpoint's image processor, and its fields; no fields if there is no such file.

    It is `preprocessor_config.json`, or "image_processor" in `processor_config.json`. If both exist, the one that the
    installed transformers prefers is read. Raises CheckpointError for files that are not JSON objects.
    """
    file, nested_file = (config_file(path).with_name(name) for name in (PROCESSOR, NESTED_PROCESSOR))
    nested_fields, fields = nested_processor(nested_file), read_json(file)
    prefers_nested = not transformers.__version__.startswith("4.")
    if nested_fields and (prefers_nested or not fields):
        return nested_file, nested_fields
    return file, fields


def processor_of(fields: Mapping[str, Any], file: Path, unnamed: str = OURS) -> ViTClsImageProcessor:
    """The image processor with the fields of a file. Raises CheckpointError, naming the file, for invalid fields."""
    try:
        return ViTClsImageProcessor.from_fields(fields, unnamed)
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from error


def _processor(source: Source, file: Path, fields: dict[str, Any]) -> ViTClsImageProcessor:
    """The processor of the class that the file or the family names, else the family's with the fields of the file."""
    try:
        has_class = source.family.processor_class is not None or class_of(fields) is not None
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from error
    is_complete = bool(fields) and has_class
    if is_complete and not source.family.normalizes:
        return processor_of(fields, file, source.family.processor_class or OURS)
    if isinstance(source.processor, CheckpointError):
        raise source.processor
    if is_complete:
        return _normalized_twice(processor_of(fields, file, source.family.processor_class or OURS), source.processor)
    default = ViTClsImageProcessor.for_config(source.config)
    processor = processor_of({**default.to_dict(), **source.processor}, config_file(source.path))
    return processor_of({**processor.to_dict(), **fields}, file) if fields else processor


def _normalized_twice(processor: ViTClsImageProcessor, by_model: Mapping[str, Any]) -> ViTClsImageProcessor:
    """A processor that also normalises as the model of its library does after it, with the fields `by_model`."""
    mean, std = np.asarray(by_model["image_mean"]), np.asarray(by_model["image_std"])
    if processor.do_normalize:
        own_mean, own_std = np.asarray(processor.image_mean), np.asarray(processor.image_std)
        mean, std = own_mean + own_std * mean, own_std * std
    both = {"do_normalize": True, "image_mean": mean.tolist(), "image_std": std.tolist()}
    return ViTClsImageProcessor.from_fields({**processor.to_dict(), **both})


def interpolated_in_calls(processor: AnyProcessor, config: ViTClsConfig) -> list[str]:
    """Names of the parameters that each call resamples, because the model's processor has another image size."""
    tables = {"learned": POSITIONS, "relative": f"encoder.layer_*{RELATIVE_POSITIONS}"}
    if not isinstance(processor, ViTClsImageProcessor) or config.position_embedding not in tables:
        return []
    try:
        return [tables[config.position_embedding]] if interpolates(config, processor, processor) else []
    except ConfigError as error:
        logger.warning("%s", error)
        return []
