"""`vit-cls import` and `vit-cls export`: checkpoints from other libraries, and to them."""

import argparse
import json
from pathlib import Path
from typing import Any

from modeling_vit_cls import FlaxViTClsForImageClassification, FlaxViTClsModel
from modeling_vit_cls.export import export_pretrained
from modeling_vit_cls.families.open import has_head, open_checkpoint
from modeling_vit_cls.hub.download import checkpoint_path


def run_import(arguments: argparse.Namespace) -> None:
    """Load and save, with the head that the checkpoint has."""
    if Path(arguments.source).exists() and Path(arguments.source).resolve() == Path(arguments.folder).resolve():
        raise ValueError(f"{arguments.folder}: is the source itself; give another folder")
    model, family = _load(arguments.source)
    model.save_pretrained(arguments.folder)
    _say(arguments, {"family": family, **_facts(model)})


def run_export(arguments: argparse.Namespace) -> None:
    """Load and write for the target."""
    model, _ = _load(arguments.model)
    export_pretrained(model, arguments.folder, arguments.to)
    _say(arguments, {"to": arguments.to, **_facts(model)})


def _load(name: str) -> tuple[Any, str]:
    """The model of a checkpoint, with a classifier if it has one, and the family that the checkpoint is of."""
    source = open_checkpoint(checkpoint_path(name))
    kind = FlaxViTClsForImageClassification if has_head(source) else FlaxViTClsModel
    return kind.from_pretrained(name), source.family.name


def _facts(model: Any) -> dict[str, Any]:
    return {"class": type(model).__name__, "parameters": model.num_parameters()}


def _say(arguments: argparse.Namespace, facts: dict[str, Any]) -> None:
    facts = {**facts, "folder": arguments.folder}
    print(json.dumps(facts) if arguments.json else "\n".join(f"{name}: {value}" for name, value in facts.items()))
