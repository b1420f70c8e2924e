"""The optax optimiser for training arguments: schedule, weight decay of kernels, layer-wise rates, frozen backbone."""

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
    """The learning rate as a function of the number of updates: linear warm-up, then constant or decay to zero."""
    warmup = arguments.warmup_steps
    warmup = math.ceil(total_steps * warmup) if warmup < 1 else int(warmup)  # as in transformers
    rate, decay_steps = arguments.learning_rate, max(total_steps - warmup, 1)
    decay = {
        "constant": optax.constant_schedule(rate),
        "linear": optax.linear_schedule(rate, 0.0, decay_steps),
        "cosine": optax.cosine_decay_schedule(rate, decay_steps),
    }[arguments.lr_scheduler_type]
    return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), decay], [warmup]) if warmup else decay


def make_optimizer(arguments: TrainingArguments, params: Any, total_steps: int) -> optax.GradientTransformation:
    """The optimiser for a tree of parameters. It does not clip gradients: the training step does."""
    schedule = make_schedule(arguments, total_steps)
    decay = arguments.weight_decay
    beta1, beta2, epsilon = arguments.adam_beta1, arguments.adam_beta2, arguments.adam_epsilon
    if arguments.optim == "adamw":
        optimizer = optax.adamw(schedule, beta1, beta2, epsilon, weight_decay=decay, mask=kernels)
    elif arguments.optim == "sgd":
        sgd = optax.sgd(schedule, momentum=beta1 or None, nesterov=beta1 > 0)
        optimizer = optax.chain(optax.add_decayed_weights(decay, kernels), sgd)
    else:  # possible if it was set after the arguments were checked
        raise ConfigError("optim", arguments.optim, "must be 'adamw' or 'sgd'")
    if arguments.freeze_backbone:
        optimizer = optax.multi_transform({"train": optimizer, "freeze": optax.set_to_zero()}, trained)
    if arguments.layer_decay < 1:
        rates = layer_rates(params, arguments.layer_decay)
        by_layer = optax.stateless(lambda updates, _: jax.tree.map(lambda update, rate: update * rate, updates, rates))
        optimizer = optax.chain(optimizer, by_layer)
    return optimizer


def kernels(params: Any) -> Any:
    """The mask of weight decay: True for kernels, False for norms, biases, tokens and positions."""
    return _by_name(params, lambda name: name.endswith("kernel"))


def trained(params: Any) -> Any:
    """Labels for a linear probe: "train" for the classifiers, "freeze" for all other parameters."""
    return _by_name(params, lambda name: "train" if re.match(r"(distillation_)?classifier\.", name) else "freeze")


def layer_rates(params: Any, decay: float) -> Any:
    """Factors of the learning rate for layer-wise decay, a tree like `params`. Bao et al. 2022 (BEiT), appendix.

    The factor is decay^(L - i) for block i of L, counted from 0; decay^(L + 1) for the embeddings; 1 for the layers
    after the blocks.
    """
    leaves: dict[str, Any] = flatten_dict(params, sep=".")
    depth = 1 + max((int(match[1]) for name in leaves if (match := re.search(r"layer_(\d+)", name))), default=-1)

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
