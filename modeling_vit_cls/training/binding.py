"""Everything that determines the result of a run, stored in its checkpoints, and which of it may change on resume."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax.numpy as jnp

from ..config_rules import FIELD_NAMES, LATER_FIELDS
from ..errors import ConfigError, shorten
from ..images.fingerprint import fingerprint
from ..images.processor import ViTClsImageProcessor
from ..modeling_vit_cls import FlaxViTClsForImageClassification
from .arguments import TrainingArguments

# Arguments that may change when a run is resumed: they concern its folder, logs, saving, length or speed.
_FREE = {"output_dir", "run_name", "project", "report_to", "disable_tqdm", "resume_from_checkpoint", "max_bad_images"}
_FREE |= {"dataloader_num_workers", "per_device_eval_batch_size", "num_train_epochs", "max_steps"}
_FREE |= {"mesh", "per_device_train_batch_size"}  # `_GLOBAL_BATCH` counts: order and random numbers depend on it alone
_FREE_KINDS = ("logging_", "save_", "hub_")
_UNREPORTED = {"resume_from_checkpoint", "num_train_epochs", "max_steps"}  # the report of `total_steps` is enough
_PATHS = ("output_dir", "run_name")
_BATCH, _PARTS = "per_device_train_batch_size", "gradient_accumulation_steps"
_GLOBAL_BATCH = "global_batch"  # the images of all devices in an update

Run = dict[str, Any]


def run_of(
    arguments: TrainingArguments,
    model: FlaxViTClsForImageClassification,
    processor: ViTClsImageProcessor,
    total_steps: int,
    train_dataset: Any,
    eval_dataset: Any,
) -> Run:
    """Everything that determines the result of a run, as JSON values, without local paths."""
    fields = arguments.to_dict()
    fields[_GLOBAL_BATCH] = arguments.train_batch_size
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
    """The allowed changes since a checkpoint was written, one text each.

    Raises ConfigError, naming the field, for a change after which the result would differ from that of the same run
    without a stop.
    """

    def refuse(field: str, now: Any, was: Any) -> NoReturn:
        rule = f"the run in {checkpoint} had {shorten(was)}: use this value, or begin a new run in another output_dir"
        raise ConfigError(field, now, rule)

    changed: list[str] = []
    defaults = {name: getattr(TrainingArguments, name, None) for name in run["arguments"]}
    for name, now in run["arguments"].items():
        was = before["arguments"].get(name, defaults[name])  # a version without this argument computed like its default
        if now == was or name == _GLOBAL_BATCH:
            continue
        if name not in _FREE and not name.startswith(_FREE_KINDS):
            refuse(name, now, was)
        if name not in _UNREPORTED:
            changed.append(f"{name} is now {shorten(now)}, was {shorten(was)}")
    _check_same_batch(run["arguments"], before["arguments"], checkpoint)
    for part in ("config", "processor"):
        for name in sorted(set(run[part]) | set(before[part])):
            now, was = run[part].get(name), before[part].get(name, LATER_FIELDS.get(name))
            if now != was:
                refuse(name if part == "config" else f"processing_class.{name}", now, was)
    if run["class_names"] != before["class_names"]:
        refuse("id2label", run["class_names"], before["class_names"])
    for name in ("train_dataset", "eval_dataset"):
        _check_same_data(name, run[name], before[name], refuse)
    if run["total_steps"] < before["total_steps"]:
        field = "max_steps" if run["arguments"]["max_steps"] > 0 else "num_train_epochs"
        rule = f"gives {run['total_steps']:,} steps, but the run in {checkpoint} had {before['total_steps']:,}"
        raise ConfigError(field, run["arguments"][field], f"{rule}: it may have more, not fewer")
    if run["total_steps"] > before["total_steps"]:
        steps = f"the steps are now {run['total_steps']:,}, were {before['total_steps']:,}"
        changed.append(f"{steps}: the learning rate continues as in a run of this length")
    return changed


def _check_same_batch(now: Mapping[str, Any], before: Mapping[str, Any], checkpoint: Path) -> None:
    """Raise ConfigError if an update has another number of images than before, of all devices together."""
    was = before.get(_GLOBAL_BATCH)
    if was is None:  # a version that used one device
        was = before[_BATCH] * before[_PARTS]
    if now[_GLOBAL_BATCH] != was:
        each, rest = divmod(was * now[_BATCH], now[_GLOBAL_BATCH])
        remedy = "no number of images of a device gives this here: use another mesh" if rest else f"use {each}"
        images = f"{now[_GLOBAL_BATCH]} images of all devices in an update"
        raise ConfigError(_BATCH, now[_BATCH], f"gives {images}, but the run in {checkpoint} had {was}: {remedy}")


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
