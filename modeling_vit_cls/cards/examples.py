"""Which images a card shows: of as many classes as there is room for, drawn by a seed, none that cannot be read."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..data.sources import class_names, open_image
from ..errors import BadImageError


def example_images(dataset: Any, count: int = 8, seed: int = 0) -> tuple[list[Image.Image], list[str]]:
    """Up to `count` images of a labelled dataset, and the names of their classes; the same ones for the same seed."""
    names, images, labels = class_names(dataset), [], []
    for row in turns(dataset["label"], seed):
        if len(images) == count:
            break
        try:
            images.append(open_image(dataset[row]["image"]))
        except BadImageError:  # counted and named where it was measured
            continue
        labels.append(names[dataset[row]["label"]])
    return images, labels


def turns(labels: Sequence[int], seed: int) -> Iterator[int]:
    """All rows, the classes taking turns in an order that is drawn, each giving its rows in an order that is drawn."""
    random = np.random.default_rng(seed)
    of_class: dict[int, list[int]] = {}
    for row in random.permutation(len(labels)):
        of_class.setdefault(int(labels[row]), []).append(int(row))
    queues = [of_class[number] for number in random.permutation(sorted(of_class))]
    for turn in range(max(map(len, queues), default=0)):
        yield from (queue[turn] for queue in queues if turn < len(queue))
