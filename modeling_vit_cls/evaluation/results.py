"""From the output of a benchmark and its conditions to Results, the content of results.json."""

import os
import platform
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from .. import __version__
from ..errors import CheckpointError
from ..names import RESULTS
from ..provenance import dataset_record, public_recipe, record
from ..results import FeatureEvaluation, Hardware, MeasuredData, MeasuredModel, Results, Throughput, Training


def results(
    found: Mapping[str, Any],
    model: Any,
    *,
    model_name: str,
    model_revision: str | None = None,
    dataset_name: str,
    split: str,
    revision: str | None = None,
    recipe: Mapping[str, Any] | None = None,
    training: Training | None = None,
    tested: MeasuredData | None = None,
    features: FeatureEvaluation | None = None,
) -> Results:
    """The Results of a benchmark. Local paths are recorded by their last name only.

    Args:
        found: the output of `benchmark`, and optionally "duplicates", the number of images that are also in the
            training data, and "images", the digest of the images.
        model: the model that was measured.
        model_name, dataset_name: folders or ids on the Hub; the record tells which.
        model_revision: revision of the model.
        split: split of the dataset.
        revision: revision of the dataset.
        recipe, training: recipe and record of the model's training, if they are known.
        tested: the images of an earlier benchmark. If they are the same, its "duplicates" count where `found` has none.
        features: how features were evaluated; `found` may then have the "readout" that the metrics are of.
    """
    counts: Any = {name: found.get(name) for name in ("examples", "skipped", "duplicates")}
    origin: Any = dataset_record(dataset_name, revision)
    images = found.get("images") if origin["source"] == "folder" else None
    dataset = MeasuredData(**origin, split=split, **counts)
    if dataset.duplicates is not None:
        dataset = replace(dataset, images=images)
    elif tested is not None and replace(tested, duplicates=None) == replace(dataset, images=images):
        dataset = tested
    return Results(
        model=MeasuredModel(
            **{name: value for name, value in record(model_name, model_revision).items() if name != "source"},
            class_name=type(model).__name__,
            readout=found.get("readout", model.config.readout),
            parameters=model.num_parameters(),
        ),
        dataset=dataset,
        metrics=dict(found["metrics"]),
        confusion_matrix=found.get("confusion_matrix"),
        features=features or FeatureEvaluation(),
        throughput=Throughput(**found["throughput"]),
        recipe=None if recipe is None else public_recipe(recipe, _local_fields(recipe)),
        training=training or Training(),
        versions=_versions(),
        hardware=_hardware(),
        date=datetime.now(UTC).date().isoformat(),
    )


def known_of_training(folder: Path) -> dict[str, Any]:
    """What `results` takes from the results.json in a model's folder; empty if it is missing or cannot be read."""
    try:
        previous = Results.read(folder / RESULTS)
    except CheckpointError:
        return {}
    return {"recipe": previous.recipe, "training": previous.training, "tested": previous.dataset}


def _local_fields(recipe: Mapping[str, Any]) -> list[str]:
    """The fields of a recipe whose values are folders on this machine."""
    recorders = {"dataset_name": dataset_record, "model_name_or_path": record}
    records = {name: make(recipe[name]) for name, make in recorders.items() if isinstance(recipe.get(name), str)}
    return [name for name, fields in records.items() if fields["source"] == "folder"]


def _versions() -> dict[str, str]:
    packages = ("jax", "flax", "transformers", "datasets", "evaluate", "numpy")
    return {"python": platform.python_version(), "vit-cls": __version__} | {name: version(name) for name in packages}


def _hardware() -> Hardware:
    accelerators = [device.device_kind for device in jax.devices() if device.platform != "cpu"]
    return Hardware(processor=_processor(), cores=_cores(), accelerators=accelerators)


def _cores() -> int | None:
    """The cores that this process may use: a cluster or `taskset` may give it fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _processor() -> str:
    """The name of the processor, or of its architecture if the name is not known."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
