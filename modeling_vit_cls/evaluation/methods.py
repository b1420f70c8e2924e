"""Evaluation of a backbone without training it: kNN, retrieval or a probe, for each of its readouts."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from ..errors import ConfigError, shorten
from ..images.classes import class_name
from .benchmark import classification_results
from .features import Features
from .metrics import load_metrics
from .neighbours import images_to_find, knn, retrieval
from .probe import Probe, fit_probe

Method = Literal["knn", "retrieval", "probe"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureMeasurements:
    """What a method measured.

    Attributes:
        readout: the readout of the headline: for a probe the best on held-out training rows, else the backbone's own.
        by_readout: metrics of each readout.
        found: the part for `results`: metrics of the headline, number of examples, throughput.
        probe: the probe of the headline; None for other methods.
    """

    readout: str
    by_readout: dict[str, dict[str, float]]
    found: dict[str, Any]
    probe: Probe | None = None


def evaluate_features(
    method: Method,
    train: Features,
    test: Features | None,
    metrics: Sequence[str] | None = None,
    *,
    disable_tqdm: bool | None = False,
) -> FeatureMeasurements:
    """Evaluate the features of each readout.

    Args:
        method: "knn", "retrieval" or "probe".
        train: features to search in, or to fit the probe to.
        test: features to measure. None for "retrieval" searches for each image of `train` among the others.
        metrics: metrics of a probe, as in `benchmark`.
        disable_tqdm: True shows no progress bar of the probes; None shows it in a terminal only.

    Raises ConfigError for splits with other classes than each other, for metrics of another method than "probe", and as
    `knn`, `retrieval` and `fit_probe` do.
    """
    if method not in get_args(Method):
        raise ConfigError("method", method, f"must be one of {', '.join(map(repr, get_args(Method)))}")
    if method != "probe" and metrics is not None:
        raise ConfigError("metrics", list(metrics), f"must be left out: the method {method!r} has its own")
    if test is None and method != "retrieval":
        rule = f"is the training split too, and the method {method!r} would know its images: give another split"
        raise ConfigError("split", None, rule)
    measured, leave_one_out = test or train, test is None
    measured = replace(measured, labels=_numbers(measured, train)[measured.labels], names=train.names)
    examples = {"examples": len(measured.labels), "throughput": measured.throughput}
    examples |= {"skipped": measured.skipped} if measured.skipped else {}
    if method == "probe":
        return _probe(train, measured, metrics, examples, disable_tqdm)
    if method == "retrieval":
        without = int((images_to_find(train.labels, measured.labels, leave_one_out) <= 0).sum())
        if without:
            rule = "are left out, because there is no other image of their class to find"
            _log.warning("%d of the %d images to search for %s", without, len(measured.labels), rule)
        examples["examples"] -= without
    by_readout = {}
    for readout in train.readouts:
        arguments = train.of(readout), train.labels, measured.of(readout), measured.labels
        by_readout[readout] = knn(*arguments) if method == "knn" else retrieval(*arguments, leave_one_out)
    readout = train.readouts[0]
    return FeatureMeasurements(readout, by_readout, {"metrics": by_readout[readout], **examples})


def _probe(
    train: Features,
    test: Features,
    metrics: Sequence[str] | None,
    examples: dict[str, Any],
    disable_tqdm: bool | None,
) -> FeatureMeasurements:
    loaded = load_metrics(metrics, len(train.names))  # a wrong name is an error before the long work
    probes = {}
    for readout in train.readouts:
        title = f"probe of {readout}"
        vectors = train.of(readout)
        probes[readout] = fit_probe(vectors, train.labels, train.names, title=title, disable_tqdm=disable_tqdm)
    results = {
        readout: classification_results(loaded, probe.probabilities(test.of(readout)), test.labels)
        for readout, probe in probes.items()
    }
    best = max(probes, key=lambda readout: probes[readout].held_out_accuracy)
    by_readout = {readout: found["metrics"] for readout, found in results.items()}
    return FeatureMeasurements(best, by_readout, {**results[best], **examples, "readout": best}, probes[best])


def _numbers(test: Features, train: Features) -> np.ndarray:
    """The training split's number of each class of the test split, (K,), matched by name."""
    numbers = {class_name(name): number for number, name in enumerate(train.names)}
    unknown = [name for name in test.names if class_name(name) not in numbers]
    if unknown:
        rule = f"are not among the classes of the training split: {shorten(train.names, 200)}"
        raise ConfigError("classes", unknown, rule)
    return np.asarray([numbers[class_name(name)] for name in test.names])
