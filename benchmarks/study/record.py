"""The record of a finished run, a JSON file."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modeling_vit_cls.files.folder import replace_file
from modeling_vit_cls.results import Results
from modeling_vit_cls.training.recipe import Recipe

_PLACES = ("output_dir", "run_name", "data_dir")  # fields of a recipe that name folders of one machine


@dataclass(frozen=True)
class Record:
    """What was measured of a run. Accuracies are shares in [0, 1].

    Attributes:
        results: results.json of the run, without the confusion matrix and without folders in the recipe.
        curve: rows of updates, loss in training since the row before, loss and accuracy on held-out images.
        readings: the accuracy on test images, by name; see `readings` in measure.py.
        robustness: the accuracy on changed test images, by kind and strength of the change.

    A run that only chooses the learning rate has the first two alone.
    """

    results: Results
    curve: list[list[float]]
    readings: dict[str, float] = field(default_factory=dict)
    robustness: dict[str, float] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """The accuracy on the images of `results.dataset`."""
        return self.results.metrics["accuracy"]

    @property
    def held_out_loss(self) -> float:
        """The loss on held-out training images after the last update."""
        return self.curve[-1][2]

    def write(self, file: Path) -> None:
        """Write the record, in one step, a line for each field."""
        fields: dict[str, Any] = {**vars(self), "results": json.loads(self.results.to_json())}
        lines = [f"  {json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in fields.items()]
        replace_file(file, ("{\n" + ",\n".join(lines) + "\n}\n").encode())

    @classmethod
    def read(cls, file: Path) -> "Record":
        """Read a record. Raises CheckpointError for results that cannot be read."""
        fields = json.loads(file.read_text())
        return cls(**{**fields, "results": Results.from_json(json.dumps(fields["results"]))})


def compact(results: Results, recipe: Recipe) -> Results:
    """The results of a recipe without confusion matrix, and with its essentials."""
    return replace(results, confusion_matrix=None, recipe=essentials(recipe))


def essentials(recipe: Recipe) -> dict[str, Any]:
    """The fields of a recipe without those that name folders of one machine."""
    return {name: value for name, value in recipe.to_dict().items() if name not in _PLACES}
