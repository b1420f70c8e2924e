"""A fingerprint of a dataset: datasets with equal fingerprints have the same images, labels and class names."""

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

_BUDGET = 2**28  # bytes of images to read; of a larger dataset a sample is read
_ROWS = 10_000  # to read at once


def fingerprint(dataset: Any) -> dict[str, Any]:
    """Rows as `load_images` returns them -> {"examples", "class_names", "labels", "images"}, the last two as digests.

    Images are digested as `images_digest` does.
    """
    labels = np.asarray(dataset.data.column("label").take(_order(dataset)).to_pylist(), np.int64)
    return {
        "examples": len(dataset),
        "class_names": class_names(dataset),
        "labels": xxhash.xxh3_128_hexdigest(labels.tobytes()),
        "images": images_digest(dataset, "image"),
    }


def table_fingerprint(dataset: Any, image: str) -> dict[str, Any]:
    """A dataset with any columns -> {"examples", "columns", "values", "images"}, the last three as digests.

    "columns" are names and types; "values" those of all columns but `image`, the column of images.
    """
    digest = xxhash.xxh3_128()
    others = dataset.remove_columns(image).with_format("arrow")
    for start in range(0, len(others) if others.column_names else 0, _ROWS):
        for column in others[start : start + _ROWS].columns:  # as Python's values: Arrow's bytes depend on the file
            digest.update(repr(column.to_pylist()).encode(errors="surrogatepass"))
    return {
        "examples": len(dataset),
        "columns": xxhash.xxh3_128_hexdigest(repr(sorted(dataset.features.to_dict().items())).encode()),
        "values": digest.hexdigest(),
        "images": images_digest(dataset, image),
    }


def images_digest(dataset: Any, column: str) -> str:
    """A digest of a column of images {"bytes", "path"}.

    The file name and the size of every image count; the folder does not, so a dataset may be moved. Up to 256 MiB, the
    contents of all images count. Beyond, only evenly spaced images of that total are read: then an image that is
    replaced by one of the same name and the same size in bytes can go unnoticed.
    """
    order = _order(dataset)
    images = dataset.data.column(column)  # the Arrow column: no image is read yet
    arrow: Any = compute  # pyarrow makes these functions when it is imported, so type checkers do not know them
    paths = arrow.struct_field(images, "path").take(order).to_pylist()
    sizes = arrow.binary_length(arrow.struct_field(images, "bytes")).take(order).to_pylist()
    sizes = np.array([_size(*pair) for pair in zip(sizes, paths)], np.int64)

    digest = xxhash.xxh3_128(sizes.tobytes())
    digest.update("\0".join(os.path.basename(path or "") for path in paths).encode(errors="surrogateescape"))
    every = max(1, -(-int(sizes.clip(0).sum()) // _BUDGET))
    for row in range(0, len(paths), every):
        if sizes[row] >= 0:
            with contextlib.suppress(OSError):  # the file was removed: reading the batch reports it
                for part in parts_of(images[order[row].as_py()].as_py()):
                    digest.update(part)
    return digest.hexdigest()


def _order(dataset: Any) -> pa.Array:
    """Indices of the dataset's rows in its Arrow table, (N,)."""
    rows = table_rows(dataset)
    return pa.array(np.arange(len(dataset))) if rows is None else rows


def _size(in_row: int | None, path: str | None) -> int:
    """Bytes of an image, in the row or in a file; -1 where the image is missing."""
    size = size_of_file(path) if in_row is None else in_row
    return -1 if size is None else size
