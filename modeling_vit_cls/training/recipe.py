"""Recipes: a YAML file with changes from the command line, read into four dataclasses of checked fields."""

import dataclasses
import json
import re
from argparse import SUPPRESS, HelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from transformers import HfArgumentParser

from ..config_rules import Readout
from ..errors import ConfigError, did_you_mean, shorten
from ..files.yaml_text import parse_yaml
from .arguments import TrainingArguments, argument
from .fields import check_fields
from .foreign import IDLE, INSTEAD, RENAMED, foreign_rule, own_names
from .packaged import HEAD, find_recipe


@dataclass
class ModelArguments:
    """The model: an architecture with random parameters, or a checkpoint to fine-tune."""

    variant: str | None = argument("Architecture of `vit-cls variants`; else config_overrides gives all fields.", None)
    model_name_or_path: str | None = argument("Checkpoint to fine-tune: a folder or a Hub id, of any family.", None)
    model_revision: str | None = argument("Revision of the checkpoint.", None)
    readout: Readout | None = argument("Readout of the classifier; default: the model's.", None)
    config_overrides: str = argument("More fields of ViTClsConfig, as a YAML mapping: '{patch_size: 8}'.", "{}")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.variant is not None and self.model_name_or_path is not None:
            raise ConfigError("variant", self.variant, "give this, or model_name_or_path, not both")

    @property
    def overrides(self) -> dict[str, Any]:
        """Fields of the config that replace those of the architecture or the checkpoint."""
        try:
            fields = parse_yaml(self.config_overrides, numbers_of_json=True)
        except ValueError as error:
            raise ConfigError("config_overrides", self.config_overrides, f"must be a YAML mapping ({error})") from error
        if not isinstance(fields, dict):
            raise ConfigError("config_overrides", self.config_overrides, "must be a YAML mapping")
        return fields | ({} if self.readout is None else {"readout": self.readout})


@dataclass
class DataArguments:
    """The images: dataset, columns, splits and numbers of samples."""

    dataset_name: str = argument("A dataset's id on the Hub, a folder of images, 'digits' or 'fashion_mnist'.")
    dataset_config_name: str | None = argument("Configuration of a dataset of the Hub.", None)
    dataset_revision: str | None = argument("Revision of a dataset of the Hub.", None)
    data_dir: str | None = argument("Folder with the IDX files of 'fashion_mnist'.", None)
    image_column_name: str | None = argument("Column of images; default: the only one.", None)
    label_column_name: str | None = argument("Column of classes; default: the only one.", None)
    train_split: str = argument("Split to train on.", "train")
    eval_split: str | None = argument("Split to evaluate on; default: a share of the training split.", None)
    train_val_split: float = argument("Share of each class that is held out if there is no eval_split.", 0.15)
    max_train_samples: int | None = argument("Train on a random sample of this size, from all classes.", None)
    max_eval_samples: int | None = argument("Evaluate and benchmark on a random sample of this size.", None)

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.train_val_split < 1:
            raise ConfigError("train_val_split", self.train_val_split, "must lie between 0 and 1")
        for name in ("max_train_samples", "max_eval_samples"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(name, getattr(self, name), "must be positive; leave it out for all")


@dataclass
class EvaluationArguments:
    """The benchmark after training, and the licence on the card."""

    test_split: str | None = argument("Split to benchmark on; default: that of evaluation in training.", None)
    metrics: list[str] = argument("More metrics than the default ones: names or paths for evaluate.", factory=list)
    license: str | None = argument("Licence of the model, for its card.", None)

    def __post_init__(self) -> None:
        check_fields(self)


class Recipe(NamedTuple):
    """All choices that determine a trained model."""

    model: ModelArguments
    data: DataArguments
    training: TrainingArguments
    evaluation: EvaluationArguments

    def to_dict(self) -> dict[str, Any]:
        """All fields that differ from their defaults, as a recipe has them.

        What the arguments take from other fields is left out: a change of those must change it too.
        """
        fields, derived = {}, self.training.derived
        for part in self:
            for field in dataclasses.fields(part):
                default = field.default_factory() if callable(field.default_factory) else field.default
                value = getattr(part, field.name)
                if value not in (default, derived.get(field.name, default)) and field.name not in _NOT_RECORDED:
                    fields[field.name] = value
        return fields


_PARTS: Any = (ModelArguments, DataArguments, TrainingArguments, EvaluationArguments)
_NOT_RECORDED = {"resume_from_checkpoint"}  # the trained model does not depend on it
_NEEDED = ("output_dir", "dataset_name")
# Fields of the recipe that an option of the command line unsets.
_UNSETS = {"variant": {"model_name_or_path", "model_revision"}, "model_name_or_path": {"variant", "model_revision"}}


def read_recipe(file: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, with some values replaced by those of a command line.

    Args:
        file: a YAML file, or the name of a recipe in the package ("fine_tune").
        overrides: words of a command line (`--learning_rate 1e-3`). The value `null` unsets a field of the recipe;
            `--variant` unsets its model_name_or_path, and vice versa.

    Raises ConfigError, naming the file and the field, for an unknown field and a value of the wrong type.
    """
    path = find_recipe(file)
    options = _options(overrides)
    unset = {name for name, words in options.items() if words[1:] == ["null"]}
    unset |= {other for name in options.keys() - unset for other in _UNSETS.get(name, ())}
    fields = {name: value for name, value in _read_fields(path).items() if name not in unset}
    parser = _Parser(str(file), fields, [name for name in _NEEDED if name not in fields])
    words = [word for option in options.values() if option[1:] != ["null"] for word in _joined(option)]
    values, unknown = parser.parse_known_args(words)
    if unknown:
        raise _unknown(unknown, parser.names)
    for name in _NEEDED:
        if not hasattr(values, name):
            raise ConfigError(name, None, f"is needed, in {path} or on the command line")
    return Recipe(
        *(part(**{field.name: getattr(values, field.name) for field in dataclasses.fields(part)}) for part in _PARTS)
    )


def _read_fields(path: Path) -> dict[str, Any]:
    """The fields of a recipe that have a value, in the types of the dataclasses."""
    try:
        text = path.read_text(encoding="utf-8")
        fields, with_numbers = parse_yaml(text), parse_yaml(text, numbers_of_json=True)
    except (OSError, ValueError) as error:
        raise ConfigError("recipe", str(path), f"cannot be read as YAML ({error})") from error
    if not isinstance(fields, dict):
        raise ConfigError("recipe", str(path), "must be a YAML mapping of fields")
    fields.pop(HEAD, None)
    if isinstance(fields.get("config_overrides"), dict):  # its numbers are not read by the type of a field, as others
        fields["config_overrides"] = with_numbers["config_overrides"]
    parser = _Parser(str(path), {}, ())
    try:
        fields = own_names({str(name): value for name, value in fields.items()}, parser.names)
        return {name: parser.value_of(name, value) for name, value in fields.items() if value is not None}
    except ConfigError as error:
        raise ConfigError(error.field, error.value, f"{path}: {error.rule}") from error


def _options(overrides: Sequence[str]) -> dict[str, list[str]]:
    """The options of a command line: {field: its words}. Words before the first option are under ""."""
    options: dict[str, list[str]] = {}
    name = ""
    for word in overrides:
        if word.startswith("--"):
            option, equals, value = word.removeprefix("--").partition("=")
            name = option.replace("-", "_")
            options[name] = [f"--{option}", *([value] if equals else [])]
        else:
            options.setdefault(name, []).append(word)
    return options


def _joined(option: list[str]) -> list[str]:
    """The words of an option, its value joined to it if that begins with a dash: argparse takes -1e-4 for an option."""
    return ["=".join(option)] if len(option) == 2 and option[1].startswith("-") else option


def _unknown(words: Sequence[str], known: set[str]) -> ConfigError:
    """The error for words of a command line that belong to no field."""
    option = words[0].partition("=")[0]
    name = option.lstrip("-").replace("-", "_")
    if name in RENAMED or name in IDLE or name in INSTEAD:
        return ConfigError(option, " ".join(words[1:]), foreign_rule(name, known))
    hint = did_you_mean(name, known, "--{}")
    return ConfigError(option, " ".join(words[1:]), f"is not a field of a recipe{hint}")


class _Parser(HfArgumentParser):
    """An HfArgumentParser with the fields of a recipe as defaults, which raises ConfigError."""

    def __init__(self, recipe: str, fields: dict[str, Any], needed: Sequence[str]):
        usage = f"vit-cls train {recipe} [--FIELD VALUE ...]".replace("%", "%%")
        description = "Fields of the recipe; `null` unsets one."
        options: dict[str, Any] = {"formatter_class": HelpFormatter, "allow_abbrev": False}
        super().__init__(_PARTS, prog="vit-cls train", usage=usage, description=description, **options)
        self.names = {action.dest for action in self._actions} - {"help"}
        self.set_defaults(**fields)
        for action in self._actions:
            action.required = False
            # For the help alone: names with dashes are taken too.
            action.option_strings = [name for name in action.option_strings if "-" not in name.strip("-")]
            if not action.choices:
                action.metavar = {int: "N", float: "X", str: "TEXT"}.get(action.type, "BOOL")  # pyright: ignore
            if action.dest in needed:
                action.default, action.help = SUPPRESS, f"{action.help} Needed: the recipe has none."
            elif action.default not in (None, [], SUPPRESS):
                action.help = f"{action.help} (default: %(default)s)"

    def value_of(self, name: str, value: Any) -> Any:
        """A value of a YAML file, converted to the type of its field. Raises ConfigError for another type."""
        action: Any = next(action for action in self._actions if action.dest == name)
        if isinstance(value, list):
            if action.nargs != "+":
                raise ConfigError(name, value, "must be one value, not a list")
            return [str(item) for item in value]
        if value is False and "no" in (action.choices or ()):
            value = "no"  # YAML reads a bare no as false
        if isinstance(value, int | float) and action.type is str and name != "resume_from_checkpoint":
            read = "yes, no, on and off as true and false" if isinstance(value, bool) else "digits as a number"
            raise ConfigError(name, value, f"must be a text; YAML reads {read}: quote it")
        try:
            text = json.dumps(value, allow_nan=False) if isinstance(value, dict) else str(value)
        except (TypeError, ValueError) as error:  # a date, bytes, a set, NaN, a mapping that contains itself
            rule = "must have only texts, finite numbers, true, false, null, lists and mappings"
            raise ConfigError(name, value, f"{rule} ({error})") from error
        return getattr(self.parse_known_args([f"--{name}={text}"])[0], name)

    def error(self, message: str) -> Any:
        """Raise ConfigError for an error of argparse, naming the field if the message does."""
        match = re.fullmatch(r"argument --([\w-]+)\S*: (.*)", message, re.DOTALL)
        if match is None:
            raise ConfigError("recipe", self.usage, shorten(message, 300)[1:-1])
        quoted = re.fullmatch(r"(.*?): '(.*?)'(?: \(choose from (.*)\))?", match[2], re.DOTALL)
        value, rule = (quoted[2], quoted[1]) if quoted else (None, match[2])
        if quoted and quoted[3]:
            rule = f"must be one of {quoted[3]}{did_you_mean(quoted[2], quoted[3].replace(chr(39), '').split(', '))}"
        raise ConfigError(match[1].replace("-", "_"), value, rule)
