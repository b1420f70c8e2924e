"""What binds a run: all that decides its result, as its checkpoints keep it, and what of it may change."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jax.numpy as jnp

from ..config_rules import FIELD_NAMES
from ..errors import ConfigError, shorten
from ..images.fingerprint import fingerprint
from ..images.processor import ViTClsImageProcessor
from ..modeling_vit_cls import FlaxViTClsForImageClassification
from .arguments import TrainingArguments

# Arguments that may change between a run and its continuation: where it is written, shown, kept, how it is computed.
_FREE = {"output_dir", "run_name", "project", "report_to", "disable_tqdm", "resume_from_checkpoint", "max_bad_images"}
_FREE |= {"dataloader_num_workers", "per_device_eval_batch_size", "num_train_epochs", "max_steps"}
_FREE_KINDS = ("logging_", "save_", "hub_")
_UNSAID = {"resume_from_checkpoint", "num_train_epochs", "max_steps"}  # `total_steps` says it
_PATHS = ("output_dir", "run_name")

Run = dict[str, Any]


def run_of(
    arguments: TrainingArguments,
    model: FlaxViTClsForImageClassification,
    processor: ViTClsImageProcessor,
    total_steps: int,
    train_dataset: Any,
    eval_dataset: Any,
) -> Run:
    """All that decides the result of a run, as JSON has it. No path of this machine is in it."""
    fields = arguments.to_dict()
    fields |= {name: Path(fields[name]).name for name in _PATHS if fields.get(name)}
    config = model.config
    labels: Any = config.id2label
    parts = {name: getattr(config, name) for name in FIELD_NAMES} | {"image_size": list(config.image_hw)}
    parts |= {"problem_type": config.problem_type, "dtype": jnp.dtype(model.dtype).name}
    run = {
        "arguments": fields,
        "config": parts,
        "processor": processor.to_dict(),
        "class_names": [str(labels[i]) for i in range(config.num_classes)],
        "train_dataset": fingerprint(train_dataset),
        "eval_dataset": None if eval_dataset is None else fingerprint(eval_dataset),
        "total_steps": total_steps,
    }
    return json.loads(json.dumps(run))


def changes_since(run: Run, before: Run, checkpoint: Path) -> list[str]:
    """What has changed since a checkpoint was written and may, in words.

    Raises ConfigError, naming the field, for what may not: the continuation would not be what the unbroken run is.
    """

    def refuse(field: str, now: Any, was: Any) -> NoReturn:
        rule = f"the run in {checkpoint} had {shorten(was)}: give that, or begin anew in another output_dir"
        raise ConfigError(field, now, rule)

    changed: list[str] = []
    defaults = {name: getattr(TrainingArguments, name, None) for name in run["arguments"]}
    for name, now in run["arguments"].items():
        was = before["arguments"].get(name, defaults[name])  # a version that had no such argument did as its default
        if now == was:
            continue
        if name not in _FREE and not name.startswith(_FREE_KINDS):
            refuse(name, now, was)
        if name not in _UNSAID:
            changed.append(f"{name} is now {shorten(now)}, was {shorten(was)}")
    for part in ("config", "processor"):
        for name in sorted(set(run[part]) | set(before[part])):
            now, was = run[part].get(name), before[part].get(name)
            if now != was:
                refuse(name if part == "config" else f"processing_class.{name}", now, was)
    if run["class_names"] != before["class_names"]:
        refuse("id2label", run["class_names"], before["class_names"])
    for name in ("train_dataset", "eval_dataset"):
        _check_same_data(name, run[name], before[name], refuse)
    if run["total_steps"] < before["total_steps"]:
        field = "max_steps" if run["arguments"]["max_steps"] > 0 else "num_train_epochs"
        rule = f"comes to {run['total_steps']:,} steps; the run in {checkpoint} had {before['total_steps']:,}"
        raise ConfigError(field, run["arguments"][field], f"{rule}, and may have more, not fewer")
    if run["total_steps"] > before["total_steps"]:
        steps = f"the steps are now {run['total_steps']:,}, were {before['total_steps']:,}"
        changed.append(f"{steps}: the learning rate goes on as in a run of so many")
    return changed


def _check_same_data(name: str, now: Any, was: Any, refuse: Callable[[str, Any, Any], NoReturn]) -> None:
    if now == was:
        return
    if now is None or was is None:
        refuse(name, *("no dataset" if data is None else f"{data['examples']} examples" for data in (now, was)))
    for field, text in (
        ("examples", "{} examples"),
        ("class_names", "classes {}"),
        ("labels", "labels of digest {}"),
        ("images", "images of digest {}"),
    ):
        if now[field] != was[field]:
            refuse(name, text.format(now[field]), text.format(was[field]))
