"""Evaluation during training: logits, losses and labels of a dataset; and the record of broken images."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from scipy.special import log_softmax
from transformers import TrainerState

from ..errors import BadImageError, ConfigError, shorten
from ..images.processor import ViTClsImageProcessor
from ..images.rows import row_name
from ..modeling_vit_cls import FlaxViTClsForImageClassification
from ..predict import OnBadImage, predict

_STATE_NAME = "BadImages"  # name in a trainer's state
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
    """Logits (N, K), losses (N,) and labels (N,) of the N readable images of a dataset, in order.

    Threads read and resize the images. `after` is called after each batch. Raises FloatingPointError, as `predict`, if
    logits are not finite, ValueError if no image can be read.
    """
    logits, rows = [], []
    options = {"processor": processor, "params": params, "batch_size": batch_size, "on_bad_image": on_bad_image}
    for batch_logits, batch_rows in predict(model, dataset["image"], **options):
        logits.append(batch_logits)
        rows.append(batch_rows)
        after()
    if not rows:
        raise ValueError("no image of the dataset could be read")
    predictions = np.concatenate(logits)
    labels = np.asarray(dataset["label"], np.int32)[np.concatenate(rows)]
    losses = -np.take_along_axis(log_softmax(predictions, axis=-1), labels[:, None], axis=-1)[:, 0]
    return predictions, losses, labels


def as_numbers(metrics: Any) -> dict[str, Any]:
    """The dict that `compute_metrics` returned, with numbers of NumPy and JAX converted to Python's.

    Raises ConfigError if it is no dict, and, naming the metric, for a value that is no number.
    """
    if not isinstance(metrics, Mapping):
        raise ConfigError("compute_metrics", type(metrics).__name__, "must return a dict of numbers by name")
    numbers: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, np.generic | np.ndarray | jax.Array) and value.size == 1:
            value = value.item()
        if not isinstance(value, int | float):
            rule = f"must return numbers by name, but {name!r} is {shorten(value)}"
            raise ConfigError("compute_metrics", type(value).__name__, rule)
        numbers[str(name)] = value
    return numbers


def as_json(field: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A dict as JSON keeps it, with numbers and arrays of NumPy and JAX converted to Python's.

    Raises ConfigError, naming `field` and the value by its name, for what JSON cannot keep.
    """
    kept = {}
    for name, value in values.items():
        try:
            kept[name] = json.loads(json.dumps(value, default=lambda array: array.tolist()))
        except (AttributeError, TypeError, ValueError, RecursionError) as error:
            raise ConfigError(field, shorten(value), f"{name!r} must be a number, or what JSON can keep") from error
    return kept


class BadImages:
    """A record of the images that cannot be read. Each counts once and is logged; more than `limit` are an error."""

    def __init__(self, limit: int):
        self.names: list[str] = []  # paths, or row numbers for images without a path
        self.empty_steps: set[int] = set()  # the updates of the current training without a readable image
        self._limit, self._rows = limit, dict[tuple[str, int, str], None]()  # role, row and name, in order

    def note(self, dataset: Any, rows: Iterable[int], role: str) -> None:
        """Record rows whose images cannot be read; `role` is the purpose of the dataset, such as "train".

        Raises BadImageError if more than `limit` images of this role cannot be read.
        """
        for row in rows:
            name = row_name(dataset[row]["image"], row)
            if (role, row, name) in self._rows:
                continue
            self._add(role, row, name)
            _log.warning("%s: cannot be read as an image, and is left out of %s (%d)", name, role, len(self.names))
        if len(names := self.of(role)) > self._limit:
            rule = f"more than max_bad_images={self._limit} images of {role} cannot be read, the last is"
            raise BadImageError(f"{rule} {names[-1]}")

    def of(self, role: str) -> list[str]:
        """The names of the broken images of one role."""
        return [name for image_role, _, name in self._rows if image_role == role]

    def export(self, state: TrainerState) -> None:
        """Write the rows of the training data and the empty steps into a trainer's state, for a resumed run."""
        rows = [row for role, row, _ in self._rows if role == "train"]
        if rows:  # row numbers, because paths differ between machines
            kept = {"train": rows, "empty_steps": sorted(self.empty_steps)}
            state.stateful_callbacks |= {_STATE_NAME: kept}  # pyright: ignore

    def restore(self, dataset: Any, state: TrainerState) -> None:
        """Read the rows of the training data and the empty steps from the trainer's state of a resumed run."""
        states: Any = state.stateful_callbacks
        kept = states.get(_STATE_NAME, {})
        self.empty_steps = set(kept.get("empty_steps", []))
        for row in kept.get("train", []):
            name = row_name(dataset[row]["image"], row)
            if ("train", row, name) not in self._rows:
                self._add("train", row, name)

    def _add(self, role: str, row: int, name: str) -> None:
        self._rows[role, row, name] = None
        self.names.append(name)
