"""One batch of images for training or evaluation."""

from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
    """Images (B, H, W, C) uint8, their labels (B,) int32 and their rows in the dataset (B,) int32.

    The last batch is filled up with black images of row -1. `valid` (B,) is False for these and for broken images that
    are skipped.
    """

    pixels: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    valid: np.ndarray

    @property
    def broken_rows(self) -> list[int]:
        """The rows whose images cannot be read."""
        return self.rows[(self.rows >= 0) & ~self.valid].tolist()
