"""Pictures of what a model sees in one image, as PNG: attention, rollout, features of the patches."""

from typing import Any

import numpy as np

from .figure import COLOURS, enlarged, figure_file, overlaid
from .view import View, patch_similarity

_SIDE = 1.5  # inches of a small map
_LARGE = 3.4


def attention_picture(view: View, blocks: int = 4) -> bytes:
    """Draw the attention of the last blocks, a row for each: the mean over heads, then each head.

    Brighter is more; each map has its own scale.
    """
    numbers = range(len(view.attentions))[-blocks:]
    maps = [view.attention(block) for block in numbers]
    width, height = _size(view.image, _SIDE)
    with figure_file(width * (len(maps[0]) + 1) + 0.4, (height + 0.1) * len(maps) + 0.7) as (figure, file):
        source = "[CLS] to each patch" if view.query[-1] == 0 else "all patches to each patch, on average"
        figure.suptitle(f"Attention from {source}", fontsize=9)
        grid = figure.subplots(len(maps), len(maps[0]) + 1, squeeze=False)
        for row, block, heads in zip(grid, numbers, maps):
            for axes, weights in zip(row, [heads.mean(axis=0), *heads]):
                _show(axes, overlaid(view.image, weights))
            row[0].set_ylabel(f"block {block + 1}", fontsize=8)
        for axes, title in zip(grid[0], ["mean", *(f"head {head + 1}" for head in range(len(maps[0])))]):
            axes.set_title(title, fontsize=8)
    return file.getvalue()


def rollout_picture(view: View) -> bytes:
    """Draw the image, and its attention rollout over it (Abnar and Zuidema 2020)."""
    return _beside(view.image, overlaid(view.image, view.rollout()), "attention rollout")


def features_picture(image: np.ndarray, colours: np.ndarray) -> bytes:
    """Draw an image (H, W, C) of 0..1, and the features of its patches as colours (h, w, 3) (see `patch_colours`)."""
    return _beside(image, enlarged(colours, image.shape[:2]), "features of the patches")


def similarity_picture(view: View, patch: tuple[int, int] | None = None) -> bytes:
    """Draw the image with one patch marked, by default the middle one, and the similarity of each patch to it.

    `patch` is (row, column) from 0. The scale is that of the cosine, from 0, or the least if that is negative, to 1.
    Raises ConfigError for a patch outside of the image.
    """
    rows, columns = view.features.shape[:2]
    patch = (rows // 2, columns // 2) if patch is None else patch
    similarity = patch_similarity(view.features, patch)
    height, width = view.image.shape[0] / rows, view.image.shape[1] / columns
    size = _size(view.image, _LARGE)
    with figure_file(2 * size[0] + 0.9, size[1] + 0.4) as (figure, file):
        left, right = figure.subplots(1, 2)
        _show(left, view.image)
        left_side, top = patch[1] * width - 0.5, patch[0] * height - 0.5
        across, down = left_side + width * np.array([0, 1, 1, 0, 0]), top + height * np.array([0, 0, 1, 1, 0])
        left.plot(across, down, color="#D55E00", linewidth=2)
        left.set_title(f"patch {patch[0]}, {patch[1]}", fontsize=9)
        image = enlarged(similarity, view.image.shape[:2])
        drawn = right.imshow(image, cmap=COLOURS, vmin=min(0, similarity.min()), vmax=1, interpolation="nearest")
        right.set_title("similarity to it (cosine)", fontsize=9)
        right.set_axis_off()
        figure.colorbar(drawn, ax=right, fraction=0.046)
    return file.getvalue()


def _beside(image: np.ndarray, picture: np.ndarray, title: str) -> bytes:
    """The image, and a picture of it (H, W, 3) at its right."""
    width, height = _size(image, _LARGE)
    with figure_file(2 * width + 0.2, height + 0.4) as (figure, file):
        for axes, shown, words in zip(figure.subplots(1, 2), (image, picture), ("image", title)):
            _show(axes, shown)
            axes.set_title(words, fontsize=9)
    return file.getvalue()


def _show(axes: Any, image: np.ndarray) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])


def _size(image: np.ndarray, side: float) -> tuple[float, float]:
    """Width and height in inches of a picture whose longer side is `side`."""
    height, width = image.shape[:2]
    return side * width / max(height, width), side * height / max(height, width)
