"""Machine-readable metadata of a card: the YAML header of README.md, and the Hub's .eval_results."""

import math
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from ..errors import one_line
from ..provenance import BUILT_IN, last_name
from .facts import Facts

_TASK = "image-classification"


def card_metadata(facts: Facts) -> str:
    """The YAML header of a card. Facts that are not known are left out."""
    fields: dict[str, Any] = {}
    if facts.recipe.get("license"):
        fields["license"] = one_line(facts.recipe["license"])
    if base_model := facts.training.base_model.hub_id:
        fields |= {"base_model": base_model, "base_model_relation": "finetune"}
    if facts.dataset.hub_id:
        fields["datasets"] = [facts.dataset.hub_id]
    results = _eval_results(facts)
    if results:
        fields |= {"metrics": [result.metric_type for result in results], "eval_results": results}
        fields["model_name"] = one_line(facts.name)  # for the model-index, which is made from the results
    data = ModelCardData(library_name="vit-cls", pipeline_tag=_TASK, tags=["jax", "flax", "vision"], **fields)
    return data.to_yaml(line_break="\n").strip()


def eval_results_yaml(facts: Facts) -> str | None:
    """The content of `.eval_results/*.yaml`, which the Hub shows with a model; None for a dataset not on the Hub.

    It has one entry: the accuracy, or else the first metric. Format: huggingface.co/docs/hub/eval-results.
    """
    finite, measured = _finite(facts), facts.dataset
    if not measured.hub_id or not finite:
        return None
    name = "accuracy" if "accuracy" in finite else next(iter(finite))
    dataset = {"id": measured.hub_id, "task_id": "default"}
    if measured.revision:
        dataset["revision"] = one_line(measured.revision)
    entry: dict[str, Any] = {"dataset": dataset, "value": finite[name]}
    if facts.results.date:
        entry["date"] = one_line(facts.results.date)
    notes = [one_line(name)]
    if measured.split:
        notes.append(f"split {one_line(measured.split)}")
    if measured.examples:
        notes.append(f"{measured.examples} examples")
    if facts.is_of_features:
        notes.append(f"by {one_line(facts.results.features.method)} on features")
    entry["notes"] = ", ".join(notes)
    return yaml.safe_dump([entry], sort_keys=False, allow_unicode=True)


def dataset_title(facts: Facts) -> str:
    """A dataset's name for readers: its id, or the last part of its path; the full path is private."""
    name = str(facts.dataset.name or "")
    return facts.dataset.hub_id or (last_name(name) if name.strip("/") else "")


def _eval_results(facts: Facts) -> list[EvalResult]:
    title = dataset_title(facts)
    # For a dataset that is not on the Hub, the type is the way it was loaded.
    kind = facts.dataset.hub_id or (title if title in BUILT_IN else "imagefolder")
    return [
        EvalResult(
            task_type=_TASK,
            dataset_type=kind,
            dataset_name=title,
            dataset_split=_text(facts.dataset.split),
            dataset_revision=_text(facts.dataset.revision),
            metric_type=one_line(name),
            metric_value=value,
        )
        for name, value in _finite(facts).items()
        if title
    ]


def _text(value: Any) -> str | None:
    return None if value is None else one_line(value)


def _finite(facts: Facts) -> dict[str, float]:
    return {name: value for name, value in facts.metrics.items() if math.isfinite(value)}
