"""A recipe: a YAML file and what the command line changes of it, as four dataclasses of checked fields."""

import dataclasses
import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from transformers import HfArgumentParser

from ..checkpoints.yaml_text import parse_yaml
from ..errors import ConfigError, shorten
from .arguments import TrainingArguments, argument


@dataclass
class ModelArguments:
    """Which model: an architecture from random parameters, or a checkpoint to fine-tune."""

    variant: str | None = argument("Architecture of `vit-cls variants`; without, config_overrides says all.", None)
    model_name_or_path: str | None = argument("Checkpoint to fine-tune: a folder or a Hub id, of any family.", None)
    model_revision: str | None = argument("Revision of the checkpoint.", None)
    readout: str | None = argument("cls, mean, cls_mean or map; default: the model's.", None)
    config_overrides: str = argument("More fields of ViTClsConfig, as a YAML mapping: '{patch_size: 8}'.", "{}")

    def __post_init__(self) -> None:
        if self.variant is not None and self.model_name_or_path is not None:
            raise ConfigError("variant", self.variant, "give this, or model_name_or_path, not both")

    @property
    def overrides(self) -> dict[str, Any]:
        """Fields of the config that are not the architecture's or the checkpoint's."""
        try:
            fields = parse_yaml(self.config_overrides)
        except ValueError as error:
            raise ConfigError("config_overrides", self.config_overrides, "must be a YAML mapping") from error
        if not isinstance(fields, dict):
            raise ConfigError("config_overrides", self.config_overrides, "must be a YAML mapping")
        return fields | ({} if self.readout is None else {"readout": self.readout})


@dataclass
class DataArguments:
    """Which images."""

    dataset_name: str = argument("A dataset's id on the Hub, a folder of images, or 'digits'.")
    dataset_config_name: str | None = argument("Configuration of a dataset of the Hub.", None)
    dataset_revision: str | None = argument("Revision of a dataset of the Hub.", None)
    image_column_name: str | None = argument("Column of images; default: the only one.", None)
    label_column_name: str | None = argument("Column of classes; default: the only one.", None)
    train_split: str = argument("Split to train on.", "train")
    eval_split: str | None = argument("Split to evaluate on; default: a share of the training split.", None)
    train_val_split: float = argument("That share.", 0.15)
    max_train_samples: int | None = argument("Train on the first of these only.", None)
    max_eval_samples: int | None = argument("Evaluate and benchmark on the first of these only.", None)

    def __post_init__(self) -> None:
        if not 0 < self.train_val_split < 1:
            raise ConfigError("train_val_split", self.train_val_split, "must lie between 0 and 1")


@dataclass
class EvaluationArguments:
    """What is measured when training has ended."""

    test_split: str | None = argument("Split to benchmark on; default: what training evaluated on.", None)
    metrics: list[str] = argument("Metrics beside accuracy and its like: names or paths of evaluate.", factory=list)
    license: str | None = argument("Licence of the model, for its card.", None)


class Recipe(NamedTuple):
    """All that determines a trained model."""

    model: ModelArguments
    data: DataArguments
    training: TrainingArguments
    evaluation: EvaluationArguments

    def to_dict(self) -> dict[str, Any]:
        """All fields that differ from their defaults, as a recipe has them."""
        fields: dict[str, Any] = {}
        for part in self:
            for field in dataclasses.fields(part):
                default = field.default_factory() if callable(field.default_factory) else field.default
                value = getattr(part, field.name)
                if value != default:
                    fields[field.name] = value
        return fields


def read_recipe(file: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe's YAML file, some of its values replaced by those of a command line (`--learning_rate 1e-3`).

    Raises ConfigError, naming the file and the key, for a key that is not known and a value of the wrong kind.
    """
    parser = _parser(str(file))
    try:
        fields = parse_yaml(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError("recipe", str(file), "there is no such file") from error
    except (OSError, ValueError) as error:
        raise ConfigError("recipe", str(file), f"cannot be read as YAML ({error})") from error
    if not isinstance(fields, dict):
        raise ConfigError("recipe", str(file), "must be a YAML mapping of fields")
    known = {action.dest for action in parser._actions}
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(str(name), fields[name], f"{file}: is not a field of a recipe{hint}")
    given = [text for name, value in fields.items() if value is not None for text in (f"--{name}", *_texts(value))]
    reading: Any = {"look_for_args_file": False, "return_remaining_strings": True}
    *parts, unknown = parser.parse_args_into_dataclasses([*given, *overrides], **reading)
    if unknown:
        near = difflib.get_close_matches(unknown[0].lstrip("-"), known, 1)
        hint = f"; did you mean --{near[0]}?" if near else ""
        raise ConfigError(unknown[0], " ".join(unknown[1:]), f"is not a field of a recipe{hint}")
    return Recipe(*parts)


def _texts(value: Any) -> list[str]:
    """A value of a recipe as the command line would have it."""
    if isinstance(value, list):
        return [str(item) for item in value]
    return [json.dumps(value) if isinstance(value, dict) else str(value)]


class _RecipeParser(HfArgumentParser):
    """HfArgumentParser whose errors are the project's."""

    def error(self, message: str) -> Any:
        raise ConfigError("recipe", self.prog, shorten(message, 300)[1:-1])


def _parser(name: str) -> HfArgumentParser:
    kinds: Any = (ModelArguments, DataArguments, TrainingArguments, EvaluationArguments)
    return _RecipeParser(kinds, prog=name, allow_abbrev=False)
