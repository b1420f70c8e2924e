"""A classifier over a labelled dataset: metrics, the confusion matrix and images per second."""

import logging
import time
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..errors import BadImageError, ConfigError
from ..images.classes import match_classes
from ..images.processor import ViTClsImageProcessor
from ..images.rows import unskipped
from ..images.sources import OnBadImage, check_on_bad_image, class_names, labelled
from ..install import needs
from ..modeling_vit_cls import FlaxViTClsForImageClassification
from ..predict import predict
from ..pretrained.processor_fit import check_processor
from ..scores import refuse_unless_single_label, scores_of
from .metrics import compute_metrics, load_metric

try:
    from tqdm.auto import tqdm
except ImportError as error:
    raise needs("tqdm", "to show progress", "train") from error

DEFAULT_METRICS = ("accuracy", "top_5_accuracy", "macro_f1", "nll", "ece")
_MOST_CLASSES = 100  # of a confusion matrix that one can look at
_log = logging.getLogger(__name__)


def benchmark(
    model: FlaxViTClsForImageClassification,
    dataset: Any,
    *,
    processor: ViTClsImageProcessor | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    batch_size: int = 32,
    on_bad_image: OnBadImage = "raise",
    disable_tqdm: bool | None = False,
) -> dict[str, Any]:
    """A dataset with a column of images and one of classes -> metrics, confusion matrix and throughput.

    Every example counts once. `confusion_matrix[i][j]` counts images of class i that were taken for j, in the model's
    numbering, and is there for up to 100 classes. Throughput is from the first decoded image to the last logits; the
    compiling, on a blank batch before, is not in it.

    Args:
        processor: default: the one that came with the model.
        metrics: names as `load_metric` takes them. The default leaves out the top 5 of 5 classes or fewer.
        on_bad_image: "skip" leaves broken images out, logs each, and counts them as "skipped".
        disable_tqdm: no progress bar; None for none where there is no terminal.

    Raises ConfigError for a dataset that has other classes than the model, or examples without one, BadImageError for
    a broken image, ValueError for logits that are not finite.
    """
    _check(model, batch_size, on_bad_image)
    id2label: Any = model.config.id2label
    dataset = labelled(dataset, id2label=id2label)
    classes = match_classes(class_names(dataset), id2label)
    labels = classes[np.asarray(dataset["label"])]
    if tuple(metrics) == DEFAULT_METRICS and len(id2label) <= 5:
        metrics = [name for name in metrics if name != "top_5_accuracy"]
    loaded = {name: load_metric(name) for name in metrics}  # before the long work: a name may be wrong

    processor = processor or model.image_processor
    check_processor(model, processor, "processor")
    if processor.output_hw is None:  # each image has a size of its own
        batch_size = 1
    how: dict[str, Any] = {"processor": processor, "batch_size": batch_size}
    blank = np.zeros((*model.config.image_hw, 3), np.uint8)
    for _ in predict(model, [blank] * min(len(dataset), 2), **how):  # compiles for the shape of the dataset's batches
        pass

    def leave_out(row: int, error: BadImageError) -> None:
        if on_bad_image == "raise":
            raise unskipped(error) from error
        _log.warning("left out: %s", error)

    probabilities, rows = [], []
    start = time.perf_counter()
    with tqdm(total=len(dataset), unit="image", disable=disable_tqdm) as bar:
        for logits, numbers in predict(model, dataset["image"], on_bad_image=leave_out, **how):
            probabilities.append(_probabilities(logits, numbers))
            rows.append(numbers)
            bar.update(len(numbers))
    seconds = time.perf_counter() - start
    if not rows:
        raise BadImageError(f"none of the {len(dataset)} images can be read")
    probabilities, rows = np.concatenate(probabilities), np.concatenate(rows)
    labels = labels[rows]

    found: dict[str, Any] = {"metrics": compute_metrics(loaded, probabilities, labels), "examples": len(rows)}
    if len(rows) < len(dataset):
        found["skipped"] = len(dataset) - len(rows)
    if len(id2label) <= _MOST_CLASSES:
        found["confusion_matrix"] = confusion_matrix(probabilities.argmax(axis=1), labels, len(id2label)).tolist()
    speed = {"images_per_second": len(rows) / seconds, "batch_size": batch_size, "dtype": jnp.dtype(model.dtype).name}
    return {**found, "throughput": {**speed, "includes": "decode, preprocess, forward"}}


def confusion_matrix(predictions: np.ndarray, references: np.ndarray, classes: int) -> np.ndarray:
    """Predicted and true classes (N,) -> counts (K, K), a row for each true class."""
    return np.bincount(references * classes + predictions, minlength=classes**2).reshape(classes, classes)


def _check(model: Any, batch_size: Any, on_bad_image: Any) -> None:
    if not isinstance(model, FlaxViTClsForImageClassification):
        raise ConfigError("model", type(model).__name__, "must be a FlaxViTClsForImageClassification")
    refuse_unless_single_label(model.config, "a benchmark")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError("batch_size", batch_size, "must be a positive integer")
    check_on_bad_image(on_bad_image)


def _probabilities(logits: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Logits (n, K) of these rows of the dataset -> probabilities (n, K) float32. Raises ValueError for NaN."""
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        remedy = "look at the model's weights, or compute in float32"
        raise ValueError(f"logits of example {rows[~finite][0]} of the dataset are NaN or infinite: {remedy}")
    return scores_of(logits.astype(np.float64), "softmax").astype(np.float32)
