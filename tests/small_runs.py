"""Runs of a trainer that take no time: real folders, real data, updates of plain NumPy."""

import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import tiny_config
from transformers import TrainerCallback

from modeling_vit_cls import FlaxViTClsForImageClassification
from modeling_vit_cls.images.sources import load_images
from modeling_vit_cls.training import FlaxTrainer, TrainingArguments

FULL = load_images("digits", "train")
ROWS = FULL.select(range(64))
EVERY_STEP = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
MODEL = {"config.json", "model.safetensors", "preprocessor_config.json"}


@pytest.fixture(scope="module", autouse=True)
def steps_without_compiling():
    """Updates that are functions of seed, step and rows, as real ones are (test_resume.py), but of plain NumPy.

    Every evaluation gives the same accuracy, and a greater loss than the one before.
    """

    def make_train_step(module, optimizer, processor, arguments):
        def step(state, batch):
            update = np.float32(0.001 * (2 + np.sin(arguments.seed + int(state.step) + batch.rows.sum())))
            params = jax.tree.map(lambda leaf: np.asarray(leaf) + update, state.params)
            state = state.replace(step=state.step + 1, params=params, loss_sum=state.loss_sum + 1)
            return state, {"loss": np.float32(1), "grad_norm": np.float32(1), "finite": True}

        return step

    def predict(model, images, *, params, batch_size, **_):
        certainty = np.float32(1 + np.mean(params["classifier"]["bias"]))  # that every image is of class 0
        for start in range(0, len(images), batch_size):
            rows = np.arange(len(images))[start : start + batch_size]
            yield certainty * np.eye(10, dtype=np.float32)[0 * rows], rows

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modeling_vit_cls.training.trainer.make_train_step", make_train_step)
        patch.setattr("modeling_vit_cls.training.evaluation.predict", predict)
        yield


def trainer(folder, data=ROWS, callbacks=None, processor=None, config=None, **changes) -> FlaxTrainer:
    """Two steps to an epoch."""
    few = {"max_steps": 2, "per_device_train_batch_size": 32, "save_strategy": "no", "disable_tqdm": True}
    model = FlaxViTClsForImageClassification(tiny_config(num_channels=1, num_labels=10, **(config or {})))
    arguments = TrainingArguments(str(folder), **(few | changes))
    return FlaxTrainer(model, arguments, data, ROWS.select(range(16)), processor, callbacks=callbacks)


def run(folder, *more, **changes) -> FlaxTrainer:
    made = trainer(folder, *more, **changes)
    made.train()
    return made


def copied(source: Path, target: Path) -> Path:
    subprocess.run(["cp", "-r", source, target], check=True)
    return target


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A run of two steps that kept both."""
    folder = tmp_path_factory.mktemp("base") / "run"
    run(folder, **EVERY_STEP)
    return folder


class At(TrainerCallback):
    """Do something once a step is made."""

    def __init__(self, step: int, action):
        self.step, self.action = step, action

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.action()


def refuse(*_, **__):
    raise PermissionError(1, "Operation not permitted")
