"""Logits, losses and labels of a dataset, every example once; and what is watched while batches go through."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax
from transformers import TrainerState

from ..errors import BadImageError, ConfigError, shorten
from ..images.processor import ViTClsImageProcessor
from ..images.rows import row_name
from ..modeling_vit_cls import FlaxViTClsForImageClassification
from ..predict import OnBadImage, predict

_KEPT = "BadImages"  # the name in a trainer's state
_log = logging.getLogger(__name__)


def evaluate(
    model: FlaxViTClsForImageClassification,
    params: Any,
    dataset: Any,
    *,
    processor: ViTClsImageProcessor,
    batch_size: int,
    on_bad_image: OnBadImage,
    after: Callable[[], None],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (N, K), losses (N,) and labels (N,) of the images of a dataset that can be read, in its order.

    Threads read and resize, whatever the number of worker processes that training has. `after` is called after each
    batch. Raises FloatingPointError where logits are not finite, ValueError where no image can be read.
    """
    logits, rows = [], []
    how = {"processor": processor, "params": params, "batch_size": batch_size, "on_bad_image": on_bad_image}
    for values, numbers in predict(model, dataset["image"], **how):
        logits.append(values)
        rows.append(numbers)
        after()
    if not rows:
        raise ValueError("no image of the dataset could be read")
    predictions = np.concatenate(logits)
    if not np.isfinite(predictions).all():
        raise FloatingPointError("evaluation: the logits are not finite")
    labels = np.asarray(dataset["label"], np.int32)[np.concatenate(rows)]
    losses = -np.take_along_axis(log_softmax(predictions, axis=-1), labels[:, None], axis=-1)[:, 0]
    return predictions, losses, labels


def in_bfloat16(model: Any) -> FlaxViTClsForImageClassification:
    """A model that computes in bfloat16 and has no parameters of its own: they are given with each call."""
    how = {"dtype": jnp.bfloat16, "attn_implementation": model.module.attn_implementation}
    other = type(model)(model.config, _do_init=False, **how)
    other.image_processor = model.image_processor
    return other


def as_numbers(metrics: Any) -> dict[str, Any]:
    """What `compute_metrics` returned, with NumPy's and JAX's numbers as Python's.

    Raises ConfigError for what is no dict, and, naming the metric, for a value that is no number.
    """
    if not isinstance(metrics, Mapping):
        raise ConfigError("compute_metrics", type(metrics).__name__, "must return a dict of numbers by name")
    found: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, np.generic | np.ndarray | jax.Array) and value.size == 1:
            value = value.item()
        if not isinstance(value, int | float):
            rule = f"must return numbers by name, but {name!r} is {shorten(value)}"
            raise ConfigError("compute_metrics", type(value).__name__, rule)
        found[str(name)] = value
    return found


class BadImages:
    """The rows whose images cannot be read: each counts once, is logged, and is an error at more than `limit`."""

    def __init__(self, limit: int):
        self.names: list[str] = []  # paths, or numbers of rows that have none
        self._limit, self._rows = limit, dict[tuple[str, int, str], None]()  # role, row and name, in order

    def note(self, dataset: Any, rows: Iterable[int], role: str) -> None:
        """Take down rows whose images cannot be read; `role` is what the dataset is for, as "train".

        Raises BadImageError where a dataset has too many.
        """
        for row in rows:
            name = row_name(dataset[row]["image"], row)
            if (role, row, name) in self._rows:
                continue
            self._add(role, row, name)
            _log.warning("%s: cannot be read as an image, and is left out of %s (%d)", name, role, len(self.names))
        if len(found := self.of(role)) > self._limit:
            rule = f"more than max_bad_images={self._limit} images of {role} cannot be read, the last is"
            raise BadImageError(f"{rule} {found[-1]}")

    def of(self, role: str) -> list[str]:
        """The names of those of one dataset."""
        return [name for place, _, name in self._rows if place == role]

    def export(self, state: TrainerState) -> None:
        """Put the rows of the training data into a trainer's state, where the run finds them when it goes on."""
        rows = [row for role, row, _ in self._rows if role == "train"]
        if rows:  # by number: a path is of this machine
            state.stateful_callbacks |= {_KEPT: {"train": rows}}  # pyright: ignore

    def restore(self, dataset: Any, state: TrainerState) -> None:
        """Take over the rows of the training data from the state of a run that goes on."""
        kept: Any = state.stateful_callbacks
        for row in kept.get(_KEPT, {}).get("train", []):
            name = row_name(dataset[row]["image"], row)
            if ("train", row, name) not in self._rows:
                self._add("train", row, name)

    def _add(self, role: str, row: int, name: str) -> None:
        self._rows[role, row, name] = None
        self.names.append(name)
