"""What a benchmark found and how, as results.json and as a row of a CSV; both files are replaced in one step."""

import csv
import fcntl
import io
import json
import os
import platform
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from .. import __version__
from ..errors import CheckpointError, one_line
from ..files.folder import replace_file
from ..files.json_file import read_json
from ..names import RESULTS
from ..provenance import dataset_record, public_recipe, record

Results = dict[str, Any]
_FIRST, _LAST = ["model", "dataset", "split"], ["images_per_second", "date", "versions"]


def results(
    found: Mapping[str, Any],
    model: Any,
    *,
    model_name: str,
    dataset_name: str,
    split: str,
    revision: str | None = None,
    recipe: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Results:
    """What `benchmark` returned for a model -> the content of results.json, which holds no path of this machine.

    Args:
        found: also "duplicates", how many of the images are in the training data too, where that was counted.
        model_name, dataset_name: folders or ids on the Hub, and which of the two is recorded; `revision` is the
            dataset's.
        recipe, training: of the model's training, if they are known: how, and what of.
    """
    data = {**dataset_record(dataset_name, revision), "split": split, "examples": found["examples"]}
    data |= {name: found[name] for name in ("skipped", "duplicates") if name in found}
    matrix = {"confusion_matrix": found["confusion_matrix"]} if "confusion_matrix" in found else {}
    return {
        "model": {
            "name": record(model_name)["name"],
            "class": type(model).__name__,
            "readout": model.config.readout,
            "parameters": model.num_parameters(),
        },
        "dataset": data,
        "metrics": dict(found["metrics"]),
        **matrix,
        "throughput": dict(found["throughput"]),
        "recipe": None if recipe is None else public_recipe(recipe, _local_fields(recipe)),
        **({} if training is None else {"training": dict(training)}),
        "versions": _versions(),
        "hardware": _hardware(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def known_of_training(folder: Path) -> Results:
    """Recipe and training as the results.json in a model's folder has them; empty where there is none that is ours."""
    try:
        before = read_json(folder / RESULTS)
    except CheckpointError:
        return {}
    return {name: before[name] for name in ("recipe", "training") if isinstance(before.get(name), dict)}


def _local_fields(recipe: Mapping[str, Any]) -> list[str]:
    """The fields of a recipe that name folders of this machine, while they are there."""
    records = {"dataset_name": dataset_record, "model_name_or_path": record}
    given = {name: of(recipe[name]) for name, of in records.items() if isinstance(recipe.get(name), str)}
    return [name for name, fields in given.items() if fields["source"] == "folder"]


def write_results(file: str | os.PathLike[str], results: Results) -> None:
    """Write results.json: the old file or the new one, whole. Raises OSError where it cannot be written."""
    replace_file(Path(file), (to_json(results) + "\n").encode())


def to_json(results: Results) -> str:
    """Results as text, a line for each field and for each row of the confusion matrix."""
    text = json.dumps(results, indent=2, allow_nan=False)
    return re.sub(r"\[\n[\d,\s]+\]", lambda row: "".join(row[0].split()).replace(",", ", "), text)


def append_row(file: str | os.PathLike[str], results: Results) -> None:
    """Add a row to a CSV of many runs, which is made if it is not there; a new metric is a new column, empty above.

    Processes that add to one file wait for each other. Raises ValueError for a file that is no such table, OSError
    where it cannot be written.
    """
    path = Path(os.path.realpath(file))
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        columns, rows = _read_rows(path)
        others = [name for name in columns if name not in _FIRST + _LAST]
        row = {_inert(name): _inert(value) for name, value in _row(results).items()}
        others += [name for name in map(_inert, results["metrics"]) if name not in others]
        text = io.StringIO()
        table = csv.DictWriter(text, _FIRST + others + _LAST, lineterminator="\n")
        table.writeheader()
        table.writerows([*rows, row])
        replace_file(path, text.getvalue().encode())
    finally:
        os.close(folder)


def _read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    if not path.exists():
        return [], []
    with path.open(newline="", encoding="utf-8") as opened:
        table = csv.DictReader(opened)
        rows = list(table)
    columns = list(table.fieldnames or [])
    torn = any(None in row or None in row.values() for row in rows)  # more or fewer cells than the header
    if columns and (torn or len(set(columns)) < len(columns) or not set(_FIRST + _LAST) <= set(columns)):
        raise ValueError(
            f"{path}: is not a table of results with columns {', '.join(_FIRST + _LAST)}; give another file"
        )
    return columns, rows


def _inert(cell: Any) -> Any:
    """A text that a spreadsheet takes for a text, whatever it begins with; numbers as they are."""
    text = one_line(cell) if isinstance(cell, str) else cell
    return f"'{text}" if isinstance(text, str) and text.startswith(("=", "+", "-", "@")) else text


def _row(results: Results) -> dict[str, Any]:
    names = {"model": results["model"]["name"], "dataset": results["dataset"]["name"]}
    rest = {"split": results["dataset"]["split"], "images_per_second": results["throughput"]["images_per_second"]}
    versions = " ".join(f"{name}={number}" for name, number in results["versions"].items())
    return {**names, **rest, **results["metrics"], "date": results["date"], "versions": versions}


def _versions() -> dict[str, str]:
    packages = ("jax", "flax", "transformers", "datasets", "evaluate", "numpy")
    return {"python": platform.python_version(), "vit-cls": __version__} | {name: version(name) for name in packages}


def _hardware() -> dict[str, Any]:
    accelerators = [device.device_kind for device in jax.devices() if device.platform != "cpu"]
    return {"processor": _processor(), "cores": os.cpu_count(), "accelerators": accelerators}


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
