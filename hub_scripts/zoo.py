"""The list of `vit-cls publish`: an organisation of the Hub, a collection, and models with their folders."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from modeling_vit_cls.errors import ConfigError, did_you_mean
from modeling_vit_cls.files.yaml_text import parse_yaml

_MAX_DESCRIPTION = 150  # characters, the Hub's limit


@dataclass(frozen=True)
class ZooModel:
    """A model to publish: its folder, and its id on the Hub."""

    folder: Path
    repo_id: str


@dataclass(frozen=True)
class Zoo:
    """The models to publish, and title and description of the collection that lists them.

    `private` is for all of them and the collection.
    """

    organisation: str
    title: str
    models: tuple[ZooModel, ...]
    description: str | None = None
    private: bool = False


def read_zoo(file: Path) -> Zoo:
    """Read a list. Folders are relative to the folder of the file. Raises ConfigError, naming the file and the field.

    The fields are those of `Zoo`; each of `models` has `folder` and `name`.
    """
    try:
        return _zoo(file)
    except ConfigError as error:
        raise ConfigError(error.field, error.value, f"{file}: {error.rule}") from error


def _zoo(file: Path) -> Zoo:
    try:
        values = parse_yaml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("list", str(file), f"cannot be read as YAML ({error})") from error
    fields = _fields(values, "", needed=("organisation", "title", "models"), others=("description", "private"))
    for name in ("organisation", "title", "description"):
        _check_text(name, fields.get(name, "x"))
    description, private, entries = fields.get("description"), fields.get("private", False), fields["models"]
    if description is not None and len(description) > _MAX_DESCRIPTION:
        raise ConfigError("description", description, f"must have at most {_MAX_DESCRIPTION} characters")
    if not isinstance(private, bool):
        raise ConfigError("private", private, "must be true or false")
    if not isinstance(entries, list) or not entries:
        raise ConfigError("models", entries, "must be a list of models, each with folder and name")
    models: dict[str, ZooModel] = {}
    for number, entry in enumerate(entries):
        within = f"models[{number}]."
        model = _model(entry, within, fields["organisation"], file.parent)
        if model.repo_id in models:
            raise ConfigError(f"{within}name", entry["name"], "is the name of an earlier model too")
        models[model.repo_id] = model
    return Zoo(fields["organisation"], fields["title"], tuple(models.values()), description, private)


def _model(entry: Any, within: str, organisation: str, place: Path) -> ZooModel:
    """A model of the list; `within` is its path there, such as "models[0]."."""
    fields = _fields(entry, within, needed=("folder", "name"))
    for name, text in fields.items():
        _check_text(f"{within}{name}", text)
    repo_id = f"{organisation}/{fields['name']}"
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        rule = f"{repo_id!r} must be the name of a repository: letters, digits, '-', '_' and '.', at most 96"
        raise ConfigError(f"{within}name", fields["name"], rule) from error
    return ZooModel(place / Path(fields["folder"]).expanduser(), repo_id)


def _fields(values: Any, within: str, needed: Collection[str], others: Collection[str] = ()) -> dict[str, Any]:
    """The fields of a mapping that are given. Raises ConfigError for one that is unknown or missing."""
    known = (*needed, *others)
    if not isinstance(values, Mapping):
        raise ConfigError(within.rstrip(".") or "list", values, f"must be a mapping of {', '.join(known)}")
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"{within}{name}", value, f"is not a field of the list{did_you_mean(name, known)}")
    fields = {name: value for name, value in values.items() if value is not None}
    for name in needed:
        if name not in fields:
            raise ConfigError(f"{within}{name}", None, "is needed")
    return fields


def _check_text(field: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(field, value, "must be a text; quote one that YAML reads as something else")
