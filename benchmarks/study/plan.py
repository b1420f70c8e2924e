"""The runs of the study, from its table: names, recipes, learning rates, and how far each run has come."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

from modeling_vit_cls.training.recipe import Recipe, read_recipe

from .record import Record, essentials

_ROOT = Path(__file__).parents[2]
State = Literal["done", "begun", "to do", "outdated"]


class StudyError(Exception):
    """The study cannot go on; the message tells why and what to do."""


@dataclass(frozen=True)
class Run:
    """One training of a recipe: with a model and a seed, and if it is one of those that choose it, a learning rate."""

    recipe: str
    model: str
    seed: int
    rate: float | None = None

    @property
    def name(self) -> str:
        """The name of the run, of its folder and of its record."""
        return f"{self.recipe}-{self.model}-" + (f"{self.seed}" if self.rate is None else f"rate-{self.rate:g}")


@dataclass(frozen=True)
class Study:
    """The study of a table.

    Args:
        table: the YAML file of the study; the recipes that it names stand beside it.
        records: folder of the records of finished runs, a JSON file each, and of the tables and curves.
        folder: folder of the runs: models and checkpoints.
        data_dir: folder of Fashion-MNIST's IDX files; None for those of Debian's package.
    """

    table: Path = _ROOT / "configuration/study/study.yaml"
    records: Path = _ROOT / "benchmarks/results/study"
    folder: Path = _ROOT / "build/study"
    data_dir: str | None = None

    @cached_property
    def fields(self) -> Mapping[str, Any]:
        """The content of the table."""
        return yaml.safe_load(self.table.read_text())

    def runs(self, pattern: str = "*") -> list[Run]:
        """The runs whose name matches a shell wildcard, in the order in which they are run.

        Those that choose the learning rates of a recipe come before the others of the recipe.
        """
        runs, models = [], self.fields["models"]
        for recipe in self.fields["recipes"]:
            runs += [run for model in models for run in self._choosing(recipe, model)]
            runs += [Run(recipe, model, seed) for seed in self.fields["seeds"] for model in models]
        return [run for run in runs if fnmatchcase(run.name, pattern)]

    def minutes(self, run: Run) -> float:
        """The estimated minutes of a run on two quiet cores."""
        share = 1 if run.rate is None else self.fields["choice"]["share"]
        return share * self.fields["recipes"][run.recipe]["minutes"]

    def recipe(self, run: Run, rate: float) -> Recipe:
        """The recipe of a run with a learning rate. It goes on from the last checkpoint, if there is one."""
        file = self.table.parent / f"{run.recipe}.yaml"
        base = _recipe(file)
        fields = {
            "output_dir": self.folder / run.name,
            "learning_rate": rate,
            "seed": run.seed,
            "config_overrides": json.dumps(base.model.overrides | self.fields["models"][run.model]),
            "resume_from_checkpoint": "true",
        }
        if run.rate is not None:  # test images have no part in the choice
            fields |= {
                "max_steps": round(base.training.max_steps * self.fields["choice"]["share"]),
                "test_split": "null",
            }
        if self.data_dir is not None and base.data.dataset_name == "fashion_mnist":
            fields["data_dir"] = self.data_dir
        return _recipe(file, *(word for name, value in fields.items() for word in (f"--{name}", str(value))))

    def rate(self, run: Run) -> float | None:
        """The learning rate of a run; None as long as the runs that choose it are not done."""
        return run.rate or self.chosen_rate(run.recipe, run.model)

    def chosen_rate(self, recipe: str, model: str) -> float | None:
        """The learning rate of the lowest loss on held-out images, of equal ones the smallest; None if unknown."""
        losses = {rate: record and record.held_out_loss for rate, record in self.rates(recipe, model).items()}
        if None in losses.values():
            return None
        return min(sorted(losses), key=lambda rate: losses[rate] or 0.0)

    def rates(self, recipe: str, model: str) -> dict[float, Record | None]:
        """The records of the runs that choose the learning rate of a model, by rate; None where one is not done."""
        return {run.rate: self.record(run) for run in self._choosing(recipe, model) if run.rate is not None}

    def state(self, run: Run) -> State:
        """How far a run has come. "outdated" has a record, but of another recipe or learning rate."""
        if self._file(run).exists():
            return "done" if self.record(run) else "outdated"
        return "begun" if any((self.folder / run.name).glob("checkpoint-*")) else "to do"

    def record(self, run: Run) -> Record | None:
        """The record of a run; None if there is none, or one of another recipe or learning rate."""
        if not self._file(run).exists():
            return None
        record, rate = Record.read(self._file(run)), self.rate(run)
        if rate is None or record.results.recipe != essentials(self.recipe(run, rate)):
            return None
        return record

    def write(self, run: Run, record: Record) -> None:
        """Write the record of a run, in one step."""
        self.records.mkdir(parents=True, exist_ok=True)
        record.write(self._file(run))

    def _choosing(self, recipe: str, model: str) -> list[Run]:
        rates = self.fields["recipes"][recipe]["rates"]
        return [Run(recipe, model, self.fields["choice"]["seed"], rate) for rate in rates]

    def _file(self, run: Run) -> Path:
        return self.records / f"{run.name}.json"


@cache
def _recipe(file: Path, *overrides: str) -> Recipe:
    """`read_recipe`, once for each recipe: the states of all runs need many."""
    return read_recipe(file, overrides)
