"""`vit-cls import` and `vit-cls export`: checkpoints from and for other libraries."""

import argparse
import json
from pathlib import Path
from typing import Any

from modeling_vit_cls import FlaxViTClsForImageClassification, FlaxViTClsModel
from modeling_vit_cls.export import export_pretrained
from modeling_vit_cls.families.open import has_head
from modeling_vit_cls.hub.adapted import open_with_base
from modeling_vit_cls.hub.download import checkpoint_path


def run_import(arguments: argparse.Namespace) -> None:
    """Load another library's checkpoint and save it as one of this package, with its head."""
    source, folder = Path(arguments.source), Path(arguments.folder).resolve()
    if source.exists() and folder in (source.resolve(), source.resolve().parent if source.is_file() else None):
        raise ValueError(f"{arguments.folder}: holds the source itself; give another folder")
    model, family = _load(arguments.source, arguments.revision)
    model.save_pretrained(arguments.folder)
    _report(arguments, {"family": family, **_facts(model)})


def run_export(arguments: argparse.Namespace) -> None:
    """Load a model and export it for the target."""
    model, _ = _load(arguments.model, arguments.revision)
    export_pretrained(model, arguments.folder, arguments.to)
    _report(arguments, {"to": arguments.to, **_facts(model)})


def _load(name: str, revision: str | None) -> tuple[Any, str]:
    """The model of a checkpoint, with a classifier if the checkpoint has one, and the name of its family."""
    source = open_with_base(checkpoint_path(name, revision=revision))
    model_class = FlaxViTClsForImageClassification if has_head(source) else FlaxViTClsModel
    return model_class.from_pretrained(name, revision=revision), source.family.name


def _facts(model: Any) -> dict[str, Any]:
    return {"class": type(model).__name__, "parameters": model.num_parameters()}


def _report(arguments: argparse.Namespace, facts: dict[str, Any]) -> None:
    """Print facts as lines or as JSON."""
    facts = {**facts, "folder": arguments.folder}
    print(json.dumps(facts) if arguments.json else "\n".join(f"{name}: {value}" for name, value in facts.items()))
