"""`vit-cls train RECIPE [--learning_rate 1e-3 ...]`: train by a recipe, and write model, results and card."""

import argparse
import logging
import os
import shlex
import traceback
from typing import Any

from modeling_vit_cls import processes
from modeling_vit_cls.errors import ConfigError

from .benchmark import results_table
from .launch import LAUNCHER
from .messages import no_bars_in_files


def run(arguments: argparse.Namespace) -> None:
    """Read the recipe, run it, and print the results and the path of the card.

    In a run of several processes, the first one alone prints; a process that fails ends at once.
    """
    processes.join()  # before anything uses devices
    if processes.count() == 1:
        _run(arguments)
        return
    if not processes.is_first():
        logging.getLogger("modeling_vit_cls").setLevel(logging.ERROR)  # warnings are those of process 0 too
    try:
        _run(arguments)
    except Exception as error:
        if arguments.debug:
            traceback.print_exc()
        processes.leave(error)


def _run(arguments: argparse.Namespace) -> None:
    from modeling_vit_cls.training.run import run_recipe  # imported here because it takes a second

    _take_flags(arguments)
    recipe = _recipe(arguments)
    no_bars_in_files()
    results = run_recipe(recipe, _go_on(arguments))
    if not processes.is_first():
        return
    if arguments.json:
        print(results.to_json())
        return
    print(results_table(results))
    print(f"card: {recipe.training.output_dir}/README.md")


def _take_flags(arguments: argparse.Namespace) -> None:
    """Move `--json` and `--debug`, which are no fields of a recipe, from the overrides to the arguments."""
    arguments.json = arguments.json or "--json" in arguments.overrides
    arguments.debug = arguments.debug or "--debug" in arguments.overrides
    arguments.overrides = [word for word in arguments.overrides if word not in ("--json", "--debug")]


def _go_on(arguments: argparse.Namespace) -> str:
    """The command that resumes this run after it was stopped."""
    words = shlex.join(["train", arguments.recipe, *arguments.overrides, "--resume_from_checkpoint", "true"])
    return f"{os.environ.get(LAUNCHER, 'vit-cls')} {words}"  # if an option is given twice, the last one is used


def _recipe(arguments: argparse.Namespace) -> Any:
    """Read the recipe. An invalid one is an error in the arguments, with exit status 2."""
    from modeling_vit_cls.training.recipe import read_recipe

    try:
        return read_recipe(arguments.recipe, arguments.overrides)
    except ConfigError as error:
        return arguments.parser.error(str(error))
