"""Logits, losses and labels of a dataset, every example once; and what is watched while batches go through."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from ..data.batches import Batch
from ..errors import BadImageError
from ..stacking import unstack

_log = logging.getLogger(__name__)


def evaluate_batches(
    eval_step: Callable[[Any, Batch], tuple[jax.Array, jax.Array]],
    params: Any,
    batches: Iterable[Batch],
    after: Callable[[Batch], None],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (N, K), losses (N,) and labels (N,) of the valid examples; `after` is told of each batch.

    Raises FloatingPointError where logits are not finite, ValueError where no example is valid.
    """
    logits, losses, labels = [], [], []
    for batch in batches:
        found = jax.device_get(eval_step(params, batch))
        logits.append(found[0][batch.valid])
        losses.append(found[1][batch.valid])
        labels.append(batch.labels[batch.valid])
        after(batch)
    predictions, label_ids = np.concatenate(logits), np.concatenate(labels)
    if not len(label_ids):
        raise ValueError("no image of the dataset could be read")
    if not np.isfinite(predictions).all():
        raise FloatingPointError("evaluation: the logits are not finite")
    return predictions, np.concatenate(losses), label_ids


def check_finite(step: int, metrics: dict[str, Any]) -> None:
    """Raise FloatingPointError, naming the step and a parameter, where a loss or a gradient is not finite."""
    metrics = jax.device_get(metrics)
    where = [name for name, square in unstack(metrics["squares"]).items() if not np.isfinite(square)]
    if np.isfinite(metrics["loss"]) and not where:
        return
    at = f", and the gradient of {where[0]} and {len(where) - 1} others" if where else ""
    remedy = "nothing of it was saved; try a lower learning_rate, more warmup_steps, or a smaller max_grad_norm"
    raise FloatingPointError(f"step {step}: the loss is {float(metrics['loss'])}{at}: {remedy}")


def note_bad_images(known: list[str], dataset: Any, batch: Batch, limit: int) -> None:
    """Add the paths of a batch's broken images to those that are known, and log each once.

    Raises BadImageError at more than `limit`.
    """
    for row in batch.rows[(batch.rows >= 0) & ~batch.valid]:
        path = str(dataset[int(row)]["image"]["path"])
        if path not in known:
            known.append(path)
            _log.warning("%s: cannot be read as an image, and is left out (%d)", path, len(known))
    if len(known) > limit:
        raise BadImageError(f"more than max_bad_images={limit} images cannot be read, the last is {known[-1]}")
