"""Reading the JSON files of a checkpoint, which may come from anyone."""

import json
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

LFS_HEAD = "version https://git-lfs"  # the beginning of the text that git-lfs puts in the place of a file
LFS_REMEDY = "run `git lfs install && git lfs pull`"
_MAX_BYTES = 40_000_000  # a config.json with half a million labels, the most that a config may have, is 30 MB


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; {} where the file does not exist.

    Raises CheckpointError, naming the file, for anything but an object, and for a file over 40 MB.
    """
    if not file.exists():
        return {}
    if not file.is_file():  # a pipe would wait for its writer, and a device may never end
        raise CheckpointError(f"{file}: is not a regular file")
    if (size := file.stat().st_size) > _MAX_BYTES:
        raise CheckpointError(f"{file}: has {size:,} bytes, expected at most {_MAX_BYTES:,}")
    try:
        text = file.read_text(encoding="utf-8")
        is_pointer = text.startswith(LFS_HEAD)
        fields = {} if is_pointer else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: cannot be read as JSON ({error})") from error
    if is_pointer:
        raise CheckpointError(f"{file}: is a git-lfs pointer, not the file; {LFS_REMEDY}")
    if not isinstance(fields, dict):
        raise CheckpointError(f"{file}: must hold one JSON object")
    return fields
