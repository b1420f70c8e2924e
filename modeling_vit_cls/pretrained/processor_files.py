"""The image processor of a checkpoint: its file, what the file means, and one that asks for what is not done."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import transformers

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, ConfigError, shorten
from ..families.open import Source, config_file
from ..files.json_file import read_json
from ..images.processor import ViTClsImageProcessor
from ..images.processor_classes import OURS, class_of
from ..names import NESTED_PROCESSOR, PROCESSOR
from .fit import POSITIONS
from .processor_fit import interpolates

_UNREAD = "unread"  # stands where a class would, and is none: what is saved with it means no processor
logger = logging.getLogger(__name__)


class UnreadProcessor(NamedTuple):
    """An image processor that cannot be followed: the reason, with file and field, and the fields as they are.

    It goes where the model goes: saved with it, so that the new folder means no other processor than the old one.
    """

    problem: str
    fields: dict[str, Any]

    def to_json_file(self, file: str | Path) -> None:
        """Write the fields, unread."""
        Path(file).write_text(json.dumps(self.fields, indent=2) + "\n")


AnyProcessor = ViTClsImageProcessor | UnreadProcessor | None


def read_processor(source: Source, target: ViTClsConfig) -> AnyProcessor:
    """The checkpoint's image processor, at the new image size if one is asked for; its family's where it has none.

    None where nothing is said of one, and for models of other than 1 or 3 channels. No file of a processor stops a
    model from loading: one that cannot be followed is an UnreadProcessor, and a warning says why.
    """
    if source.config.num_channels not in (1, 3):
        return None
    fields: dict[str, Any] = {}
    try:
        file, fields = processor_fields(source.path)
        if not fields and not source.processor:
            return None
        processor = _processor(source, file, fields)
        return processor if source.config.image_hw == target.image_hw else processor.at_size(target.image_hw)
    except (CheckpointError, ConfigError) as error:
        logger.warning("%s; the model is loaded, its image_processor cannot be used", error)
        if not (fields.get("image_processor_type") or fields.get("feature_extractor_type")):
            meant = source.family.processor_class if fields else None  # of a file that is not JSON nothing is known
            fields = {**fields, "image_processor_type": meant or _UNREAD}
        return UnreadProcessor(str(error), fields)


def processor_fields(path: Path) -> tuple[Path, dict[str, Any]]:
    """The file that says a checkpoint's image processor, and its fields; none where there is no such file.

    `processor_config.json` may hold it as "image_processor"; where both files do, the one that the installed
    transformers prefers is taken. Raises CheckpointError for files that are not JSON objects.
    """
    file, nested = (config_file(path).with_name(name) for name in (PROCESSOR, NESTED_PROCESSOR))
    in_processor, own = nested_processor(nested), read_json(file)
    prefers_nested = not transformers.__version__.startswith("4.")
    if in_processor and (prefers_nested or not own):
        return nested, in_processor
    return file, own


def nested_processor(file: Path) -> dict[str, Any]:
    """The image processor's fields in a `processor_config.json`, which may hold a tokenizer's alone."""
    fields = read_json(file).get("image_processor") or {}
    if not isinstance(fields, dict):
        raise CheckpointError(f"{file}: image_processor={shorten(fields)} must be an object of fields")
    return fields


def processor_of(fields: Mapping[str, Any], file: Path, unnamed: str = OURS) -> ViTClsImageProcessor:
    """The image processor of a file's fields. Raises CheckpointError, naming the file, for fields that cannot be."""
    try:
        return ViTClsImageProcessor.from_fields(fields, unnamed)
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from error


def _processor(source: Source, file: Path, fields: dict[str, Any]) -> ViTClsImageProcessor:
    """By the class that the file names, or that its family means; else its fields laid over what the family says."""
    try:
        is_whole = source.family.processor_class is not None or class_of(fields) is not None
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from error
    if fields and is_whole:
        return processor_of(fields, file, source.family.processor_class or OURS)
    if isinstance(source.processor, CheckpointError):
        raise source.processor
    default = ViTClsImageProcessor.for_config(source.config)
    processor = processor_of({**default.to_dict(), **source.processor}, config_file(source.path))
    return processor_of({**processor.to_dict(), **fields}, file) if fields else processor


def interpolated_in_calls(processor: AnyProcessor, config: ViTClsConfig) -> list[str]:
    """Names of the parameters that are resampled for what the model's own processor gives; logs why."""
    if not isinstance(processor, ViTClsImageProcessor) or config.position_embedding != "learned":
        return []
    try:
        return [POSITIONS] if interpolates(config, processor, processor) else []
    except ConfigError as error:
        logger.warning("%s", error)
        return []
