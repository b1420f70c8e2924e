"""The image of a dataset's row, {"bytes", "path"}: how it is opened, and its name in reports."""

from collections.abc import Mapping
from typing import Any

from PIL import Image

from ..errors import BadImageError
from .rgb import load_image


def open_image(image: Mapping[str, Any] | None) -> Image.Image:
    """The image of a row, {"bytes", "path"}, as upright RGB. Raises BadImageError with its path."""
    if image is not None and not {"bytes", "path"} <= image.keys():
        columns = ", ".join(map(str, image))
        raise BadImageError(f"has {columns}, expected an image as bytes and path: give the column of images alone")
    if image is None or (image["bytes"] is None and image["path"] is None):
        raise BadImageError("has no image")
    if image["bytes"] is None:
        return load_image(image["path"])
    return load_image(image["bytes"], name=image["path"] or "an image without a path")


def row_name(image: Mapping[str, Any] | None, row: int) -> str:
    """The name of a row's image in reports: its path, or the number of the row if it has none."""
    path = None if image is None else image.get("path")
    return f"row {row}" if path is None else str(path)


def named(error: BadImageError, image: Mapping[str, Any] | None, row: int) -> BadImageError:
    """The error about a row's image, with the name of the row (see `row_name`) in its message."""
    name = row_name(image, row)
    return error if name in str(error) else BadImageError(f"{name}: {error}")


def unskipped(error: BadImageError) -> BadImageError:
    """The error about an image with the advice to skip it."""
    return BadImageError(f"{error}; on_bad_image='skip' leaves it out")
