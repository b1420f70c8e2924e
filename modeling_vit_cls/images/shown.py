"""A few images of a dataset to show: of different classes, and such that can be read."""

from typing import Any

from PIL import Image

from ..errors import BadImageError
from .sampling import in_turns
from .sources import open_image


def readable_images(dataset: Any, count: int, seed: int) -> list[tuple[Image.Image, int]]:
    """Up to `count` images and their labels, drawn by the seed, the classes in turn; broken ones are passed over."""
    shown: list[tuple[Image.Image, int]] = []
    for row in in_turns(dataset["label"], seed).tolist():
        if len(shown) == count:
            break
        example = dataset[row]
        try:
            shown.append((open_image(example["image"]), example["label"]))
        except BadImageError:  # whoever read the whole dataset has named it
            continue
    return shown
