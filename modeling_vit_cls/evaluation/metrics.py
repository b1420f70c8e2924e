"""Metrics of classification as `evaluate.Metric`s that need no network; other metrics are loaded by name."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ..errors import ConfigError, shorten
from ..install import needs

try:
    import datasets
    import evaluate
    from evaluate import EvaluationModule
    from sklearn.metrics import accuracy_score, f1_score
except ImportError as error:
    raise needs(str(error.name), "to compute metrics", "train") from error

DEFAULT_METRICS = ("accuracy", "top_5_accuracy", "macro_f1", "nll", "ece")
_BINS = 15  # of the expected calibration error, as in Guo et al. 2017
_MOST_TRIED = 1000  # classes: the examples that a metric is tried on need memory of their square
_SMALLEST = float(np.finfo(np.float32).tiny)


class _Metric(evaluate.Metric):
    """A metric that keeps its examples in memory and computes with NumPy arrays. No examples are an error."""

    predictions: ClassVar[Any]
    inputs: ClassVar[str]

    def __init__(self, keep_in_memory: bool = True, **kwargs: Any):
        super().__init__(keep_in_memory=keep_in_memory, **kwargs)

    def _build_data_dir(self) -> str:  # evaluate makes this folder in Hugging Face's cache, which may be read-only
        return super()._build_data_dir() if not self.keep_in_memory else ""

    def _info(self) -> evaluate.MetricInfo:
        # Class numbers are declared as floats: as an integer, evaluate would round 0.7 down to 0 without an error.
        features = datasets.Features({"predictions": self.predictions, "references": datasets.Value("float64")})
        description = type(self).__doc__ or ""
        info = evaluate.MetricInfo(description, citation="", features=features, inputs_description=self.inputs)
        # Lists would need ten times the memory. Set afterwards, because MetricInfo refuses it for rows of scores.
        info.format = "numpy"
        return info

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> Any:
        """Compute from these predictions and references, or from added ones: {name: number}. ValueError for none."""
        if (self.writer is None) if predictions is None else len(predictions) == 0:
            raise ValueError("there are no examples to compute a metric of")
        return super().compute(predictions=predictions, references=references, **kwargs)

    def _compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, float]:
        if kwargs:
            raise TypeError(f"unknown keywords {sorted(kwargs)}")
        return self._numbers(*self._checked(predictions, references))

    def _checked(self, predictions: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inputs in the types that `_numbers` needs. Raises ValueError for invalid ones."""
        raise NotImplementedError

    def _numbers(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        raise NotImplementedError


class _OfClasses(_Metric):
    predictions = datasets.Value("float64")
    inputs = "predictions, references: class numbers (N,)."

    def _checked(self, predictions: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _classes("predictions", predictions), _classes("references", references)


class _OfScores(_Metric):
    predictions = datasets.Sequence(datasets.Value("float32"))
    inputs = "predictions: a number for each class (N, K); references: class numbers (N,) from 0 to K - 1."

    def _checked(self, predictions: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if predictions.ndim != 2 or predictions.shape[1] == 0:
            raise ValueError("predictions: expected one number for each class, rows of one length")
        if not np.isfinite(predictions).all():
            raise ValueError("predictions: there are NaN or infinite numbers")
        labels, classes = _classes("references", references), predictions.shape[1]
        if labels.max() >= classes:
            raise ValueError(f"references: there is class {labels.max()}, predictions are of {classes} classes")
        return predictions, labels


class _OfProbabilities(_OfScores):
    inputs = "predictions: probabilities (N, K), each row with a sum of 1; references: class numbers (N,)."

    def _checked(self, predictions: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores, labels = super()._checked(predictions, references)
        if scores.min() < 0 or np.abs(scores.sum(axis=1, dtype=np.float64) - 1).max() > 1e-3:
            raise ValueError("predictions: expected probabilities, each row with a sum of 1; apply softmax to logits")
        return scores, labels


class Accuracy(_OfClasses):
    """Share of the examples whose predicted class is the true class."""

    def _numbers(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}


class MacroF1(_OfClasses):
    """Mean over classes of F1, the harmonic mean of precision and recall.

    The classes are those that occur in the predictions or references.
    """

    def _numbers(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"macro_f1": float(f1_score(references, predictions, average="macro"))}


class TopKAccuracy(_OfScores):
    """Share of the examples whose true class is among the k classes with the best scores.

    Of classes with equal scores, the lower number comes first. scikit-learn's function puts the higher number first,
    and does not accept two classes, or k classes or fewer.
    """

    def __init__(self, k: int = 5, **kwargs: Any):
        if not isinstance(k, int) or k < 1:
            raise ConfigError("k", k, "must be a positive integer")
        super().__init__(**kwargs)
        self.k = k

    def _numbers(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        best = np.argsort(-predictions, axis=1, kind="stable")[:, : self.k]
        return {f"top_{self.k}_accuracy": float(np.mean((best == references[:, None]).any(axis=1)))}


class NegativeLogLikelihood(_OfProbabilities):
    """Mean of -ln p in nats, p the probability of the true class; p below 1.2e-38 counts as 1.2e-38.

    scikit-learn's function uses 1.2e-7, the precision of float32, so that a confident error costs less.
    """

    def _numbers(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        likelihood = predictions[np.arange(len(references)), references].astype(np.float64)
        return {"nll": float(-np.mean(np.log(np.maximum(likelihood, _SMALLEST))))}


class ExpectedCalibrationError(_OfProbabilities):
    """Mean |accuracy - confidence| of 15 equal bins of confidence, weighted by size. Guo et al. 2017, equation 3."""

    def _numbers(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        confidence = predictions.max(axis=1).astype(np.float64)
        bins = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
        gaps = np.bincount(bins, weights=(predictions.argmax(axis=1) == references) - confidence)
        return {"ece": float(np.abs(gaps).sum() / len(references))}


METRICS: dict[str, type[_Metric]] = {
    "accuracy": Accuracy,
    "top_5_accuracy": TopKAccuracy,
    "macro_f1": MacroF1,
    "nll": NegativeLogLikelihood,
    "ece": ExpectedCalibrationError,
}


def load_metric(metric: str | EvaluationModule) -> EvaluationModule:
    """The metric with this name: of `METRICS`, or by `evaluate.load` from a folder, file or Space, whose code is run.

    `evaluate-metric/accuracy` is the accuracy of `evaluate`. Raises ConfigError, naming it, for an unknown metric.
    """
    if isinstance(metric, EvaluationModule):
        return metric
    if metric in METRICS:
        return METRICS[metric]()
    try:
        return evaluate.load(metric)
    except Exception as error:  # other people's code may raise anything
        rule = f"is neither one of {', '.join(METRICS)}, nor a metric that evaluate.load gives ({_reason(error)})"
        raise ConfigError("metrics", metric, rule) from error


def load_metrics(metrics: Sequence[str | EvaluationModule] | None, classes: int) -> dict[Any, EvaluationModule]:
    """Metrics by name, loaded by `load_metric`. The default has no top-5 accuracy for 5 classes or fewer.

    Raises ConfigError, naming the metric, for one that cannot be computed of so many classes: it is tried on made-up
    examples, because the real ones come after hours.
    """
    names = DEFAULT_METRICS if metrics is None else tuple(metrics)
    loaded = {name: load_metric(name) for name in (default_metrics(classes) if names == DEFAULT_METRICS else names)}
    if not loaded.keys() <= METRICS.keys() and classes <= _MOST_TRIED:
        _check_computable(loaded, classes)
    return loaded


def default_metrics(classes: int) -> tuple[str, ...]:
    """The names of `DEFAULT_METRICS` that mean something for a number of classes."""
    return tuple(name for name in DEFAULT_METRICS if classes > 5 or name != "top_5_accuracy")


def compute_metrics(
    metrics: Mapping[str, EvaluationModule], probabilities: np.ndarray, references: np.ndarray
) -> dict[str, float]:
    """Compute metrics from probabilities (N, K) and true classes (N,): {name: number}.

    A metric whose predictions are rows gets the probabilities, any other one the most probable classes. Raises
    ConfigError, naming the metric, if it fails, or returns a number that is not finite or has a name of another metric.
    """
    results: dict[str, float] = {}
    for name, metric in metrics.items():
        for key, number in _numbers(name, metric, probabilities, references).items():
            if key in results or not np.isfinite(number):
                raise _unexpected(name, key, number)
            results[key] = number
    return results


def _check_computable(metrics: Mapping[Any, EvaluationModule], classes: int) -> None:
    """Compute metrics of two made-up examples of each class, of which one is classified right and one wrong.

    Raises the ConfigError of `compute_metrics`; not for a number that is not finite or a division by zero, which other
    examples may not give.
    """
    labels = np.tile(np.arange(classes), 2)
    predictions = np.concatenate([np.arange(classes), np.roll(np.arange(classes), 1)])
    probabilities = 0.75 * np.eye(classes, dtype=np.float32)[predictions] + np.float32(0.25 / classes)
    taken: set[str] = set()
    for name, metric in metrics.items():
        try:
            numbers = _numbers(name, metric, probabilities, labels)
        except ConfigError as error:
            if isinstance(error.__cause__, ArithmeticError):
                continue
            raise
        for key in taken & numbers.keys():
            raise _unexpected(name, key, numbers[key])
        taken |= numbers.keys()


def _numbers(
    name: Any, metric: EvaluationModule, probabilities: np.ndarray, references: np.ndarray
) -> dict[str, float]:
    """The numbers of one metric by name. Raises ConfigError, naming the metric, if it fails."""
    inputs = probabilities if _takes_rows(metric) else probabilities.argmax(axis=1)
    try:
        numbers: Any = metric.compute(predictions=inputs, references=references)
        return {key: float(value) for key, value in numbers.items()}
    except Exception as error:  # other people's code may raise anything
        raise ConfigError("metrics", name, f"cannot be computed here ({_reason(error)})") from error


def _unexpected(name: Any, key: str, number: float) -> ConfigError:
    return ConfigError("metrics", name, f"gives {key}={number}, expected one finite number of that name")


def _takes_rows(metric: EvaluationModule) -> bool:
    """Whether a prediction of this metric is a row of numbers, not one class."""
    options = metric.features if isinstance(metric.features, list) else [metric.features]
    return not any(isinstance(option.get("predictions"), datasets.Value) for option in options)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {shorten(lines[0], 300)[1:-1]}" if lines else type(error).__name__


def _classes(name: str, numbers: np.ndarray) -> np.ndarray:
    """Class numbers (N,) as integers. Raises ValueError for negative numbers, fractions and NaN."""
    if not (np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all() and numbers.min() >= 0):
        raise ValueError(f"{name}: expected class numbers, 0 or above; there are others, fractions or NaN")
    return numbers.astype(np.int64)
