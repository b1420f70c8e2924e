"""Checks of a trainer's arguments when it is made, and of a run before its first step."""

import inspect
import logging
import multiprocessing
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from ..errors import ConfigError
from ..files.host import to_host
from ..modeling_vit_cls import FlaxViTClsForImageClassification
from .arguments import TrainingArguments
from .callbacks import check_callbacks
from .foreign import refuse_trainer_keywords, refuse_trainer_methods
from .optimizer import trained

_log = logging.getLogger(__name__)
_MEASURED = ("loss", "accuracy")
_OWN_PARTS = ("readout.attention_pooling", "representation")  # what a load draws anew beside the classifiers


def check_parts(
    trainer: Any, model: Any, args: Any, compute_metrics: Any, callbacks: Any, unknown: Mapping[str, Any]
) -> None:
    """Raise ConfigError, naming it, for an argument of the trainer's constructor of a wrong type, or a method of
    transformers' Trainer."""
    refuse_trainer_methods(trainer)
    refuse_trainer_keywords(unknown, set(inspect.signature(type(trainer)).parameters) - {"unknown"})
    if not isinstance(model, FlaxViTClsForImageClassification):
        raise ConfigError("model", type(model).__name__, "must be a FlaxViTClsForImageClassification")
    if type(model).__call__ is not FlaxViTClsForImageClassification.__call__:
        rule = "has its own __call__, which training does not call: change the module instead, in its module_class"
        raise ConfigError("model", type(model).__name__, rule)
    if not isinstance(args, TrainingArguments):
        type_name = f"{type(args).__module__.partition('.')[0]}.{type(args).__name__}"
        rule = "must be modeling_vit_cls.training.TrainingArguments, which have the same names"
        raise ConfigError("args", type_name, rule)
    if compute_metrics is not None and not callable(compute_metrics):
        raise ConfigError("compute_metrics", compute_metrics, "must be a function of an EvalPrediction")
    if callbacks is not None and not isinstance(callbacks, list | tuple):
        raise ConfigError("callbacks", callbacks, "must be a list of callbacks")


def refuse_in_readers(workers: int) -> None:
    """Raise ConfigError in a process that reads images while it runs the user's script again, which Python lets it do.

    It would train too, and the first process would wait for it without end.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        rule = (
            "each process that reads images runs the script again: put what trains below `if __name__ == '__main__':`"
        )
        raise ConfigError("dataloader_num_workers", workers, f"{rule}, or use 0, and end the first process")


def check_run(trainer: Any) -> None:
    """Raise ConfigError, naming the argument, for a run that would fail later, or train in float16."""
    args = trainer.args
    refuse_trainer_methods(trainer)  # one may have been set since
    if trainer.model.dtype == jnp.float16 and not args.bf16:
        rule = "the model computes in float16, in which small gradients become zero, and losses are not scaled here"
        raise ConfigError("dtype", "float16", f"{rule}: give bf16=True, or load the model in float32")
    if trainer.train_dataset is None:
        raise ConfigError("train_dataset", None, "is needed to train")
    if args.eval_strategy != "no" and trainer.eval_dataset is None:
        raise ConfigError("eval_dataset", None, f"is needed for eval_strategy={args.eval_strategy!r}")
    check_callbacks(trainer.callback_handler, args)
    metric = args.metric_for_best_model.removeprefix("eval_")
    if trainer.compute_metrics is None and args.eval_strategy != "no" and metric not in _MEASURED:
        rule = f"must be one of {', '.join(_MEASURED)}, or one that compute_metrics returns"
        raise ConfigError("metric_for_best_model", args.metric_for_best_model, rule)


def warn_of_random_parts(params: Any) -> None:
    """Warn of a part of the parameters that freeze_backbone leaves as it was drawn at random.

    In such a part all biases are 0 and all scales of norms are 1, which no training leaves so.
    """
    leaves, parts = flatten_dict(params, sep="."), defaultdict(list)
    for name, kind in flatten_dict(trained(params), sep=".").items():
        if kind == "freeze" and name.endswith((".bias", ".scale")):
            parts[next((part for part in _OWN_PARTS if part in name), "the backbone")].append(name)
    for part, names in parts.items():
        if all((to_host(leaves[name]) == float(name.endswith(".scale"))).all() for name in names):
            remedy = "begin with a checkpoint that has it, or train all of the model"
            _log.warning("freeze_backbone leaves %s as it was drawn at random: %s", part, remedy)
