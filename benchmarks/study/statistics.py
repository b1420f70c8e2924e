"""Mean, spread, and the interval of a difference between two readouts, paired by seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

CONFIDENCE = 0.95


def spread(values: Sequence[float]) -> float:
    """The standard deviation of a sample, with the divisor n - 1."""
    return float(np.std(values, ddof=1))


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences and its 95 % interval by Student's t distribution."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What the interval allows to say: "higher", "lower" or "within the noise"."""
        if self.low <= 0 <= self.high:
            return "within the noise"
        return "higher" if self.low > 0 else "lower"


def difference(values: Sequence[float], reference: Sequence[float], resolution: float = 0.0) -> Difference:
    """The difference of values from a reference, (n,) each, of the same seeds in the same order.

    `resolution` is the smallest difference that the measurement can show, as one image of a test set: no interval is
    narrower than this to each side, for equal differences of few seeds would look like certainty. Raises ValueError for
    fewer than two pairs.
    """
    if len(values) != len(reference) or len(values) < 2:
        raise ValueError(f"pairs of values are needed, at least two: got {len(values)} and {len(reference)}")
    differences = np.subtract(values, reference)
    count, mean = len(differences), float(differences.mean())
    half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * spread(differences.tolist()) / math.sqrt(count)
    half = max(half, resolution)
    return Difference(mean, mean - half, mean + half)
