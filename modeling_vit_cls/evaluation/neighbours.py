"""Exact search for the nearest features by cosine similarity, and what is measured by it: kNN and retrieval.

kNN follows Caron et al. 2021 ("Emerging Properties in Self-Supervised Vision Transformers"), retrieval Musgrave et al.
2020 ("A Metric Learning Reality Check").
"""

from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ConfigError
from .features import check_features

KS = (10, 20, 100, 200)  # numbers of neighbours that vote
_TEMPERATURE = 0.07
_RECALLS = (1, 5, 10)
_ROWS = 8192  # rows that are compared at once
_TILE = 1024  # the rows in one step are a multiple: a matrix product of few columns rounds otherwise
_SIMILARITIES = 2**25  # similarities in memory at once, 128 MB


def search(
    queries: np.ndarray, features: np.ndarray, k: int, *, leave_one_out: bool = False, rows_at_once: int = _ROWS
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """The k nearest of `features` (N, F) for each of `queries` (M, F), by cosine similarity, exactly.

    Yields blocks of queries: the block, similarities (m, k), largest first, and rows of `features` (m, k). Of equal
    similarities the lower row comes first. A vector of zeros has similarity 0 to all. `features` stay in the memory of
    the host; `rows_at_once` of them are on the device.

    Args:
        queries: the features to search for.
        features: the features to search in.
        k: number of neighbours, at most N.
        leave_one_out: the queries are the features themselves, and no row is its own neighbour; k is at most N - 1.
        rows_at_once: rows of `features` in one step, rounded up to a multiple of 1,024.

    Raises ConfigError for a k that is too large, for other widths, and for NaN.
    """
    check_features("queries", queries)
    check_features("features", features)
    if queries.shape[1] != features.shape[1]:
        rule = f"has width {queries.shape[1]}, the features have {features.shape[1]}: use one model for both"
        raise ConfigError("queries", queries.shape, rule)
    candidates = len(features) - leave_one_out
    if not 1 <= k <= candidates:
        raise ConfigError("k", k, f"must be a number of neighbours from 1 to {candidates}")
    rows_at_once = -(-min(rows_at_once, len(features)) // _TILE) * _TILE
    size = max(128, _SIMILARITIES // (k + rows_at_once))
    for start in range(0, len(queries), size):
        block = slice(start, min(start + size, len(queries)))
        own = np.arange(block.start, block.stop, dtype=np.int32) if leave_one_out else np.full(len(queries[block]), -1)
        unit = _unit(jnp.asarray(queries[block], jnp.float32))
        best = jnp.full((len(own), k), -jnp.inf), jnp.full((len(own), k), -1, jnp.int32)
        for first in range(0, len(features), rows_at_once):
            chunk = np.asarray(features[first : first + rows_at_once], np.float32)
            count, chunk = len(chunk), np.pad(chunk, ((0, rows_at_once - len(chunk)), (0, 0)))
            best = _nearer(best, unit, chunk, np.int32(first), np.int32(count), own.astype(np.int32), k=k)
            jax.block_until_ready(best)  # else steps that wait keep their chunks in memory
        yield block, np.asarray(best[0]), np.asarray(best[1])


@partial(jax.jit, static_argnames="k")
def _nearer(
    best: tuple[jax.Array, jax.Array],
    unit: jax.Array,
    chunk: jax.Array,
    first: jax.Array,
    count: jax.Array,
    own: jax.Array,
    *,
    k: int,
) -> tuple[jax.Array, jax.Array]:
    """The best (m, k) similarities and rows so far, with `count` more rows `first`, first + 1, ... in `chunk` (n, F).

    The best come before the chunk, and `top_k` takes the earlier of equal numbers: so the lower row.
    """
    # On a GPU the default precision would round to 10 bits.
    similarities = jnp.matmul(unit, _unit(chunk).T, precision=jax.lax.Precision.HIGHEST)
    place = jnp.arange(len(chunk), dtype=jnp.int32)[None]
    rows = first + place
    similarities = jnp.where((place >= count) | (rows == own[:, None]), -jnp.inf, similarities)
    values, places = jax.lax.top_k(jnp.concatenate([best[0], similarities], axis=1), k)
    rows = jnp.concatenate([best[1], jnp.broadcast_to(rows, similarities.shape)], axis=1)
    return values, jnp.take_along_axis(rows, places, axis=1)


def _unit(vectors: jax.Array) -> jax.Array:
    """Vectors (n, F) of length 1; zeros stay zeros. No square overflows or vanishes: the largest number becomes 1."""
    largest = jnp.abs(vectors).max(axis=1, keepdims=True)
    vectors = vectors / jnp.where(largest == 0, 1, largest)
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def knn_predictions(
    train: np.ndarray, labels: np.ndarray, queries: np.ndarray, ks: Sequence[int], classes: int
) -> dict[int, np.ndarray]:
    """Classes (M,) of queries (M, F) for each k: a vote of the k nearest of `train` (N, F) with `labels` (N,).

    A vote weighs exp(similarity / 0.07), divided by the sum over the k neighbours. Of equal classes the lower number is
    predicted. Raises ConfigError as `search` does.
    """
    check_features("train", train, labels)
    if labels.min() < 0 or labels.max() >= classes:
        raise ConfigError("classes", classes, f"must be above the largest label, {labels.max()}, and no label below 0")
    predictions = {k: np.empty(len(queries), np.int64) for k in ks}
    for block, similarities, rows in search(queries, train, max(ks)):
        weights = np.exp((similarities - similarities[:, :1]).astype(np.float64) / _TEMPERATURE)
        voters = labels[rows] + classes * np.arange(len(rows))[:, None]
        for k in ks:
            shares = weights[:, :k] / weights[:, :k].sum(axis=1, keepdims=True)
            votes = np.bincount(voters[:, :k].ravel(), shares.ravel(), minlength=classes * len(rows))
            predictions[k][block] = votes.reshape(len(rows), classes).argmax(axis=1)
    return predictions


def knn(train: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> dict[str, float]:
    """Accuracy of kNN for each k of `KS` that is not larger than the training set: {"knn_10_accuracy": share, ...}.

    Arguments as in `knn_predictions`. Raises ConfigError if the training set has fewer than 10 rows.
    """
    check_features("test", test, test_labels)
    ks = [k for k in KS if k <= len(train)]
    if not ks:
        raise ConfigError("train", len(train), f"has fewer images than the smallest number of neighbours, {KS[0]}")
    classes = int(max(labels.max(), test_labels.max())) + 1
    predictions = knn_predictions(train, labels, test, ks, classes)
    return {f"knn_{k}_accuracy": float(np.mean(predictions[k] == test_labels)) for k in ks}


def images_to_find(labels: np.ndarray, query_labels: np.ndarray, leave_one_out: bool = False) -> np.ndarray:
    """The number of images in the gallery that each query should find, (M,). Arguments as in `retrieval`."""
    return np.bincount(labels, minlength=int(query_labels.max()) + 1)[query_labels] - int(leave_one_out)


def retrieval(
    gallery: np.ndarray, labels: np.ndarray, queries: np.ndarray, query_labels: np.ndarray, leave_one_out: bool = False
) -> dict[str, float]:
    """Recall at 1, 5 and 10, and mAP@R, of a search for images of the same class.

    Recall at k is the share of the queries with an image of their class among the k nearest. With R images of a
    query's class in the gallery, its AP@R is the mean over the R nearest of (precision up to there if it is of the
    class, else 0), and mAP@R the mean over the queries. Queries whose class has no image in the gallery are left out.

    Args:
        gallery: the features to search in, (N, F), with `labels` (N,).
        queries: the features to search for, (M, F), with `query_labels` (M,).
        leave_one_out: the queries are the gallery itself, and no image finds itself.

    Raises ConfigError as `search` does, and if no query has an image of its class in the gallery.
    """
    check_features("gallery", gallery, labels)
    check_features("queries", queries, query_labels)
    sizes = images_to_find(labels, query_labels, leave_one_out)
    if not sizes.any():
        raise ConfigError("labels", np.unique(labels), "no query has an image of its class in the gallery")
    candidates = len(gallery) - leave_one_out
    recalls = [k for k in _RECALLS if k <= candidates]
    hits, precision = dict.fromkeys(recalls, 0), 0.0
    for block, _, rows in search(queries, gallery, max(sizes.max(), *recalls), leave_one_out=leave_one_out):
        count = sizes[block, None]
        relevant = (labels[rows] == query_labels[block, None]) & (count > 0)
        for k in recalls:
            hits[k] += int(relevant[:, :k].any(axis=1).sum())
        ranks = np.arange(1, rows.shape[1] + 1)[None]
        precisions = np.where(relevant & (ranks <= count), relevant.cumsum(axis=1) / ranks, 0)
        precision += float((precisions.sum(axis=1) / np.maximum(count[:, 0], 1)).sum())
    total = int((sizes > 0).sum())
    return {**{f"recall_at_{k}": hits[k] / total for k in recalls}, "map_at_r": precision / total}
