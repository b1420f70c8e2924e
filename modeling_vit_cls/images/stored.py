"""The bytes of an image as a dataset stores it, in the row or in a file: how many, and in parts."""

import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

_PART = 1 << 20


def size_of_file(path: Any) -> int | None:
    """Bytes of a regular file; None where there is none."""
    try:
        status = os.stat(path)
    except (OSError, TypeError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def parts_of(image: Mapping[str, Any]) -> Iterator[bytes]:
    """The content of an image {"bytes", "path"}, of a file a MiB at a time. Raises OSError for one not readable."""
    if image["bytes"] is not None:
        yield image["bytes"]
        return
    with open(image["path"], "rb") as file:
        while part := file.read(_PART):
            yield part
