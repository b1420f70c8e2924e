"""Runs of the trainer on meshes, in a process with several devices: python mesh_runs.py FOLDER RUNS (JSON)."""

import json
import sys

import jax
import numpy as np
from conftest import tiny_config
from flax.traverse_util import flatten_dict

from modeling_vit_cls import FlaxViTClsForImageClassification
from modeling_vit_cls.images.sources import load_images
from modeling_vit_cls.training import FlaxTrainer, TrainingArguments, trainer

FIELDS = {"num_channels": 1, "num_labels": 10, "num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4}
FIELDS |= {"intermediate_size": 64, "hidden_dropout_prob": 0.1, "drop_path_rate": 0.1}
EVERYTHING = {"horizontal_flip": True, "random_resized_crop_scale": 0.5, "mixup_alpha": 0.2, "cutmix_alpha": 1.0}
EVERYTHING |= {"label_smoothing_factor": 0.1, "ema_decay": 0.9, "layer_decay": 0.8, "weight_decay": 0.1}
EVERYTHING |= {"gradient_accumulation_steps": 2, "learning_rate": 1e-3}
BATCH = 32  # images in an update, on every mesh


def run(folder: str, mesh: str, ways: int, steps: int, **changes) -> dict:
    """Train on a mesh that divides a batch into `ways` parts. Returns losses, parameters and what was compiled."""
    arguments = EVERYTHING | changes
    arguments["per_device_train_batch_size"] = BATCH // ways // arguments["gradient_accumulation_steps"]
    rows = load_images("digits", "train").select(range(100))  # the fourth batch has 28 places without an image
    how = TrainingArguments(
        f"{folder}/{mesh}-{len(changes)}",
        mesh=mesh,
        max_steps=steps,
        per_device_eval_batch_size=8,
        logging_steps=1,
        save_strategy="no",
        eval_strategy="steps",
        eval_steps=steps,
        disable_tqdm=True,
        **arguments,
    )
    steps_made = []

    def make_train_step(*parts):
        steps_made.append(make(*parts))
        return steps_made[-1]

    make, trainer.make_train_step = trainer.make_train_step, make_train_step
    try:
        model = FlaxViTClsForImageClassification(tiny_config(**FIELDS), seed=1)
        training = FlaxTrainer(model, how, rows, rows.select(range(20)))
        training.train()
    finally:
        trainer.make_train_step = make
    history = training.state.log_history
    params = {name: np.asarray(leaf) for name, leaf in flatten_dict(model.params, sep=".").items()}
    return {
        "batch": how.train_batch_size,
        "losses": [entry["loss"] for entry in history if "loss" in entry],
        "eval_loss": [entry["eval_loss"] for entry in history if "eval_loss" in entry],
        "compilations": [step._cache_size() for step in steps_made],
        "params": params,
    }


def compare(folder: str, meshes: dict[str, int], steps: int, **changes) -> dict:
    """Each mesh beside one device: relative differences of losses, largest difference of parameters, compilations."""
    with jax.default_device(jax.devices()[0]):
        one = run(folder, "data=-1", 1, steps, **changes)
    differences = {}
    for mesh, ways in meshes.items():
        other = run(folder, mesh, ways, steps, **changes)
        assert other["batch"] == one["batch"] == BATCH
        pairs = [*zip(one["losses"], other["losses"]), *zip(one["eval_loss"], other["eval_loss"])]
        assert len(pairs) == steps + 1
        params = [float(abs(one["params"][name] - leaf).max()) for name, leaf in other["params"].items()]
        differences[mesh] = {
            "losses": max(abs(a - b) / abs(a) for a, b in pairs),
            "params": max(params),
            "compilations": other["compilations"],
        }
    return differences


if __name__ == "__main__":
    folder, runs = sys.argv[1], json.loads(sys.argv[2])
    print(json.dumps([compare(folder, **each) for each in runs]))
