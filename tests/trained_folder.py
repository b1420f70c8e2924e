"""The folder of a trained model, as a card is written from it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from test_pictures import LOG

RESULTS: dict[str, Any] = {
    "model": {"name": "trained", "class": "FlaxViTClsForImageClassification", "readout": "cls", "parameters": 1},
    "dataset": {"name": "someone/flowers", "source": "hub", "split": "test", "examples": 400, "revision": "5503434"},
    "metrics": {"accuracy": 0.96, "macro_f1": 0.951234},
    "confusion_matrix": (np.eye(5, dtype=int) * 80).tolist(),
    "throughput": {"images_per_second": 1234.5, "batch_size": 32, "dtype": "float32", "includes": "decode, forward"},
    "recipe": None,
    "training": {"base_model": {"name": "google/vit-base-patch16-224", "source": "hub"}},
    "versions": {"jax": "0.10.2", "vit-cls": "0.1.0"},
    "hardware": {"processor": "A Processor (R)", "cores": 2, "accelerators": ["NVIDIA H200", "NVIDIA H200"]},
    "date": "2026-11-23",
}
RECIPE = {"license": "apache-2.0", "model_name_or_path": "google/vit-base-patch16-224", "learning_rate": 1e-3}
STATE = {"global_step": 20, "epoch": 2.0, "log_history": LOG}


def trained_folder(saved: Path, place: Path) -> Path:
    """A copy of a saved model's folder as training and benchmark leave it."""
    folder = Path(shutil.copytree(saved, place / "trained"))
    write(folder, results=RESULTS, recipe=RECIPE, state=STATE)
    return folder


def write(folder: Path, results: Any = None, recipe: Any = None, state: Any = None) -> None:
    files = {"results.json": results, "recipe.yaml": recipe, "trainer_state.json": state}
    for name, content in files.items():
        if content is not None:
            (folder / name).write_text(yaml.safe_dump(content) if name.endswith("yaml") else json.dumps(content))


def cells(line: str) -> list[str]:
    """Cells of a row of a table, as GitHub's Markdown splits it."""
    return re.split(r"(?<!\\)\|", line)[1:-1]
