"""Where a model or dataset came from: the Hub, a local folder, or this package; and files without local paths.

The source is recorded when the model or dataset is loaded. Shared files contain only the last name of a local folder,
no other part of its path: paths stay private, and a card is the same on every machine.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from .errors import one_line

Source = Literal["hub", "folder", "built-in"]
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")
BUILT_IN = ("digits", "fashion_mnist")  # datasets that need no network
_NAMES = ("dataset_name", "model_name_or_path")  # fields of a recipe that may be an id on the Hub
_PATHS = ("output_dir", "logging_dir", "resume_from_checkpoint", "data_dir")
_LABELS = ("id2label", "label2id")  # class names, which may look like paths: "/m/01yrx" is a class of Open Images


def record(name: str, revision: str | None = None, built_in: Collection[str] = ()) -> dict[str, str]:
    """The record of a name that was just loaded: {"name", "source"}, and "revision" for one on the Hub.

    A folder is recorded by its last name. `built_in` are the names that come with this package.
    """
    source: Source = "hub"
    if name in built_in:
        source = "built-in"
    elif Path(name).expanduser().exists() or not is_hub_id(name):
        source = "folder"
    version = {"revision": revision} if revision and source != "folder" else {}
    return {"name": last_name(name) if source == "folder" else name, "source": source, **version}


def dataset_record(name: str, revision: str | None = None) -> dict[str, str]:
    """The record of a dataset, which may come with this package."""
    return record(name, revision, BUILT_IN)


def is_hub_id(name: str) -> bool:
    """Whether a name can be an id on the Hub: `user/name` or `name`."""
    return _HUB_ID.fullmatch(name) is not None


def last_name(path: str) -> str:
    """The last part of a path; for `.`, `..` and `~` the name of that folder."""
    last = re.split(r"[/\\]", str(path).rstrip("/\\"))[-1]
    if last in ("", ".", "..", "~"):
        last = Path(path).expanduser().resolve().name
    return one_line(last) or "unnamed"


def public_recipe(fields: Mapping[str, Any], local: Collection[str] = ()) -> dict[str, Any]:
    """A recipe without local paths: a folder anywhere becomes `./photos`.

    `local` are the names of fields (of dataset and checkpoint) that are known to be folders. A value that cannot be an
    id on the Hub is always a folder.
    """
    paths = {fields.get(name) for name in _PATHS}

    def public(name: str, value: Any) -> Any:
        if name == "config_overrides":
            return _public_overrides(value)
        if isinstance(value, list):
            return [public(name, item) for item in value]
        if not isinstance(value, str):
            return public_json(value)
        if name == "run_name":
            return last_name(value)
        if name in _NAMES:
            is_path = name in local or not is_hub_id(value)
        elif name == "metrics":
            is_path = value != last_name(value) and (value.endswith(".py") or record(value)["source"] == "folder")
        else:
            is_path = _is_path(value) or (value in paths and last_name(value) != value)
        return f"./{last_name(value)}" if is_path else value

    return {name: public(name, value) for name, value in fields.items()}


def public_results(fields: Mapping[str, Any], local: Collection[str] = ()) -> dict[str, Any]:
    """The content of results.json without local paths; for `local` see `public_recipe`."""
    public = dict(public_json(dict(fields)))
    for part in ("model", "dataset"):
        source = fields.get(part)
        name = source.get("name") if isinstance(source, dict) else None
        if isinstance(name, str) and not is_hub_id(name):
            public[part] = {**public[part], "name": last_name(name)}
    recipe = fields.get("recipe")
    return public | ({"recipe": public_recipe(recipe, local)} if isinstance(recipe, dict) else {})


def public_json(value: Any) -> Any:
    """The content of any JSON without local paths. Class names are unchanged, even if they look like paths."""
    if isinstance(value, dict):
        return {name: _public_field(name, item) for name, item in value.items() if not _is_local_origin(name, item)}
    if isinstance(value, list):
        return [public_json(item) for item in value]
    return last_name(value) if isinstance(value, str) and _is_path(value) else value


def _public_field(name: str, value: Any) -> Any:
    if name in _LABELS:
        return value
    is_path = name in ("best_model_checkpoint", "run_name") and isinstance(value, str)
    return last_name(value) if is_path else public_json(value)


def _is_local_origin(name: str, value: Any) -> bool:
    """Whether a field is the local folder from which transformers loaded a model (and not an id on the Hub)."""
    return name == "_name_or_path" and isinstance(value, str) and record(value)["source"] == "folder"


def _public_overrides(value: Any) -> Any:
    """The `config_overrides` of a recipe, a mapping as YAML text; unchanged if there is no path in it."""
    if not isinstance(value, str):
        return public_json(value)
    try:
        fields = yaml.safe_load(value)
    except Exception:  # invalid YAML, so no model was built with it
        return "{}"
    public = public_json(fields)
    if public == fields:
        return value
    return yaml.safe_dump(public, default_flow_style=True, sort_keys=False, width=float("inf")).strip()


def _is_path(text: str) -> bool:
    """Whether a text is a path of any operating system: absolute, in the home folder, or starting with a dot."""
    return re.match(r"/|~|\.{1,2}[/\\]|[A-Za-z]:[/\\]|\\\\|file:", text) is not None and "\n" not in text
