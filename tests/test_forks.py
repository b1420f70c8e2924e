"""Forked processes: a model cannot be called where JAX was in use before the fork, and everything else works."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import multiprocessing
import sys

import numpy as np

from modeling_vit_cls import FlaxViTClsForImageClassification, ViTClsConfig
from modeling_vit_cls.training import FlaxTrainer, TrainingArguments

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
CONFIG = ViTClsConfig(**SIZES, image_size=8, patch_size=4, num_labels=2)
PIXELS = np.zeros((1, 3, 8, 8), np.float32)


def train():
    FlaxTrainer(model, TrainingArguments("run")).train()


WORK = {
    "call": lambda: model(PIXELS),
    "features": lambda: model.forward_intermediates(PIXELS),
    "new": lambda: FlaxViTClsForImageClassification(CONFIG)(PIXELS),
    "train": train,
    "process": lambda: model.image_processor(np.zeros((9, 9, 3), np.uint8)),
    "load": lambda: FlaxViTClsForImageClassification.from_pretrained("saved").save_pretrained("again"),
}


def work(name):
    try:
        WORK[name]()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "done"


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as forked:
        print("before", forked.apply_async(work, ["new"]).get(60))
    model = FlaxViTClsForImageClassification(CONFIG)
    model.save_pretrained("saved")
    FlaxViTClsForImageClassification.from_pretrained("saved")
    with context.Pool(1) as forked:
        for name in WORK:
            print(name, forked.apply_async(work, [name]).get(60), flush=True)
"""


def test_a_model_is_not_called_in_a_process_that_was_forked_when_jax_was_in_use(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-W", "ignore", "program.py"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    said = dict(line.split(" ", 1) for line in ended.stdout.splitlines())
    assert {name for name, text in said.items() if text == "done"} == {"before", "process", "load"}
    for name in ("call", "features", "new", "train"):
        assert said[name].startswith("ConfigError: start_method='fork': JAX was in use when this process was forked")
        assert "leave num_proc out" in said[name]
