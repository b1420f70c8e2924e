"""Metrics of classification as classes of `evaluate` that need no network; any other metric by its name."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ..errors import ConfigError, shorten
from ..install import needs

try:
    import datasets
    import evaluate
    from sklearn.metrics import accuracy_score, f1_score
except ImportError as error:
    raise needs(str(error.name), "to compute metrics", "train") from error

_BINS = 15  # of the calibration error, as in the paper
_SMALLEST = float(np.finfo(np.float32).tiny)


class _Metric(evaluate.Metric):
    """Examples are kept in memory and arrive as arrays; nothing is computed of no examples."""

    predictions: ClassVar[Any]
    inputs: ClassVar[str]

    def __init__(self, keep_in_memory: bool = True, **kwargs: Any):
        super().__init__(keep_in_memory=keep_in_memory, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        # Class numbers as floats: evaluate would cut 0.7 to the integer 0 before it could be refused.
        features = datasets.Features({"predictions": self.predictions, "references": datasets.Value("float64")})
        description = type(self).__doc__ or ""
        info = evaluate.MetricInfo(description, citation="", features=features, inputs_description=self.inputs)
        info.format = "numpy"  # set here because MetricInfo refuses it for rows; lists would take ten times the memory
        return info

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> Any:
        """Predictions and references, or what was added before -> {name: number}. Raises ValueError for none."""
        if (self.writer is None) if predictions is None else len(predictions) == 0:
            raise ValueError("there are no examples to compute a metric of")
        return super().compute(predictions=predictions, references=references, **kwargs)

    def _compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, float]:
        if kwargs:
            raise TypeError(f"unknown keywords {sorted(kwargs)}")
        return self._numbers(*self._checked(predictions, references))

    def _checked(self, predictions: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inputs, as `_numbers` takes them. Raises ValueError for what a metric cannot be computed of."""
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
        right, classes = _classes("references", references), predictions.shape[1]
        if right.max() >= classes:
            raise ValueError(f"references: there is class {right.max()}, predictions are of {classes} classes")
        return predictions, right


class _OfProbabilities(_OfScores):
    inputs = "predictions: probabilities (N, K), each row with a sum of 1; references: class numbers (N,)."

    def _checked(self, predictions: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores, right = super()._checked(predictions, references)
        if scores.min() < 0 or np.abs(scores.sum(axis=1, dtype=np.float64) - 1).max() > 1e-3:
            raise ValueError("predictions: expected probabilities, each row with a sum of 1; apply softmax to logits")
        return scores, right


class Accuracy(_OfClasses):
    """Share of the examples whose predicted class is the right one."""

    def _numbers(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}


class MacroF1(_OfClasses):
    """Mean over the classes that occur, in predictions or references, of the harmonic mean of precision and recall."""

    def _numbers(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"macro_f1": float(f1_score(references, predictions, average="macro"))}


class TopKAccuracy(_OfScores):
    """Share of the examples whose class is among the k best; of equal ones the lower number comes first.

    scikit-learn's takes the higher number first, and has none of two classes, or of k and more.
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
    """Mean of -ln(probability of the right class), in nats; a probability below 1.2e-38 counts as 1.2e-38.

    scikit-learn's raises smaller ones to 1.2e-7, the precision of float32, which makes a sure error cost less.
    """

    def _numbers(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        likelihood = predictions[np.arange(len(references)), references].astype(np.float64)
        return {"nll": float(-np.mean(np.log(np.maximum(likelihood, _SMALLEST))))}


class ExpectedCalibrationError(_OfProbabilities):
    """Mean distance of confidence from accuracy, in 15 equal bins (m/15, (m+1)/15] of confidence (Guo et al. 2017)."""

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


def load_metric(metric: str | evaluate.EvaluationModule) -> evaluate.EvaluationModule:
    """A metric of `METRICS`, or one that `evaluate.load` finds: a folder, a file, a Space, whose code is then run.

    `evaluate-metric/accuracy` is evaluate's own accuracy. Raises ConfigError that names what cannot be had.
    """
    if isinstance(metric, evaluate.EvaluationModule):
        return metric
    if metric in METRICS:
        return METRICS[metric]()
    try:
        return evaluate.load(metric)
    except Exception as error:  # the code of others can fail in every way
        rule = f"is neither one of {', '.join(METRICS)}, nor a metric that evaluate.load gives ({_reason(error)})"
        raise ConfigError("metrics", metric, rule) from error


def compute_metrics(
    metrics: Mapping[str, evaluate.EvaluationModule], probabilities: np.ndarray, references: np.ndarray
) -> dict[str, float]:
    """Metrics by their names, probabilities (N, K), classes (N,) -> all their numbers.

    A metric whose predictions are rows gets the probabilities, any other the most probable classes. Raises ConfigError,
    naming the metric, for one that fails, or gives what is not a number or has been given by another.
    """
    found: dict[str, float] = {}
    for name, metric in metrics.items():
        inputs = probabilities if _takes_rows(metric) else probabilities.argmax(axis=1)
        try:
            numbers: Any = metric.compute(predictions=inputs, references=references)
            numbers = {key: float(value) for key, value in numbers.items()}
        except Exception as error:  # the code of others can fail in every way
            raise ConfigError("metrics", name, f"cannot be computed here ({_reason(error)})") from error
        for key, number in numbers.items():
            if key in found or not np.isfinite(number):
                raise ConfigError("metrics", name, f"gives {key}={number}, expected one finite number of that name")
        found.update(numbers)
    return found


def _takes_rows(metric: evaluate.EvaluationModule) -> bool:
    options = metric.features if isinstance(metric.features, list) else [metric.features]
    return not any(isinstance(option.get("predictions"), datasets.Value) for option in options)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {shorten(lines[0], 300)[1:-1]}" if lines else type(error).__name__


def _classes(name: str, numbers: np.ndarray) -> np.ndarray:
    if not (np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all() and numbers.min() >= 0):
        raise ValueError(f"{name}: expected class numbers, 0 or above; there are others, fractions or NaN")
    return numbers.astype(np.int64)
