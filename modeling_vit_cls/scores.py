"""From logits to scores, as transformers' image-classification pipeline makes them."""

from typing import Any

import numpy as np

from .errors import ConfigError

FUNCTIONS = ("sigmoid", "softmax", "none")


def function_of(config: Any, function_to_apply: str | None = None) -> str:
    """What makes scores of a model's logits: what is asked for, or what its `problem_type` and labels say.

    Several labels at once, and a single one, have a probability each (sigmoid); of a regression the logits are the
    values; else the labels share one (softmax).
    """
    if function_to_apply not in (None, "default"):
        if str(function_to_apply).lower() not in FUNCTIONS:
            rule = f"must be one of {', '.join(map(repr, FUNCTIONS))}, or None for what the problem_type says"
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
    """Raise ConfigError for a model of several labels at once, or of values: `what` knows one class an image."""
    if config.problem_type not in (None, "single_label_classification"):
        rule = f"{what} takes one class an image: load the model with problem_type=None to take it as such a classifier"
        raise ConfigError("problem_type", config.problem_type, rule)
