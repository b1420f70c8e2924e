"""From arguments to an optax optimiser: schedule, decay of kernels alone, layer-wise rates, frozen backbone."""

import math
import re
from typing import Any

import jax
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from ..errors import ConfigError
from ..nn.scan import is_stacked
from .arguments import TrainingArguments


def make_schedule(arguments: TrainingArguments, total_steps: int) -> optax.Schedule:
    """Learning rate by number of updates: linear warm-up, then the decay to zero at the last."""
    warmup = arguments.warmup_steps
    warmup = math.ceil(total_steps * warmup) if warmup < 1 else int(warmup)  # as transformers
    rate, left = arguments.learning_rate, max(total_steps - warmup, 1)
    after = {
        "constant": optax.constant_schedule(rate),
        "linear": optax.linear_schedule(rate, 0.0, left),
        "cosine": optax.cosine_decay_schedule(rate, left),
    }[arguments.lr_scheduler_type]
    return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), after], [warmup]) if warmup else after


def make_optimizer(arguments: TrainingArguments, params: Any, total_steps: int) -> optax.GradientTransformation:
    """The optimiser for a tree of parameters; gradients are clipped in the step, where their norm is measured."""
    schedule = make_schedule(arguments, total_steps)
    decay = arguments.weight_decay
    first, second, epsilon = arguments.adam_beta1, arguments.adam_beta2, arguments.adam_epsilon
    if arguments.optim == "adamw":
        optimizer = optax.adamw(schedule, first, second, epsilon, weight_decay=decay, mask=kernels)
    elif arguments.optim == "sgd":
        sgd = optax.sgd(schedule, momentum=first or None, nesterov=first > 0)
        optimizer = optax.chain(optax.add_decayed_weights(decay, kernels), sgd)
    else:  # set after the arguments were checked
        raise ConfigError("optim", arguments.optim, "must be 'adamw' or 'sgd'")
    if arguments.layer_decay < 1:
        rates = layer_rates(params, arguments.layer_decay)
        by_layer = optax.stateless(lambda updates, _: jax.tree.map(lambda update, rate: update * rate, updates, rates))
        optimizer = optax.chain(optimizer, by_layer)
    if arguments.freeze_backbone:
        optimizer = optax.multi_transform({"train": optimizer, "freeze": optax.set_to_zero()}, trained)
    return optimizer


def kernels(params: Any) -> Any:
    """True for kernels: what weight decay acts on; not norms, biases, tokens, positions (Dosovitskiy et al. 2021)."""
    return _by_name(params, lambda name: name.endswith("kernel"))


def trained(params: Any) -> Any:
    """What a linear probe trains, "train" for the classifiers, and "freeze" for all else."""
    return _by_name(params, lambda name: "train" if re.match(r"(distillation_)?classifier\.", name) else "freeze")


def layer_rates(params: Any, decay: float) -> Any:
    """Factor of each parameter's learning rate (Bao et al. 2022, BEiT, appendix): 1 for what follows the blocks.

    A block's factor is `decay` times that of the one above it, the embeddings' is `decay` times the first block's.
    """
    leaves: dict[str, Any] = flatten_dict(params, sep=".")
    depth = 1 + max((int(found[1]) for name in leaves if (found := re.search(r"layer_(\d+)", name))), default=-1)

    def rate(name: str) -> Any:
        if is_stacked(name):
            leaf = leaves[name]
            rates = decay ** (depth - np.arange(len(leaf), dtype=np.float32))
            return rates.reshape(-1, *[1] * (leaf.ndim - 1))
        if block := re.search(r"layer_(\d+)", name):
            return decay ** (depth - int(block[1]))
        return decay ** (depth + 1) if re.search(r"(^|\.)(embeddings|pre_norm)\.", name) else 1.0

    return _by_name(params, rate)


def _by_name(params: Any, value: Any) -> Any:
    return unflatten_dict({name: value(name) for name in flatten_dict(params, sep=".")}, sep=".")
