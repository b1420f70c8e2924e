"""From logits to scores, as transformers' image-classification pipeline makes them; vectors of length 1."""

from typing import Any

import numpy as np

from .errors import ConfigError

FUNCTIONS = ("sigmoid", "softmax", "none")


def function_of(config: Any, function_to_apply: str | None = None) -> str:
    """Name of the function from logits to scores: `function_to_apply`, or chosen by the config's `problem_type`.

    "sigmoid" for multi-label models and models with one label, "none" for regression, else "softmax". Raises
    ConfigError for a name that is not in `FUNCTIONS`.
    """
    if function_to_apply not in (None, "default"):
        if str(function_to_apply).lower() not in FUNCTIONS:
            rule = f"must be one of {', '.join(map(repr, FUNCTIONS))}, or None to choose it by the problem_type"
            raise ConfigError("function_to_apply", function_to_apply, rule)
        return str(function_to_apply).lower()
    if config.problem_type == "regression":
        return "none"
    return "sigmoid" if config.problem_type == "multi_label_classification" or config.num_labels == 1 else "softmax"


def scores_of(logits: Any, function: str) -> np.ndarray:
    """Logits (..., K) -> scores (..., K) of the same type, by one of `FUNCTIONS`."""
    logits = np.asarray(logits)
    if function == "none":
        return logits
    if function == "sigmoid":
        return np.exp(-np.logaddexp(0, -logits))
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def refuse_unless_single_label(config: Any, what: str) -> None:
    """Raise ConfigError, naming `what`, for multi-label and regression models: it needs one class per image."""
    if config.problem_type not in (None, "single_label_classification"):
        rule = f"{what} needs one class per image: load the model with problem_type=None to use it as such a classifier"
        raise ConfigError("problem_type", config.problem_type, rule)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., F) of any scale -> float32 of length 1; a vector of zeros becomes NaN, for it has no direction."""
    exact = np.asarray(vectors, np.float64)
    with np.errstate(invalid="ignore"):
        return (exact / np.linalg.norm(exact, axis=-1, keepdims=True)).astype(np.float32)
