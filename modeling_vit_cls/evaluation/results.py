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
from ..checkpoints.folder import replace_file

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
) -> Results:
    """What `benchmark` returned for a model -> the content of results.json.

    Args:
        found: also "duplicates", how many of the images are in the training data too, where that was counted.
        model_name, dataset_name: folders or ids on the Hub; `revision` is the dataset's.
        recipe: of the training, if it is known.
    """
    data = {"name": dataset_name, "split": split, "examples": found["examples"]}
    data |= {name: found[name] for name in ("skipped", "duplicates") if name in found}
    data |= {"revision": revision} if revision else {}
    matrix = {"confusion_matrix": found["confusion_matrix"]} if "confusion_matrix" in found else {}
    return {
        "model": {
            "name": model_name,
            "class": type(model).__name__,
            "readout": model.config.readout,
            "parameters": model.num_parameters(),
        },
        "dataset": data,
        "metrics": dict(found["metrics"]),
        **matrix,
        "throughput": dict(found["throughput"]),
        "recipe": None if recipe is None else dict(recipe),
        "versions": _versions(),
        "hardware": _hardware(),
        "date": datetime.now(UTC).date().isoformat(),
    }


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
        others += [name for name in results["metrics"] if name not in others]
        text = io.StringIO()
        table = csv.DictWriter(text, _FIRST + others + _LAST, lineterminator="\n")
        table.writeheader()
        table.writerows([*rows, _row(results)])
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
