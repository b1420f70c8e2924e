"""The verbs of training: train, launch several processes, plan, list the recipes."""

import argparse
from typing import Any

from .parser import add_model, add_verb


def _train(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "train",
        "train:run",
        help="train by a recipe",
        description="Train by a recipe, benchmark, and write the model, its results and its card.",
        example="train fine_tune --dataset_name my-images; `vit-cls train RECIPE --help` lists all fields, "
        "`vit-cls recipes` the recipes",
    )
    parser.usage = "vit-cls train RECIPE [--FIELD VALUE ...] [--json]"
    parser.add_argument(
        "recipe", metavar="RECIPE", help="a YAML file of fields, or the name of one of the package's recipes"
    )
    overrides = parser.add_argument(
        "overrides", nargs=argparse.REMAINDER, help="fields that replace those of the recipe"
    )
    overrides.required = False  # argparse would report it as missing too
    parser.set_defaults(parser=parser)


def _launch(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "launch",
        "launch:run",
        help="train with several processes on this machine",
        description="Start several processes of `vit-cls train` on this machine, which train one model together: a "
        "trial of what srun or mpirun start on several. With GPUs, each process has one. Only the first writes on "
        "standard output, and the messages of the others begin with their number. If one fails, all end. For a "
        "machine with several devices one process is enough.",
        example="launch -n 4 -- train fine_tune --dataset_name my-images",
    )
    parser.usage = "vit-cls launch -n N -- train RECIPE [--FIELD VALUE ...] [--json]"
    parser.add_argument("-n", "--processes", type=int, required=True, metavar="N", help="number of processes")
    words = parser.add_argument("words", nargs=argparse.REMAINDER, metavar="train ...", help="the command of each")
    words.required = False  # argparse would report it as missing too


def _plan(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "plan",
        "plan:run",
        help="what training needs on each device of a mesh",
        description="Plan before you pay: the memory that training needs on each device of a mesh, the bytes that a "
        "device sends in a step, its work, and the largest batch that fits. By formula, on any machine, within 15 % of "
        "XLA's memory analysis, but for bfloat16 on a CPU, where XLA keeps float32 copies. The plan is for blocks that "
        "run as a scan (scan_layers in training) and attention without a fused kernel. The exit status "
        "is 1 if the batch does not fit.",
        example='plan vit_cls_large_patch16_224 --mesh "data=-1,fsdp=8" --devices 256 --batch 64 --bf16',
    )
    add_model(parser, help="a name of `vit-cls variants`, or a folder or Hub id, whose config is read")
    parser.add_argument("--mesh", help="as in training: data, fsdp, tensor (default: data=-1)")
    parser.add_argument("--devices", type=int, help="number of devices, for a size of -1 (default: by the mesh, or 1)")
    parser.add_argument(
        "--per_device_train_batch_size",
        "--batch",
        type=int,
        default=32,
        metavar="N",
        help="as in training: images on each device in a step; along tensor they are the same (default: %(default)s)",
    )
    parser.add_argument("--gradient_checkpointing", action="store_true", help="recompute activations, as in training")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16, as in training")
    parser.add_argument("--optim", choices=["adamw", "sgd"], default="adamw", help="default: %(default)s")
    parser.add_argument("--ema_decay", type=float, default=0.0, help="above 0: with a moving average, as in training")
    parser.add_argument("--memory", type=float, default=80.0, help="GiB of a device (default: %(default)g)")
    parser.add_argument(
        "--config_overrides",
        default="{}",
        metavar="YAML",
        help="fields of the config, as in recipes: '{image_size: 384}'",
    )


def _recipes(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "recipes",
        "recipes:run",
        help="list the recipes of the package",
        description="List the recipes of the package: what each one trains, its cost, its expected accuracy if it was "
        "measured, and the command.",
        example="recipes fine_tune",
    )
    parser.add_argument(
        "pattern", nargs="?", default="*", help="a shell wildcard, in quotes, or a part of the name (default: all)"
    )


TRAINING_VERBS = (_train, _launch, _plan, _recipes)
