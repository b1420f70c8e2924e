"""Size and content of an image as a dataset stores it, in the row or in a file."""

import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

_PART = 1 << 20


def size_of_file(path: Any) -> int | None:
    """The size of a regular file in bytes; None where there is no such file."""
    try:
        status = os.stat(path)
    except (OSError, TypeError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def parts_of(image: Mapping[str, Any]) -> Iterator[bytes]:
    """The content of an image {"bytes", "path"}; a file in parts of a MiB. Raises OSError if it cannot be read."""
    if image["bytes"] is not None:
        yield image["bytes"]
        return
    with open(image["path"], "rb") as file:
        while part := file.read(_PART):
            yield part
