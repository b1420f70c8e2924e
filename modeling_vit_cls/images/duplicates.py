"""Images that are in two splits, counted by their content."""

import os
from collections.abc import Iterable
from typing import Any

import xxhash

from .stored import parts_of, size_of_file


def count_duplicates(dataset: Any, others: Iterable[Any]) -> int:
    """How many images of a dataset have the same bytes as an image in one of the other datasets.

    Rows are as `load_images` returns them. A file is read only where the other side has an image of the same size. A
    missing image equals no other.
    """
    digests: dict[int, set[bytes]] = {}  # by size in bytes
    paths: dict[int, list[str]] = {}  # files by size, digested only when an image of that size comes
    for other in others:
        for image in other["image"]:
            if (size := _size(image)) is None:
                continue
            if image["bytes"] is None:
                paths.setdefault(size, []).append(image["path"])
            else:
                digests.setdefault(size, set()).add(_digest(image))
    count = 0
    for image in dataset["image"]:
        size = _size(image)
        if size in paths:
            digests.setdefault(size, set()).update(_digest({"bytes": None, "path": path}) for path in paths.pop(size))
        count += size in digests and _digest(image) in digests[size]
    return count


def _size(image: Any) -> int | None:
    """Bytes of an image; None where the image or its file is missing."""
    if image is None:
        return None
    return size_of_file(image["path"]) if image["bytes"] is None else len(image["bytes"])


def _digest(image: Any) -> bytes:
    digest = xxhash.xxh3_128()
    try:
        for part in parts_of(image):
            digest.update(part)
    except OSError:  # an unreadable file equals no other
        return os.urandom(16)
    return digest.digest()
