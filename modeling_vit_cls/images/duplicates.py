"""Images that are in two splits: counted by their content."""

import os
from collections.abc import Iterable
from typing import Any

import xxhash

from .stored import parts_of, size_of_file


def count_duplicates(dataset: Any, others: Iterable[Any]) -> int:
    """How many images of a dataset have the bytes of an image in one of the others.

    Rows are as `load_images` gives them. Files are read only where a file of the same size is on the other side; an
    image that is not there is none of any.
    """
    digests: dict[int, set[bytes]] = {}  # by size in bytes
    waiting: dict[int, list[str]] = {}  # files, whose digests may never be needed
    for other in others:
        for image in other["image"]:
            if (size := _size(image)) is None:
                continue
            if image["bytes"] is None:
                waiting.setdefault(size, []).append(image["path"])
            else:
                digests.setdefault(size, set()).add(_digest(image))
    count = 0
    for image in dataset["image"]:
        size = _size(image)
        if size in waiting:
            files = [_digest({"bytes": None, "path": path}) for path in waiting.pop(size)]
            digests.setdefault(size, set()).update(files)
        count += size in digests and _digest(image) in digests[size]
    return count


def _size(image: Any) -> int | None:
    """Bytes of an image; None where there is none, or no regular file."""
    if image is None:
        return None
    return size_of_file(image["path"]) if image["bytes"] is None else len(image["bytes"])


def _digest(image: Any) -> bytes:
    digest = xxhash.xxh3_128()
    try:
        for part in parts_of(image):
            digest.update(part)
    except OSError:  # a file that cannot be read is like no other
        return os.urandom(16)
    return digest.digest()
