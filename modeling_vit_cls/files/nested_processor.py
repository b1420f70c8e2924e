"""The image processor inside a `processor_config.json`, which may hold a tokenizer's fields too."""

import logging
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, shorten
from .json_file import read_json

_log = logging.getLogger(__name__)


def nested_processor(file: Path) -> dict[str, Any]:
    """The fields of the image processor in a `processor_config.json`; none if it has only a tokenizer, say."""
    fields = read_json(file).get("image_processor") or {}
    if not isinstance(fields, dict):
        raise CheckpointError(f"{file}: image_processor={shorten(fields)} must be an object of fields")
    return fields


def hides_processor(file: Path) -> bool:
    """Whether transformers would read this processor_config.json instead of a `preprocessor_config.json` beside it.

    One without an image processor (only a tokenizer, say) is not read. One that is not JSON stops every reader.
    """
    try:
        return bool(nested_processor(file))
    except CheckpointError as error:
        _log.warning("%s; it is not kept", error)
        return True
