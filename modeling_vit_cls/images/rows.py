"""The image of a dataset's row, {"bytes", "path"}: opened, and named where it is reported."""

from collections.abc import Mapping
from typing import Any

from PIL import Image

from ..errors import BadImageError
from .rgb import load_image


def open_image(image: Mapping[str, Any] | None) -> Image.Image:
    """The image of a row, {"bytes", "path"}, as upright RGB. Raises BadImageError that names its path."""
    if image is None or (image["bytes"] is None and image["path"] is None):
        raise BadImageError("there is no image in it")
    if image["bytes"] is None:
        return load_image(image["path"])
    return load_image(image["bytes"], name=image["path"] or "an image without a path")


def row_name(image: Mapping[str, Any] | None, row: int) -> str:
    """What a row's image is called where it is reported: its path, or else the number of the row."""
    path = None if image is None else image["path"]
    return f"row {row}" if path is None else str(path)


def named(error: BadImageError, image: Mapping[str, Any] | None, row: int) -> BadImageError:
    """The error of a row's image, with the row's number where the image has no path."""
    name = row_name(image, row)
    return error if name in str(error) else BadImageError(f"{name}: {error}")


def unskipped(error: BadImageError) -> BadImageError:
    """The error of an image that `on_bad_image="raise"` stops at, with what to do about it."""
    return BadImageError(f"{error}; on_bad_image='skip' leaves it out")
