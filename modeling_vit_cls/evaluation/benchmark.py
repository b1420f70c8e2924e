"""Benchmark of a classifier over a labelled dataset: metrics, confusion matrix and throughput."""

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
_MAX_CLASSES = 100  # a larger confusion matrix is hard to read
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
    """Evaluate a classifier on a dataset. Returns a dict with metrics, confusion matrix and throughput.

    Each example counts once. `confusion_matrix[i][j]` is the number of images of class i that were classified as j, by
    the model's class numbers; it is left out for more than 100 classes. The time of the throughput covers decoding,
    preprocessing and the forward pass. Compilation is not included: it is done before, on blank images.

    Args:
        model: the classifier.
        dataset: a `datasets.Dataset` with a column of images and one of classes.
        processor: the image processor; default: the model's.
        metrics: names, or metrics of `evaluate` (see `load_metric`). The default has no top-5 accuracy for 5 classes or
            fewer.
        batch_size: number of images in a batch.
        on_bad_image: "skip" leaves broken images out, logs each, and counts them as "skipped"; "raise" stops.
        disable_tqdm: True shows no progress bar; None shows it in a terminal only.

    Raises ConfigError for a dataset with other classes than the model or with examples without a class, BadImageError
    for a broken image, ValueError for logits that are not finite.
    """
    _check(model, batch_size, on_bad_image)
    id2label: Any = model.config.id2label
    dataset = labelled(dataset, id2label=id2label)
    classes = match_classes(class_names(dataset), id2label)
    labels = classes[np.asarray(dataset["label"])]
    if tuple(metrics) == DEFAULT_METRICS and len(id2label) <= 5:
        metrics = [name for name in metrics if name != "top_5_accuracy"]
    loaded = {name: load_metric(name) for name in metrics}  # a wrong name is an error before the long work

    processor = processor or model.image_processor
    check_processor(model, processor, "processor")
    if processor.output_hw is None:  # the size depends on the image
        batch_size = 1
    options: dict[str, Any] = {"processor": processor, "batch_size": batch_size}
    blank = np.zeros((*model.config.image_hw, 3), np.uint8)
    for _ in predict(model, [blank] * min(len(dataset), 2), **options):  # compiles for the shape of the batches
        pass

    def leave_out(row: int, error: BadImageError) -> None:
        if on_bad_image == "raise":
            raise unskipped(error) from error
        _log.warning("left out: %s", error)

    probabilities, rows = [], []
    start = time.perf_counter()
    with tqdm(total=len(dataset), unit="image", disable=disable_tqdm) as bar:
        for logits, batch_rows in predict(model, dataset["image"], on_bad_image=leave_out, **options):
            probabilities.append(_probabilities(logits, batch_rows))
            rows.append(batch_rows)
            bar.update(len(batch_rows))
    seconds = time.perf_counter() - start
    if not rows:
        raise BadImageError(f"none of the {len(dataset)} images can be read")
    probabilities, rows = np.concatenate(probabilities), np.concatenate(rows)
    labels = labels[rows]

    results: dict[str, Any] = {"metrics": compute_metrics(loaded, probabilities, labels), "examples": len(rows)}
    if len(rows) < len(dataset):
        results["skipped"] = len(dataset) - len(rows)
    if len(id2label) <= _MAX_CLASSES:
        results["confusion_matrix"] = confusion_matrix(probabilities.argmax(axis=1), labels, len(id2label)).tolist()
    speed = {"images_per_second": len(rows) / seconds, "batch_size": batch_size, "dtype": jnp.dtype(model.dtype).name}
    return {**results, "throughput": {**speed, "includes": "decode, preprocess, forward"}}


def confusion_matrix(predictions: np.ndarray, references: np.ndarray, classes: int) -> np.ndarray:
    """Confusion matrix: predicted and true classes (N,) -> counts (K, K), a row for each true class."""
    return np.bincount(references * classes + predictions, minlength=classes**2).reshape(classes, classes)


def _check(model: Any, batch_size: Any, on_bad_image: Any) -> None:
    if not isinstance(model, FlaxViTClsForImageClassification):
        raise ConfigError("model", type(model).__name__, "must be a FlaxViTClsForImageClassification")
    refuse_unless_single_label(model.config, "a benchmark")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError("batch_size", batch_size, "must be a positive integer")
    check_on_bad_image(on_bad_image)


def _probabilities(logits: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Softmax: logits (n, K) -> probabilities (n, K) float32. Raises ValueError, naming the row, if not finite."""
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        remedy = "look at the model's weights, or compute in float32"
        raise ValueError(f"logits of example {rows[~finite][0]} of the dataset are NaN or infinite: {remedy}")
    return scores_of(logits.astype(np.float64), "softmax").astype(np.float32)
