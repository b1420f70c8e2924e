"""Pictures: PNG files that are the same for the same input, whatever the names in them and the user's settings."""

import io
import sys

import matplotlib
import numpy as np
import pytest
from conftest import tiny_model
from PIL import Image

from modeling_vit_cls.pictures import attention_maps, confusion_matrix, has_curve, training_curve

LOG = [
    {"step": 10, "epoch": 1.0, "loss": 1.5, "learning_rate": 1e-3, "grad_norm": 1.0},
    {"step": 10, "epoch": 1.0, "eval_loss": 1.4, "eval_accuracy": 0.5, "eval_runtime": 1.0},
    {"step": 20, "epoch": 2.0, "loss": 0.5, "learning_rate": 5e-4, "grad_norm": 1.0},
    {"step": 20, "epoch": 2.0, "eval_loss": 0.6, "eval_accuracy": 0.9, "eval_runtime": 1.0},
    {"step": 20, "epoch": 2.0, "train_runtime": 3.0, "train_loss": 1.0},
]
ODD = ["a|b", "$x", "$\\frac", "new\nline", "日本語", "{{ x }}", "<b>", "", "_", "a" * 300]


def pixels_of(png: bytes) -> np.ndarray:
    picture = Image.open(io.BytesIO(png))
    assert picture.format == "PNG"
    assert picture.info.keys() <= {"dpi"}, "no version and no date"
    return np.asarray(picture.convert("RGB"))


@pytest.fixture
def images() -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8))


def test_the_same_input_gives_the_same_bytes(model, images):
    before = [training_curve(LOG), confusion_matrix([[3, 1], [0, 4]], ["a", "b"]), attention_maps(model, images)]
    with matplotlib.rc_context({"figure.dpi": 37, "axes.facecolor": "red", "savefig.format": "svg"}):
        after = [training_curve(LOG), confusion_matrix([[3, 1], [0, 4]], ["a", "b"]), attention_maps(model, images)]
    assert before == after
    for png in before:
        assert pixels_of(png).std() > 10, "not an empty sheet"


def test_pyplot_and_the_users_backend_are_left_alone(model, images):
    before = set(sys.modules)
    backend = matplotlib.rcParams._get("backend")
    training_curve(LOG)
    attention_maps(model, images)
    assert "matplotlib.pyplot" not in set(sys.modules) - before
    assert matplotlib.rcParams._get("backend") is backend


def test_a_curve_shows_what_was_logged():
    no_metrics = [{k: v for k, v in entry.items() if k != "eval_accuracy"} for entry in LOG]
    assert pixels_of(training_curve(no_metrics)).shape[1] < pixels_of(training_curve(LOG)).shape[1]
    assert training_curve([*LOG, {"step": 30, "loss": float("nan")}]) == training_curve(LOG)
    assert training_curve([*LOG, {"step": 30, "loss": 0.1}]) != training_curve(LOG)
    assert has_curve(LOG)
    assert not has_curve(LOG[:1])
    assert not has_curve([])


@pytest.mark.parametrize("classes", [1, 10, 21, 41, 100])
def test_any_number_of_classes_and_any_names(classes):
    matrix = np.random.default_rng(0).integers(0, 9, (classes, classes))
    matrix[0] = 0  # a class without examples
    names = [(ODD * classes)[i] for i in range(classes)]
    assert max(pixels_of(confusion_matrix(matrix.tolist(), names)).shape) < 1800


def test_a_confusion_is_seen():
    right, wrong = (pixels_of(confusion_matrix(m, ["a", "b"])) for m in ([[4, 0], [0, 4]], [[0, 4], [4, 0]]))
    assert (right != wrong).mean() > 0.1


@pytest.mark.parametrize("readout", ["cls", "mean", "cls_mean", "map"])
def test_the_brightest_patch_is_the_one_that_is_attended_to(readout):
    images = [np.full((8, 8, 3), 120, np.uint8)]  # plain, for the map is laid over it
    reader = tiny_model(readout=readout, num_register_tokens=2)
    picture = pixels_of(attention_maps(reader, images)).astype(float)
    lower = picture[len(picture) // 2 :]
    rows, columns = np.nonzero((lower < 250).any(axis=2))
    heat = lower[rows.min() : rows.max(), columns.min() : columns.max()].mean(axis=2)
    centres = [len(heat) // 4, 3 * len(heat) // 4]  # of 2 x 2 patches
    shown = heat[np.ix_(centres, centres)].ravel()

    pixel_values = reader.image_processor(images)["pixel_values"]
    last = np.asarray(reader(pixel_values, output_attentions=True).attentions[-1])[0].mean(axis=0)
    expected = last[0, 3:] if "cls" in readout else last[3:, 3:].mean(axis=0)
    assert np.array_equal(np.argsort(shown), np.argsort(expected))


def test_names_of_the_predicted_class_may_be_odd(images):
    odd = tiny_model(num_labels=None, id2label=dict(enumerate(ODD[:5])))
    assert pixels_of(attention_maps(odd, images[:1])).ndim == 3
