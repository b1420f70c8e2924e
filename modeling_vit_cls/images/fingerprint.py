"""What a dataset holds, in few words: two datasets of one fingerprint have the same images, labels and class names."""

import contextlib
import os
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from pyarrow import compute

from .classes import table_rows
from .sources import class_names
from .stored import parts_of, size_of_file

_BUDGET = 2**28  # bytes of images that are read; of more, a sample is


def fingerprint(dataset: Any) -> dict[str, Any]:
    """Rows as `load_images` gives them -> {"examples", "class_names", "labels", "images"}, the last two as digests.

    Of every image its file's name and its size count, wherever its folder lies. All contents count while they are
    256 MiB or less together; beyond, those of evenly spaced rows of that size. Then an image that was replaced by
    another of the same name and, to the byte, the same size can go unnoticed.
    """
    order = _order(dataset)
    images = dataset.data.column("image")  # as it lies in the file: no image is read yet
    fields: Any = compute  # its functions have no names before it is imported
    paths = fields.struct_field(images, "path").take(order).to_pylist()
    sizes = fields.binary_length(fields.struct_field(images, "bytes")).take(order).to_pylist()
    sizes = np.array([_size(*pair) for pair in zip(sizes, paths)], np.int64)

    digest = xxhash.xxh3_128(sizes.tobytes())
    digest.update("\0".join(os.path.basename(path or "") for path in paths).encode(errors="surrogateescape"))
    every = max(1, -(-int(sizes.clip(0).sum()) // _BUDGET))
    for row in range(0, len(paths), every):
        if sizes[row] >= 0:
            with contextlib.suppress(OSError):  # the file went away: whoever trains on it is told
                for part in parts_of(images[order[row].as_py()].as_py()):
                    digest.update(part)
    labels = np.asarray(dataset.data.column("label").take(order).to_pylist(), np.int64)
    return {
        "examples": len(paths),
        "class_names": class_names(dataset),
        "labels": xxhash.xxh3_128_hexdigest(labels.tobytes()),
        "images": digest.hexdigest(),
    }


def _order(dataset: Any) -> pa.Array:
    """The dataset's rows by their numbers in its table."""
    rows = table_rows(dataset)
    return pa.array(np.arange(len(dataset))) if rows is None else rows


def _size(in_row: int | None, path: str | None) -> int:
    """Bytes of an image that the row holds or a file; -1 where there is none to read."""
    size = size_of_file(path) if in_row is None else in_row
    return -1 if size is None else size
