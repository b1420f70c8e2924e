"""`vit-cls plan MODEL --mesh MESH`: what training needs on each device, before a device is paid for."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from modeling_vit_cls import ConfigError, ViTClsConfig
from modeling_vit_cls.nn.mesh import axis_sizes
from modeling_vit_cls.pretrained.check import read_config
from modeling_vit_cls.training.arguments import TrainingArguments
from modeling_vit_cls.training.plan import USABLE, Plan, make_plan
from modeling_vit_cls.training.recipe import ModelArguments

_GIB = 2**30


def run(arguments: argparse.Namespace) -> None:
    """Print the plan. Raises ConfigError if the batch does not fit into the memory of a device."""
    for name in ("devices", "memory"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(name, value, "must be positive")
    if arguments.mesh is None:
        arguments.mesh, arguments.devices = "data=-1", arguments.devices or 1
    sizes = axis_sizes(arguments.mesh, arguments.devices)
    config = _config(arguments, ModelArguments(config_overrides=arguments.config_overrides).overrides)
    names = ("per_device_train_batch_size", "bf16", "optim", "ema_decay")
    fields = {name: getattr(arguments, name) for name in names}
    plans = {
        "kept": make_plan(config, sizes, TrainingArguments(**fields)),
        "recomputed": make_plan(config, sizes, TrainingArguments(**fields, gradient_checkpointing=True)),
    }
    plan, memory = plans["recomputed" if arguments.gradient_checkpointing else "kept"], arguments.memory * _GIB
    largest = {name: choice.largest(memory) for name, choice in plans.items()}
    if arguments.json:
        facts = {"fits": plan.fits(memory), "largest_per_device_train_batch_size": largest}
        print(json.dumps({"model": arguments.model, **plan.to_dict(), **facts}, indent=2))
    else:
        print("\n".join(_lines(arguments, config, plan, plans, largest)))
    if not plan.fits(memory):
        needs = f"needs {plan.total / _GIB:,.2f} GiB of a device, more than {USABLE:.0%} of {arguments.memory:g} GiB"
        fitting = f"{largest['kept']:,} images fit, {largest['recomputed']:,} with --gradient_checkpointing"
        fitting = fitting if any(largest.values()) else "no image fits: divide the state by a larger fsdp"
        raise ConfigError("per_device_train_batch_size", plan.images, f"{needs}; {fitting}")


def _config(arguments: argparse.Namespace, overrides: dict[str, Any]) -> ViTClsConfig:
    """The config of a named architecture, with 1,000 classes, or of a checkpoint."""
    model = arguments.model
    if "/" in model or Path(model).exists():
        config = read_config(model, arguments.revision)
        return type(config).from_dict(config.to_dict(), **overrides)
    return ViTClsConfig.from_variant(model, **{"num_labels": 1000, **overrides})


def _lines(
    arguments: argparse.Namespace,
    config: ViTClsConfig,
    plan: Plan,
    plans: dict[str, Plan],
    largest: dict[str, int],
) -> list[str]:
    """The plan as text."""
    height, width = config.image_hw
    devices = math.prod(plan.mesh.values())
    mesh = ", ".join(f"{axis}={size}" for axis, size in plan.mesh.items())
    dtype = "bfloat16" if arguments.bf16 else "float32"
    return [
        f"{arguments.model}: {plan.parameters:,} parameters, {height} x {width} pixels, {config.num_tokens:,} tokens",
        f"devices: {devices:,} ({mesh}); images: {plan.images:,} on each, {plan.batch:,} in a step",
        f"{arguments.optim}, {dtype}, activations {'recomputed' if arguments.gradient_checkpointing else 'kept'}",
        "",
        *_table("memory of a device", {**plan.memory, "all": plan.total}),
        "",
        *_table("sent by a device in a step", plan.traffic),
        "",
        f"{'computed by a device in a step':<32}{plan.tflops:>10,.1f} TFLOP",
        "",
        f"{f'into {USABLE:.0%} of {arguments.memory:g} GiB':<32}{'GiB':>10}{'largest batch of a device':>28}",
        *(
            f"{f'  activations {name}':<32}{choice.total / _GIB:>10,.2f}{largest[name]:>28,}"
            for name, choice in plans.items()
        ),
    ]


def _table(title: str, sizes: dict[str, int]) -> list[str]:
    return [f"{title:<32}{'GiB':>10}", *(f"{f'  {name}':<32}{size / _GIB:>10,.2f}" for name, size in sizes.items())]
