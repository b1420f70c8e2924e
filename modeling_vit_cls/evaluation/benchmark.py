"""Benchmark of a classifier over a labelled dataset: metrics, confusion matrix and throughput."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..images.classes import match_classes
from ..images.processor import ViTClsImageProcessor
from ..images.sources import OnBadImage, class_names, labelled
from ..modeling_vit_cls import FlaxViTClsForImageClassification
from ..scores import refuse_unless_single_label, scores_of
from .forward import forward_pass
from .metrics import DEFAULT_METRICS, EvaluationModule, compute_metrics, load_metrics

_MAX_CLASSES = 100  # a larger confusion matrix is hard to read


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
    for a broken image, FloatingPointError for logits that are not finite.
    """
    _check(model)
    id2label: Any = model.config.id2label
    dataset = labelled(dataset, id2label=id2label)
    classes = match_classes(class_names(dataset), id2label)
    labels = classes[np.asarray(dataset["label"])]
    loaded = load_metrics(metrics, len(id2label))  # a wrong name is an error before the long work
    measured = forward_pass(
        model,
        dataset,
        take=lambda outputs: outputs.logits,
        each=_probabilities,
        processor=processor,
        batch_size=batch_size,
        on_bad_image=on_bad_image,
        disable_tqdm=disable_tqdm,
    )
    probabilities, rows = np.concatenate(measured.batches), measured.rows
    skipped = {"skipped": len(dataset) - len(rows)} if len(rows) < len(dataset) else {}
    results = classification_results(loaded, probabilities, labels[rows])
    return {**results, **skipped, "throughput": measured.throughput}


def classification_results(
    metrics: Mapping[str, EvaluationModule], probabilities: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """Metrics, number of examples and confusion matrix of probabilities (N, K) and true classes (N,)."""
    classes = probabilities.shape[1]
    results: dict[str, Any] = {"metrics": compute_metrics(metrics, probabilities, labels), "examples": len(labels)}
    if classes <= _MAX_CLASSES:
        results["confusion_matrix"] = confusion_matrix(probabilities.argmax(axis=1), labels, classes).tolist()
    return results


def confusion_matrix(predictions: np.ndarray, references: np.ndarray, classes: int) -> np.ndarray:
    """Confusion matrix: predicted and true classes (N,) -> counts (K, K), a row for each true class."""
    return np.bincount(references * classes + predictions, minlength=classes**2).reshape(classes, classes)


def _check(model: Any) -> None:
    if not isinstance(model, FlaxViTClsForImageClassification):
        raise ConfigError("model", type(model).__name__, "must be a FlaxViTClsForImageClassification")
    refuse_unless_single_label(model.config, "a benchmark")


def _probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax: logits (n, K) -> probabilities (n, K) float32."""
    return scores_of(logits.astype(np.float64), "softmax").astype(np.float32)
