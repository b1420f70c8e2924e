"""The built-in dataset: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, a fifth of them held out as "test"."""

import io

import numpy as np
from PIL import Image

from ..errors import ConfigError
from ..install import needs

try:
    import datasets
except ImportError as error:
    raise needs("datasets", "to load images", "train") from error

_HELD_OUT = 360  # of the 1,797


def load_digits(split: str) -> "datasets.Dataset":
    """The split "train" or "test" as rows {"image": {"bytes", "path"}, "label": int}."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise needs("scikit-learn", "for the dataset digits", "train") from error
    if split not in ("train", "test"):
        raise ConfigError("split", split, "must be one of digits: train, test")
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    rows = np.sort(order[:_HELD_OUT] if split == "test" else order[_HELD_OUT:])
    images = [{"bytes": _png(pixels[row].reshape(8, 8)), "path": f"digits/{row:04d}.png"} for row in rows]
    features = datasets.Features(
        {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=[str(i) for i in range(10)])}
    )
    return datasets.Dataset.from_dict({"image": images, "label": labels[rows].tolist()}, features=features)


def _png(digit: np.ndarray) -> bytes:
    """An image (8, 8) of values 0 to 16 -> a PNG file of values 0 to 255."""
    file = io.BytesIO()
    Image.fromarray(np.rint(digit * (255 / 16)).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
