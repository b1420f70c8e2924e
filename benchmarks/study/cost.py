"""What an update of each model costs, in processor time: the models of a recipe take turns, in one process."""

import dataclasses
import json
import tempfile
import time
from typing import Any

import numpy as np
from transformers import TrainerCallback

from benchmarks.report import machine
from modeling_vit_cls.files.folder import replace_file
from modeling_vit_cls.images.sources import class_names
from modeling_vit_cls.training import FlaxTrainer
from modeling_vit_cls.training.recipe import Recipe
from modeling_vit_cls.training.run import build_model, load_splits

from .plan import Run, Study

_FILE = "costs.json"
_UPDATES = 20  # that are measured in a round, after the first, which compiles
_RATE = 1e-3  # an update costs the same with any


def measure_costs(study: Study, rounds: int = 5) -> None:
    """Measure the models of each recipe that is complete and has no costs yet, and write them: see `read_costs`."""
    costs = _read(study)
    missing = {run.recipe for run in study.runs() if study.record(run) is None}
    for recipe in study.fields["recipes"]:
        if recipe not in missing and recipe not in costs:
            costs[recipe] = {"machine": machine(), "rounds": _measure(study, recipe, rounds)}
            replace_file(study.records / _FILE, (json.dumps(costs, indent=1) + "\n").encode())


def read_costs(study: Study, recipe: str) -> tuple[str, dict[str, list[float]]] | None:
    """The machine, and milliseconds of processor time of an update in each round, by model; None if not measured."""
    costs = _read(study)
    return (costs[recipe]["machine"], costs[recipe]["rounds"]) if recipe in costs else None


def _read(study: Study) -> dict[str, dict[str, Any]]:
    file = study.records / _FILE
    return json.loads(file.read_text()) if file.exists() else {}


def _measure(study: Study, name: str, count: int) -> dict[str, list[float]]:
    models, seed = study.fields["models"], study.fields["seeds"][0]
    recipes = {model: study.recipe(Run(name, model, seed), _RATE) for model in models}
    rounds: dict[str, list[float]] = {model: [] for model in models}
    train, _ = load_splits(next(iter(recipes.values())).data, seed)
    for number in range(count):
        for model in models if number % 2 == 0 else reversed(models):
            rounds[model].append(_update(recipes[model], train))
            print(f"{name}-{model}: {rounds[model][-1]:.1f} ms of processor time", flush=True)
    return rounds


def _update(recipe: Recipe, train: Any) -> float:
    """Milliseconds of processor time of an update, in all threads, reading of images included."""
    clock = _Clock()
    with tempfile.TemporaryDirectory() as place:
        changes: dict[str, Any] = {"output_dir": place, "max_steps": 1 + _UPDATES, "disable_tqdm": True}
        changes |= {"save_strategy": "no", "eval_strategy": "no", "resume_from_checkpoint": None}
        arguments = dataclasses.replace(recipe.training, **changes)
        FlaxTrainer(build_model(recipe.model, class_names(train), 0), arguments, train, callbacks=[clock]).train()
    return 1000 * float(np.diff(clock.times).mean())


class _Clock(TrainerCallback):
    """The processor time at each update's end."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(time.process_time())
