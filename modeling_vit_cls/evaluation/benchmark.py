"""A classifier over a labelled dataset: metrics, the confusion matrix and images per second."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ..data.sources import class_names, open_image
from ..errors import BadImageError, ConfigError, shorten
from ..modeling_vit_cls import FlaxViTClsForImageClassification
from ..processing import ViTClsImageProcessor
from ..scores import refuse_unless_single_label, scores_of
from .metrics import compute_metrics, load_metric

try:
    from tqdm.auto import tqdm
except ImportError as error:
    raise ImportError("tqdm is needed to show progress: pip install 'vit-cls[train]'") from error

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
    on_bad_image: Literal["raise", "skip"] = "raise",
    disable_tqdm: bool | None = False,
) -> dict[str, Any]:
    """A dataset of rows {"image": {"bytes", "path"}, "label"} -> metrics, confusion matrix and throughput.

    Every example counts once. `confusion_matrix[i][j]` counts images of class i that were taken for j, in the model's
    numbering, and is there for up to 100 classes. Throughput is from the first decoded image to the last logits; the
    compiling, on a blank batch before, is not in it.

    Args:
        processor: default: the one that came with the model.
        metrics: names as `load_metric` takes them. The default leaves out the top 5 of 5 classes or fewer.
        on_bad_image: "skip" leaves broken images out, logs each, and counts them as "skipped".
        disable_tqdm: no progress bar; None for none where there is no terminal.

    Raises ConfigError for a dataset that has other classes than the model, BadImageError for a broken image, ValueError
    for logits that are not finite.
    """
    _check(model, dataset, batch_size, on_bad_image)
    id2label: Any = model.config.id2label
    classes = match_classes(class_names(dataset), id2label)
    labels = _labels(dataset, classes)
    if tuple(metrics) == DEFAULT_METRICS and len(classes) <= 5:
        metrics = [name for name in metrics if name != "top_5_accuracy"]
    loaded = {name: load_metric(name) for name in metrics}  # before the long work: a name may be wrong

    c = model.config
    jax.block_until_ready(model(jnp.zeros((batch_size, c.num_channels, *c.image_hw)), return_dict=True).logits)
    start = time.perf_counter()
    batches = _batches(dataset, processor or model.image_processor, model, batch_size, on_bad_image == "skip")
    with tqdm(total=len(dataset), unit="image", disable=disable_tqdm) as bar:
        probabilities, rows = _predict(model, batches, bar)
    seconds = time.perf_counter() - start
    if len(rows) == 0:
        raise BadImageError(f"none of the {len(dataset)} images can be read")
    labels = labels[rows]

    found: dict[str, Any] = {"metrics": compute_metrics(loaded, probabilities, labels), "examples": len(rows)}
    if len(rows) < len(dataset):
        found["skipped"] = len(dataset) - len(rows)
    if len(classes) <= _MOST_CLASSES:
        found["confusion_matrix"] = confusion_matrix(probabilities.argmax(axis=1), labels, len(classes)).tolist()
    speed = {"images_per_second": len(rows) / seconds, "batch_size": batch_size, "dtype": jnp.dtype(model.dtype).name}
    return {**found, "throughput": {**speed, "includes": "decode, preprocess, forward"}}


def match_classes(names: Sequence[str], id2label: Mapping[int, str]) -> np.ndarray:
    """Names of a dataset's classes, names of a model's -> the model's number of each class of the dataset, (K,).

    The names are the same, in any order; a model whose classes were never named ("LABEL_0") is taken by number.
    Raises ConfigError, saying what both are, where they do not fit.
    """
    known = [str(id2label[number]) for number in range(len(id2label))]
    if len(names) != len(known):
        rule = f"the dataset has {len(names)} classes, the model {len(known)}: {shorten(known, 200)}"
        raise ConfigError("classes", list(names), rule)
    if list(names) == known or known == [f"LABEL_{number}" for number in range(len(known))]:
        return np.arange(len(known))
    if sorted(names) != sorted(known) or len(set(known)) < len(known):
        rule = "the dataset's classes are not the model's by name, and those may not be numbered alike"
        remedy = "pass the model an id2label with the dataset's names, or rename those"
        raise ConfigError("classes", list(names), f"{rule}: {shorten(known, 200)}; {remedy}")
    numbers = {name: number for number, name in enumerate(known)}
    return np.asarray([numbers[name] for name in names])


def confusion_matrix(predictions: np.ndarray, references: np.ndarray, classes: int) -> np.ndarray:
    """Predicted and true classes (N,) -> counts (K, K), a row for each true class."""
    return np.bincount(references * classes + predictions, minlength=classes**2).reshape(classes, classes)


def _check(model: Any, dataset: Any, batch_size: Any, on_bad_image: Any) -> None:
    if not isinstance(model, FlaxViTClsForImageClassification):
        raise ConfigError("model", type(model).__name__, "must be a FlaxViTClsForImageClassification")
    refuse_unless_single_label(model.config, "a benchmark")
    if len(dataset) == 0:
        raise ConfigError("dataset", dataset, "has no examples")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError("batch_size", batch_size, "must be a positive integer")
    if on_bad_image not in ("raise", "skip"):
        raise ConfigError("on_bad_image", on_bad_image, "must be 'raise' or 'skip'")


def _labels(dataset: Any, classes: np.ndarray) -> np.ndarray:
    """Labels in the model's numbering, (N,)."""
    found = [-1 if label is None else label for label in dataset["label"]]
    if min(found) < 0:
        rule = f"{sum(label < 0 for label in found)} of its {len(found)} examples have no label: take another split"
        raise ConfigError("dataset", dataset, rule)
    return classes[np.asarray(found)]


def _batches(
    dataset: Any, processor: ViTClsImageProcessor, model: FlaxViTClsForImageClassification, batch_size: int, skip: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of pixels (B, C, H, W), all of one size, and the rows that fill them, (n,) with n up to B."""
    shape = (model.config.num_channels, *model.config.image_hw)

    def prepare(image: Mapping[str, Any]) -> np.ndarray | None:
        try:
            pixels = processor(open_image(image))["pixel_values"][0]
            if pixels.shape != shape:
                rule = f"the model takes pixels (C, H, W) = {shape}, the processor gives {pixels.shape}"
                raise BadImageError(f"{image['path']}: {rule}")
            return pixels
        except BadImageError as error:
            if not skip:
                raise
            _log.warning("left out: %s", error)
            return None

    with ThreadPoolExecutor() as threads:
        for start in range(0, len(dataset), batch_size):
            found = list(threads.map(prepare, dataset[start : start + batch_size]["image"]))
            good = [number for number, pixels in enumerate(found) if pixels is not None]
            batch = np.zeros((batch_size, *shape), np.float32)
            for place, number in enumerate(good):
                batch[place] = found[number]
            yield batch, start + np.asarray(good, int)


def _predict(model: Any, batches: Iterator[tuple[np.ndarray, np.ndarray]], bar: Any) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, K) float32 and their rows (N,). One batch is decoded while the one before is computed."""
    computing = ((model(pixels, return_dict=True).logits, filled) for pixels, filled in batches)
    probabilities, rows = [], []
    started: Iterator[Any] = chain(computing, [None])
    for (logits, filled), _ in pairwise(started):  # the next one is computed while this one is waited for
        values = np.asarray(logits, np.float64)[: len(filled)]
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            remedy = "look at the model's weights, or compute in float32"
            raise ValueError(f"logits of example {filled[~finite][0]} of the dataset are NaN or infinite: {remedy}")
        probabilities.append(scores_of(values, "softmax").astype(np.float32))
        rows.append(filled)
        bar.update(len(filled))
    return np.concatenate(probabilities), np.concatenate(rows)
