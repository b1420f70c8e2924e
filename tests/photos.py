"""Small folders of images, as people have them."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_images(root: Path, *files: str) -> Path:
    """An image of its own at each of these places; returns the folder."""
    for number, file in enumerate(files):
        place = root / file
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (9, 10, 3), np.uint8)
        Image.fromarray(pixels).save(place, "PNG")
    return root


def names_of(dataset, root: Path) -> list[str]:
    """Paths of a dataset's images, from the folder on."""
    return [str(Path(image["path"]).relative_to(root)) for image in dataset["image"]]
