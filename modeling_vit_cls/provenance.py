"""Where a name comes from, as files that are shared say it: the Hub, a folder of this machine, or this package.

What is local is decided while it is used, and written down then. Files that go to other people hold the last name of a
local folder and no other part of its path, so that a card is the same wherever it is rendered.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from .errors import one_line

Source = Literal["hub", "folder", "built-in"]
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")
_BUILT_IN = ("digits",)
_NAMED = ("dataset_name", "model_name_or_path")  # fields of a recipe that may be an id on the Hub
_PATHS = ("output_dir", "logging_dir", "resume_from_checkpoint")
_LABELS = ("id2label", "label2id")  # names that people gave: "/m/01yrx" is a class of Open Images


def record(name: str, revision: str | None = None, built_in: Collection[str] = ()) -> dict[str, str]:
    """A name that was just loaded -> {"name", "source"} and its revision on the Hub; a folder by its last name."""
    source: Source = "hub"
    if name in built_in:
        source = "built-in"
    elif Path(name).expanduser().exists() or not is_hub_id(name):
        source = "folder"
    at = {"revision": revision} if revision and source != "folder" else {}
    return {"name": last_name(name) if source == "folder" else name, "source": source, **at}


def dataset_record(name: str, revision: str | None = None) -> dict[str, str]:
    """The record of a dataset, which may be one of this package."""
    return record(name, revision, _BUILT_IN)


def is_hub_id(name: str) -> bool:
    """Whether a name can be an id on the Hub: `user/name`, or `name` alone."""
    return _HUB_ID.fullmatch(name) is not None


def last_name(path: str) -> str:
    """The last part of a path, of `.` and the like the name of the folder that they stand for."""
    last = re.split(r"[/\\]", str(path).rstrip("/\\"))[-1]
    if last in ("", ".", "..", "~"):
        last = Path(path).expanduser().resolve().name
    return one_line(last) or "unnamed"


def public_recipe(fields: Mapping[str, Any], local: Collection[str] = ()) -> dict[str, Any]:
    """A recipe without the paths of this machine: `./photos` for a folder that lies anywhere.

    `local` names the fields, of dataset and checkpoint, that are known to be folders; one that cannot be an id on the
    Hub is a folder in any case.
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
        if name in _NAMED:
            is_path = name in local or not is_hub_id(value)
        elif name == "metrics":
            is_path = value != last_name(value) and (value.endswith(".py") or record(value)["source"] == "folder")
        else:
            is_path = _is_machines(value) or (value in paths and last_name(value) != value)
        return f"./{last_name(value)}" if is_path else value

    return {name: public(name, value) for name, value in fields.items()}


def public_results(fields: Mapping[str, Any], local: Collection[str] = ()) -> dict[str, Any]:
    """The content of results.json without the paths of this machine; `local` as `public_recipe` has it."""
    public = dict(public_json(dict(fields)))
    for part in ("model", "dataset"):
        named = fields.get(part)
        name = named.get("name") if isinstance(named, dict) else None
        if isinstance(name, str) and not is_hub_id(name):
            public[part] = {**public[part], "name": last_name(name)}
    recipe = fields.get("recipe")
    return public | ({"recipe": public_recipe(recipe, local)} if isinstance(recipe, dict) else {})


def public_json(value: Any) -> Any:
    """The content of any JSON in which no path of this machine is left; names of classes stay, whatever they are."""
    if isinstance(value, dict):
        return {name: _public_field(name, item) for name, item in value.items() if not _is_origin_here(name, item)}
    if isinstance(value, list):
        return [public_json(item) for item in value]
    return last_name(value) if isinstance(value, str) and _is_machines(value) else value


def _public_field(name: str, value: Any) -> Any:
    if name in _LABELS:
        return value
    is_path = name in ("best_model_checkpoint", "run_name") and isinstance(value, str)
    return last_name(value) if is_path else public_json(value)


def _is_origin_here(name: str, value: Any) -> bool:
    """Whether a field is transformers' note of the folder that something was loaded from; an id on the Hub is not."""
    return name == "_name_or_path" and isinstance(value, str) and record(value)["source"] == "folder"


def _public_overrides(value: Any) -> Any:
    """The `config_overrides` of a recipe, a mapping in YAML; as it was written where no path is in it."""
    if not isinstance(value, str):
        return public_json(value)
    try:
        fields = yaml.safe_load(value)
    except Exception:  # no model was built by what is no YAML
        return "{}"
    public = public_json(fields)
    if public == fields:
        return value
    return yaml.safe_dump(public, default_flow_style=True, sort_keys=False, width=float("inf")).strip()


def _is_machines(text: str) -> bool:
    """Whether a text is a path from the root, from home or from where a process stands, of any system."""
    return re.match(r"/|~|\.{1,2}[/\\]|[A-Za-z]:[/\\]|\\\\|file:", text) is not None and "\n" not in text
