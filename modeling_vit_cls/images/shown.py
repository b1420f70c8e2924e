"""A few readable images of different classes, for pictures in a card."""

from typing import Any

from PIL import Image

from ..errors import BadImageError
from .sampling import in_turns
from .sources import open_image


def readable_images(dataset: Any, count: int, seed: int) -> list[tuple[Image.Image, int]]:
    """Up to `count` pairs (image, label), drawn at random with the seed, the classes in turn.

    Broken images are skipped.
    """
    examples: list[tuple[Image.Image, int]] = []
    for row in in_turns(dataset["label"], seed).tolist():
        if len(examples) == count:
            break
        example = dataset[row]
        try:
            examples.append((open_image(example["image"]), example["label"]))
        except BadImageError:  # training or evaluation has reported it already
            continue
    return examples
