"""Pictures: PNG files that are the same for the same input, whatever the names in them and the user's settings."""

import io
import sys
from typing import get_args

import matplotlib
import numpy as np
import pytest
from conftest import tiny_model
from matplotlib.figure import Figure
from PIL import Image

from modeling_vit_cls.cards.pictures import attention_maps, confusion_matrix, has_curve, training_curve
from modeling_vit_cls.config_rules import Readout

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
    assert has_curve(LOG[:1])
    assert not has_curve(LOG[-1:])
    assert not has_curve([])


def test_a_log_of_one_step_is_drawn_as_a_point(monkeypatch):
    figures = drawn(monkeypatch)
    training_curve(LOG[:2])
    (losses, metrics) = figures[0].axes
    assert [line.get_marker() for line in (*losses.lines, *metrics.lines)] == ["o", "o", "o"]


def test_any_number_of_images_is_drawn_six_in_a_row(model, monkeypatch):
    figures = drawn(monkeypatch)
    images = [np.full((8, 8, 3), 20 * number, np.uint8) for number in range(12)]
    for count in (1, 6, 7, 10, 12):
        attention_maps(model, images[:count])
    shown = [[len(axes.images) for axes in figure.axes] for figure in figures]
    assert [sum(counts) for counts in shown] == [2, 12, 14, 20, 24]
    assert [len(figure.axes[0].get_gridspec().get_width_ratios()) for figure in figures] == [1, 6, 4, 5, 6]


def drawn(monkeypatch) -> list:
    """Every figure that is saved."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (figures.append(figure), save(figure, *a, **k)))
    return figures


def test_a_short_run_shows_its_mean_loss_and_whole_steps(monkeypatch):
    figures = drawn(monkeypatch)
    evaluations = [{"step": step, "eval_loss": 1 / step, "eval_accuracy": 0.5} for step in (4, 8)]
    training_curve([*evaluations, {"step": 8, "train_loss": 0.7}])
    training_curve([*evaluations, {"step": 8, "loss": 0.6}])
    training_curve(LOG)
    short, logged_once, long = (figure.axes[0] for figure in figures)
    legends = [
        [text.get_text().strip() for text in axes.get_legend().get_texts()] for axes in (short, logged_once, long)
    ]
    assert legends == [
        ["training, mean of the run", "evaluation"],
        ["training", "evaluation"],
        ["training", "evaluation"],
    ]
    colours = [{line.get_label().split(",")[0].strip(): line.get_color() for line in axes.lines} for axes in
               (short, logged_once, long)]  # fmt: skip
    assert colours[0] == colours[1] == colours[2], "a loss has one colour, whatever is drawn beside it"
    for figure in figures:
        for axes in figure.axes:
            figure.canvas.draw()
            low, high = axes.get_xlim()
            assert all(tick == int(tick) for tick in axes.get_xticks() if low <= tick <= high)


def test_a_metric_has_one_colour_whatever_is_beside_it(monkeypatch):
    figures = drawn(monkeypatch)
    log = [{"step": step, "eval_loss": 1.0, "eval_f1": 0.5, "eval_accuracy": 0.5} for step in (1, 2)]
    training_curve(log)
    training_curve([{"step": entry["step"], "eval_accuracy": 0.5} for entry in log])
    (both, alone) = (figure.axes[-1].lines[0] for figure in figures)
    assert (both.get_label().strip(), both.get_color()) == (alone.get_label().strip(), alone.get_color())


def test_titles_say_what_was_predicted_and_whether_it_is_right(model, images, monkeypatch):
    figures = drawn(monkeypatch)
    predicted = np.asarray(model(model.image_processor(images)["pixel_values"]).logits).argmax(axis=1)
    labels = [model.config.id2label[int(predicted[0])], "tabby | cat", "LABEL_99"]
    attention_maps(model, images, labels)
    attention_maps(model, images)
    with_labels, without = ([axes.get_title() for axes in figure.axes if axes.get_title()] for figure in figures)
    assert with_labels[0].endswith("\nright")
    assert with_labels[1].endswith("\nwrong: is tabby | cat")
    assert with_labels[2].endswith("\nwrong: is LABEL_99")
    assert [title.split("\n")[0] for title in with_labels] == without


def test_the_map_lies_over_its_image(model, monkeypatch):
    """Of two halves of an image, the bright one is brighter under any one weight."""
    figures = drawn(monkeypatch)
    half = np.zeros((8, 8, 3), np.uint8)
    half[:, ::2] = 255  # columns narrower than a patch
    attention_maps(model, [half])
    overlaid = figures[0].axes[1].images[0].get_array()
    assert overlaid.shape == (8, 8, 3)
    assert (overlaid[:, ::2].mean(axis=-1) > overlaid[:, 1::2].mean(axis=-1)).all()


@pytest.mark.parametrize("classes", [1, 10, 21, 41, 100])
def test_any_number_of_classes_and_any_names(classes):
    matrix = np.random.default_rng(0).integers(0, 9, (classes, classes))
    matrix[0] = 0  # a class without examples
    names = [(ODD * classes)[i] for i in range(classes)]
    assert max(pixels_of(confusion_matrix(matrix.tolist(), names)).shape) < 1800


def test_a_confusion_is_seen():
    right, wrong = (pixels_of(confusion_matrix(m, ["a", "b"])) for m in ([[4, 0], [0, 4]], [[0, 4], [4, 0]]))
    assert (right != wrong).mean() > 0.1


@pytest.mark.parametrize("readout", get_args(Readout))
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
