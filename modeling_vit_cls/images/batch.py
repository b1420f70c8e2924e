"""What the trainer is given for a step."""

from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
    """Images (B, H, W, C) uint8 and labels (B,) int32; `rows` (B,) int32 are those of the dataset, -1 fills up.

    `valid` (B,) is False for what fills up the last batch and for broken images that are skipped.
    """

    pixels: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    valid: np.ndarray

    @property
    def broken_rows(self) -> list[int]:
        """The rows whose images cannot be read."""
        return self.rows[(self.rows >= 0) & ~self.valid].tolist()
