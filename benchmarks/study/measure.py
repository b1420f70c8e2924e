"""What is measured of a trained run: its curve, other readings of its features, changed images."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from modeling_vit_cls import FlaxViTClsForImageClassification, FlaxViTClsModel
from modeling_vit_cls.evaluation.features import Features, extract
from modeling_vit_cls.evaluation.probe import CS, fit_probe
from modeling_vit_cls.images.sampling import sample_rows
from modeling_vit_cls.images.sources import open_image
from modeling_vit_cls.names import TRAINER_STATE
from modeling_vit_cls.predict import predict
from modeling_vit_cls.training.recipe import Recipe
from modeling_vit_cls.training.run import load, load_splits

from .corruptions import corrupted

_BATCH = 128  # images of a forward pass
_PROBE_IMAGES = 10_000  # training images, at most, that a probe is fitted to
_PROBE_CS = CS[::4]
CHANGED_IMAGES = 2_000  # test images, at most, that are changed


def curve(folder: Path) -> list[list[float]]:
    """The learning curve of a run: rows of updates, loss in training since the row before, held-out loss, accuracy."""
    history = json.loads((folder / TRAINER_STATE).read_text())["log_history"]
    losses = {entry["step"]: entry["loss"] for entry in history if "loss" in entry}
    evaluated = [entry for entry in history if "eval_loss" in entry]
    return [[e["step"], losses[e["step"]], e["eval_loss"], e["eval_accuracy"]] for e in evaluated]


def readings(folder: Path, recipe: Recipe) -> dict[str, float]:
    """Accuracies on test images, read by the model's own readout and by others.

    "classifier mean" is the trained classifier on another readout of the same width, without training; "probe mean" is
    a linear probe of that readout, fitted to training images.
    """
    model = FlaxViTClsForImageClassification.from_pretrained(folder)
    backbone = FlaxViTClsModel.from_pretrained(folder)
    train, _ = load_splits(recipe.data, recipe.training.seed)
    train = train.select(sample_rows(train["label"], _PROBE_IMAGES, 0))
    fitted = extract(backbone, train, batch_size=_BATCH, disable_tqdm=True)
    tested = extract(backbone, load(recipe.data, "test"), batch_size=_BATCH, disable_tqdm=True)
    classifier: Any = model.params["classifier"]
    kernel, bias = np.asarray(classifier["kernel"]), np.asarray(classifier["bias"])
    accuracies = {}
    for readout in dict.fromkeys([backbone.config.readout, "cls", "mean"]):
        if tested.of(readout).shape[1] == len(kernel):
            accuracies[f"classifier {readout}"] = _accuracy(tested, tested.of(readout) @ kernel + bias)
        probe = fit_probe(fitted.of(readout), fitted.labels, fitted.names, _PROBE_CS, disable_tqdm=True)
        accuracies[f"probe {readout}"] = _accuracy(tested, probe.probabilities(tested.of(readout)))
    return accuracies


def robustness(folder: Path, recipe: Recipe) -> dict[str, float]:
    """Accuracies on a sample of the test images, unchanged and changed by each kind and strength."""
    model = FlaxViTClsForImageClassification.from_pretrained(folder)
    test = load(recipe.data, "test")
    test = test.select(sample_rows(test["label"], CHANGED_IMAGES, 0))
    images = np.stack([np.asarray(open_image(row["image"]).convert("L")) for row in test])
    labels = np.asarray(test["label"])
    accuracies = {}
    for name, changed in corrupted(images).items():
        logits = np.concatenate([outputs for outputs, _ in predict(model, [*changed], batch_size=_BATCH)])
        accuracies[name] = float((logits.argmax(axis=1) == labels).mean())
    return accuracies


def _accuracy(tested: Features, scores: np.ndarray) -> float:
    return float((scores.argmax(axis=1) == tested.labels).mean())
