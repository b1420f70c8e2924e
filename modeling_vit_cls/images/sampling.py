"""Stratified samples of a labelled dataset, drawn at random with a seed."""

from collections.abc import Sequence

import numpy as np


def sample_rows(labels: Sequence[int], count: int, seed: int) -> np.ndarray:
    """Draw `count` rows of labels (N,), stratified by class: -> (count,) row numbers, sorted.

    Each class is drawn at least once if `count` allows.
    """
    classes, sizes = np.unique(np.asarray(labels), return_counts=True)
    return _draw(np.asarray(labels), classes, _quotas(sizes, min(count, len(labels)), sizes, seed), seed)


def hold_out(labels: Sequence[int], share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the rows of labels (N,) into (rows to keep, rows to hold out), both sorted.

    About `share` of each class is held out. A class of two or more images is in both parts; a single image is kept.
    """
    numbers = np.asarray(labels)
    classes, sizes = np.unique(numbers, return_counts=True)
    limits = sizes - 1
    count = min(max(round(len(labels) * share), int((limits > 0).sum())), int(limits.sum()))
    held_out = _draw(numbers, classes, _quotas(sizes, count, limits, seed), seed)
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def _draw(labels: np.ndarray, classes: np.ndarray, quotas: np.ndarray, seed: int) -> np.ndarray:
    """Row numbers, sorted: `quotas` (K,) random rows of each of `classes` (K,)."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # class by class, in random order within each
    starts = np.searchsorted(labels[order], classes)
    rows = [order[start : start + quota] for start, quota in zip(starts, quotas)]
    return np.sort(np.concatenate([np.zeros(0, int), *rows]).astype(int))


def _quotas(sizes: np.ndarray, total: int, limits: np.ndarray, seed: int) -> np.ndarray:
    """How many rows of each class to draw, (K,): `total` in all, in proportion to `sizes` (K,), at most `limits` (K,).

    Rounding is by the largest remainder; the seed breaks ties.
    """
    ideal = sizes * (total / max(sizes.sum(), 1))
    least = np.minimum(limits, 1) if total >= (limits > 0).sum() else np.zeros_like(limits)
    quotas = np.clip(np.floor(ideal).astype(int), least, limits)
    ideal += np.random.default_rng(seed).uniform(0, 1e-6, len(sizes))
    while (missing := total - quotas.sum()) != 0:
        can_change = quotas < limits if missing > 0 else quotas > least
        remainders = np.where(can_change, np.sign(missing) * (ideal - quotas), -np.inf)
        quotas[np.argsort(-remainders)[: min(abs(missing), can_change.sum())]] += np.sign(missing)
    return quotas
