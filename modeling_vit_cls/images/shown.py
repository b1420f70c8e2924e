"""A few readable images of all classes, for pictures in a card."""

from typing import Any

import numpy as np
from PIL import Image

from ..errors import BadImageError
from .rows import open_image


def readable_images(dataset: Any, count: int, seed: int) -> list[tuple[Image.Image, int]]:
    """Up to `count` pairs (image, label), in the order of the classes, with as many images of each class.

    If there are more classes than `count`, one image of each of `count` classes, evenly spaced. The seed draws the
    images within a class. Broken images are skipped.
    """
    labels = np.asarray(dataset["label"])
    classes = np.unique(labels)
    classes = classes[np.linspace(0, len(classes) - 1, min(count, len(classes))).round().astype(int)]
    order = np.random.default_rng(seed).permutation(len(labels))
    examples: list[tuple[Image.Image, int]] = []
    for label in classes.tolist():
        images = _readable(dataset, order[labels[order] == label].tolist(), max(1, count // len(classes)))
        examples += [(image, label) for image in images]
    return examples


def _readable(dataset: Any, rows: list[int], count: int) -> list[Image.Image]:
    """The first `count` images of the rows that can be read."""
    images: list[Image.Image] = []
    for row in rows:
        if len(images) == count:
            break
        try:
            images.append(open_image(dataset[row]["image"]))
        except BadImageError:  # training or evaluation has reported it already
            continue
    return images
