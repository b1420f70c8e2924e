"""Facts for a card, read from a trained folder: config, weights, results.json, trainer_state.json, recipe.yaml."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError
from ..families.open import has_head, open_checkpoint, read_json
from ..files.yaml_text import parse_yaml
from ..images.processor import ViTClsImageProcessor
from ..names import RECIPE, RESULTS, TRAINER_STATE
from ..pretrained.processor_files import read_processor
from ..provenance import last_name
from ..results import MeasuredData, Results, Training


@dataclass(frozen=True)
class Facts:
    """Facts about a trained classifier. `results`, `state` and `recipe` are empty if their file is missing.

    Attributes:
        name: the argument of `from_pretrained` in the card's example: Hub id, or name of the folder.
        image_hw: height and width in pixels of the image processor's output; None if they depend on the image. They may
            differ from the config's.
        parameters: number of parameters.
        state: content of trainer_state.json.
        recipe: fields of recipe.yaml.
    """

    name: str
    config: ViTClsConfig
    image_hw: tuple[int, int] | None
    parameters: int
    results: Results
    state: dict[str, Any]
    recipe: dict[str, Any]

    @property
    def labels(self) -> list[str]:
        """The class names, in the order of their numbers."""
        id2label: Any = self.config.id2label
        return [str(id2label[i]) for i in range(self.config.num_classes)]

    @property
    def dataset(self) -> MeasuredData:
        """The dataset of the benchmark."""
        return self.results.dataset

    @property
    def training(self) -> Training:
        """The record of the training."""
        return self.results.training

    @property
    def is_of_features(self) -> bool:
        """Whether features of the model were measured, and not the classifier itself."""
        return (
            bool(self.results.features.method) and self.results.model.class_name != "FlaxViTClsForImageClassification"
        )

    @property
    def chose_the_step(self) -> bool:
        """Whether the measured images also chose the saved step: there was no split for a test alone."""
        recipe, measured = self.recipe, self.dataset.split or ""
        if not recipe.get("load_best_model_at_end"):
            return False
        held_out = measured.endswith(f"% of {recipe.get('train_split', 'train')}")
        return measured == recipe["eval_split"] if recipe.get("eval_split") else held_out

    @property
    def local_base_model(self) -> str | None:
        """The last name of the model that was fine-tuned, if it was a folder or its source was not recorded."""
        name = self.training.base_model.name or self.recipe.get("model_name_or_path")
        return last_name(str(name)) if name and not self.training.base_model.hub_id else None

    @property
    def metrics(self) -> dict[str, float]:
        """The measured metrics by name, without values that are no numbers."""
        numbers = self.results.metrics.items()
        return {name: value for name, value in numbers if isinstance(value, int | float) and type(value) is not bool}


def read_facts(folder: Path, repo_id: str | None) -> Facts:
    """Read the facts of a folder. Raises CheckpointError, naming the file, if it has no classifier or is unreadable."""
    source = open_checkpoint(folder)
    if not has_head(source):
        raise CheckpointError(f"{folder}: holds no classifier; cards are written for classifiers")
    processor = read_processor(source, source.config)
    return Facts(
        repo_id or folder.resolve().name,
        source.config,
        processor.output_hw if isinstance(processor, ViTClsImageProcessor) else source.config.image_hw,
        sum(math.prod(tensor.shape) for tensor in source.tensors.values()),
        Results.read(folder / RESULTS) if (folder / RESULTS).is_file() else Results(metrics={}),
        read_json(folder / TRAINER_STATE) if (folder / TRAINER_STATE).is_file() else {},
        _read_recipe(folder / RECIPE),
    )


def _read_recipe(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        recipe = parse_yaml(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file}: cannot be read as YAML ({error})") from error
    if not isinstance(recipe, dict):
        raise CheckpointError(f"{file}: expected names and values, got {type(recipe).__name__}")
    return recipe
