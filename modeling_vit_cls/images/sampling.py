"""Samples of a labelled dataset: drawn at random by a seed, with all classes in their shares."""

from collections.abc import Sequence

import numpy as np


def sample_rows(labels: Sequence[int], count: int, seed: int) -> np.ndarray:
    """`count` rows of labels (N,), sorted; each class in its share, and at least once where there is room."""
    classes, sizes = np.unique(np.asarray(labels), return_counts=True)
    return _draw(np.asarray(labels), classes, _quotas(sizes, min(count, len(labels)), sizes, seed), seed)


def hold_out(labels: Sequence[int], share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to keep and rows to hold out of labels (N,), both sorted, in each class about `share` of it held out.

    A class of two images or more is in both; one of a single image is kept.
    """
    every = np.asarray(labels)
    classes, sizes = np.unique(every, return_counts=True)
    room = sizes - 1
    count = min(max(round(len(every) * share), int((room > 0).sum())), int(room.sum()))
    held = _draw(every, classes, _quotas(sizes, count, room, seed), seed)
    return np.setdiff1d(np.arange(len(every)), held), held


def in_turns(labels: Sequence[int], seed: int) -> np.ndarray:
    """All rows of labels (N,) at random, each class once before any comes again."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    shuffled = np.asarray(labels)[order]
    by_class = np.argsort(shuffled, kind="stable")
    _, starts, sizes = np.unique(shuffled[by_class], return_index=True, return_counts=True)
    turns = np.empty(len(order), int)
    turns[by_class] = np.arange(len(order)) - np.repeat(starts, sizes)
    return order[np.argsort(turns, kind="stable")]


def _draw(labels: np.ndarray, classes: np.ndarray, quotas: np.ndarray, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # class by class, at random within each
    starts = np.searchsorted(labels[order], classes)
    chosen = [order[start : start + quota] for start, quota in zip(starts, quotas)]
    return np.sort(np.concatenate([np.zeros(0, int), *chosen]).astype(int))


def _quotas(sizes: np.ndarray, total: int, room: np.ndarray, seed: int) -> np.ndarray:
    """How many of each class, at most `room` of it: `total` in all, in proportion to the sizes, ties by the seed."""
    ideal = sizes * (total / max(sizes.sum(), 1))
    least = np.minimum(room, 1) if total >= (room > 0).sum() else np.zeros_like(room)
    quotas = np.clip(np.floor(ideal).astype(int), least, room)
    wish = ideal + np.random.default_rng(seed).uniform(0, 1e-6, len(sizes))
    while (missing := total - quotas.sum()) != 0:
        able = quotas < room if missing > 0 else quotas > least
        lack = np.where(able, np.sign(missing) * (wish - quotas), -np.inf)
        quotas[np.argsort(-lack)[: min(abs(missing), able.sum())]] += np.sign(missing)
    return quotas
