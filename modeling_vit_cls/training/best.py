"""The best evaluation of a run so far."""

import logging
import math

from transformers import TrainerState

from ..errors import ConfigError
from .arguments import TrainingArguments

_log = logging.getLogger(__name__)


def is_best(state: TrainerState, arguments: TrainingArguments, metrics: dict[str, float]) -> bool:
    """Whether an evaluation is the best of the run. If so, its value and step are stored in `state`.

    NaN is never the best. Of two equal ones, that with the lower loss is. Raises ConfigError if the metric is missing.
    """
    name = "eval_" + arguments.metric_for_best_model.removeprefix("eval_")
    if name not in metrics:
        rule = f"must be one of {', '.join(sorted(metrics))}"
        raise ConfigError("metric_for_best_model", arguments.metric_for_best_model, rule)
    value, best = metrics[name], state.best_metric
    if math.isnan(value):
        _log.warning("step %d: %s is NaN, which is never the best", state.global_step, name)
        return False
    tied = value == best and metrics["eval_loss"] < loss_at(state, state.best_global_step)
    if best is None or tied or (value > best if arguments.greater_is_better else value < best):
        state.best_metric, state.best_global_step = value, state.global_step
        return True
    return False


def loss_at(state: TrainerState, step: int | None) -> float:
    """The loss of the evaluation at a step, from the log; infinity without such an evaluation."""
    losses = [entry["eval_loss"] for entry in state.log_history if entry["step"] == step and "eval_loss" in entry]
    return losses[-1] if losses else math.inf
