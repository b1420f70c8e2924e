"""One batch of images for training or evaluation."""

from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
    """Images (B, H, W, C) uint8, their labels (B,) int32 and their rows in the dataset (B,) int32.

    The last batch is filled up with black images of row -1. `valid` (B,) is False for these and for broken images that
    are skipped. In a run of several processes each has a part of the batch, but all of its rows.
    """

    pixels: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    valid: np.ndarray


def broken_rows(rows: np.ndarray, valid: np.ndarray) -> list[int]:
    """The rows of a whole batch whose images cannot be read; both arrays are those of a `Batch`."""
    return rows[(rows >= 0) & ~valid].tolist()
