"""Figures as PNG files: equal input gives equal bytes, whatever the user's settings of matplotlib."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ..install import needs
from .view import scaled

try:
    from matplotlib import colormaps, style
    from matplotlib.figure import Figure
except ImportError as error:
    raise needs("matplotlib", "to draw pictures", "train") from error

COLOURS = "cividis"  # colour-blind readers can distinguish them
_OVERLAY_WEIGHT = 0.65  # weight of the attention map's colour over the image's grey


@contextmanager
def figure_file(width: float, height: float) -> Iterator[tuple[Figure, io.BytesIO]]:
    """A figure of this size in inches, drawn into the file when the block ends, without the user's settings."""
    file = io.BytesIO()
    with style.context("default"):
        figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
        yield figure, file
        figure.savefig(file, format="png", metadata={"Software": None})  # no version of matplotlib in the file


def overlaid(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A map (h, w), scaled to its range, in colours over an image (H, W, C) of 0..1 in grey -> (H, W, 3)."""
    heat = colormaps[COLOURS](scaled(weights, float(np.abs(weights).max())))[..., :3]
    grey = image.mean(axis=-1, keepdims=True)
    return _OVERLAY_WEIGHT * enlarged(heat, image.shape[:2]) + (1 - _OVERLAY_WEIGHT) * grey


def enlarged(patches: np.ndarray, image_hw: tuple[int, ...]) -> np.ndarray:
    """A value for each patch (h, w, ...) -> the same for each pixel (H, W, ...)."""
    rows, columns = (np.arange(size) * cells // size for size, cells in zip(image_hw, patches.shape))
    return patches[np.ix_(rows, columns)]
