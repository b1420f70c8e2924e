"""What a card tells of the training: data and their licence, losses, the best step, how to cite."""

import re
from pathlib import Path

import numpy as np
import optax
import pytest
import yaml
from conftest import tiny_model
from test_pictures import drawn
from trained_folder import RESULTS, STATE, trained_folder, write

from modeling_vit_cls.cards import render_card, write_card
from modeling_vit_cls.images.augmentation import Augmentation


@pytest.fixture
def folder(model_folder, tmp_path) -> Path:
    return trained_folder(model_folder, tmp_path)


def test_the_card_says_what_test_and_training_images_share(folder):
    assert "in the training data too" not in render_card(folder)
    write(folder, results={**RESULTS, "dataset": {**RESULTS["dataset"], "duplicates": 3}})
    assert (
        "**3 of these images are in the training data too, byte for byte: the numbers are too good.**"
        in render_card(folder)
    )


@pytest.mark.parametrize(
    ("split", "recipe", "is_said"),
    [
        ("10% of train", {"load_best_model_at_end": True}, True),
        ("val", {"load_best_model_at_end": True, "eval_split": "val"}, True),
        ("10% of train", {}, False),
        ("test", {"load_best_model_at_end": True}, False),
        ("test", {"load_best_model_at_end": True, "eval_split": "val"}, False),
    ],
)
def test_the_card_says_whether_the_measured_images_chose_the_step(split, recipe, is_said, folder):
    write(folder, results={**RESULTS, "dataset": {**RESULTS["dataset"], "split": split}}, recipe=recipe)
    assert ("**These images also chose the step of the training that was saved" in render_card(folder)) == is_said


def test_the_card_says_how_the_model_was_trained(folder):
    recipe = {"load_best_model_at_end": True, "metric_for_best_model": "accuracy", "label_smoothing_factor": 0.1}
    recipe |= {"mixup_alpha": 0.2, "ema_decay": 0.99, "dataset_name": "./photos"}
    dataset = {"name": "photos", "source": "folder", "split": "train", "examples": 162}
    state = {**STATE, "best_global_step": 10, "best_metric": 0.975}
    training = {"dataset": dataset, "left_out": 3}
    write(folder, results={**RESULTS, "training": training}, recipe=recipe, state=state)
    text = render_card(folder)
    for words in (
        "Training data: photos, a folder of the author's own, split train, 162 images. Its licence is not stated.",
        "Images that could not be read, and were left out: 3.",
        "The weights are those of step 10, the best of the run by eval\\_accuracy (0.9750).",
        "Training loss: 0.5000 at the end. It is computed with mixup (0.2), smoothed labels (0.1).",
        "Evaluation loss: 0.6000 at the end, without these, on a part of split train that was held out.",
        "So the two losses cannot be compared.",
        "a moving average of the parameters (decay 0.99)",
        "The images (photos) are a folder of the author's own and are not published: give yours by `--dataset_name",
        "write `import modeling_vit_cls`",
    ):
        assert words in text
    assert "fine-tuned" not in text
    write(folder, recipe={**recipe, "load_best_model_at_end": False})
    assert "The weights are those" not in render_card(folder)


def test_the_rest_of_a_probe_is_that_of_a_base_model_where_there_is_one(folder):
    for recipe, is_said in (({"model_name_or_path": "org/vit"}, True), ({}, False)):
        write(folder, recipe={"freeze_backbone": True, **recipe})
        assert ("the rest is that of the model it was fine-tuned from" in render_card(folder)) == is_said


def test_a_short_run_has_its_mean_loss(folder):
    log = [{"step": 20, "epoch": 2.0, "train_loss": 0.75, "train_runtime": 1.0}]
    write(folder, state={"global_step": 20, "epoch": 2.0, "log_history": log})
    text = render_card(folder)
    assert "Trained for 20 steps, 2 epochs. Training loss: 0.7500 on average over the run." in text
    assert "Evaluation loss" not in text


def test_smoothed_labels_have_a_smallest_loss(folder):
    """The loss of the best answer, which gives each class the share that the smoothed label has."""
    write(folder, recipe={"label_smoothing_factor": 0.1})
    (shown,) = re.findall(r"With smoothed labels it cannot fall below ([\d.]+)\.", render_card(folder))
    target = optax.smooth_labels(np.eye(5, dtype=np.float32)[0], 0.1)
    assert float(shown) == pytest.approx(float(optax.softmax_cross_entropy(np.log(target), target)), abs=1e-4)
    write(folder, recipe={"label_smoothing_factor": 0.0})
    assert "cannot fall below" not in render_card(folder)


def test_what_changes_the_training_loss_is_named_in_card_and_curve(tmp_path, monkeypatch):
    """Every field of the augmentation and every kind of dropout."""
    fields = {"random_resized_crop_scale": 0.5, **dict.fromkeys(Augmentation._fields, 0.5), "horizontal_flip": True}
    fields["label_smoothing_factor"] = 0.5
    rates = {"hidden_dropout_prob": 0.25, "attention_probs_dropout_prob": 0.25, "drop_path_rate": 0.25}
    changed, figures = [], drawn(monkeypatch)
    for number, (name, value) in enumerate({**fields, **rates}.items()):
        folder = tmp_path / str(number)
        tiny_model(**({name: value} if name in rates else {})).save_pretrained(folder)
        write(folder, recipe={"eval_split": "dev", **({} if name in rates else {name: value})}, state=STATE)
        (words,) = re.findall(r"It is computed with (.+?)\.( |$)", render_card(folder))
        assert "without these, on split dev." in render_card(folder)
        changed.append(words[0].partition(" (")[0])
        write_card(folder)
        labels = [text.get_text() for text in figures[-1].axes[0].get_legend().get_texts()]
        assert f"({changed[-1]})" in labels[0]
        assert "(without these)" in labels[1]
    assert len(set(changed)) == len(changed)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"name": "digits", "source": "built-in"}, "Its licence is CC BY 4.0."),
        ({"name": "fashion_mnist", "source": "built-in"}, "Its licence is MIT."),
        ({"name": "digits", "source": "folder"}, "Its licence is not stated."),
        ({"name": "someone/flowers", "source": "hub"}, "Its licence is not stated here: see its page on the Hub."),
    ],
)
def test_the_licence_of_the_training_data_is_stated_where_it_is_known(data, words, folder):
    write(folder, results={**RESULTS, "training": {"dataset": data}})
    text = render_card(folder)
    assert words in text
    assert text.count("Its licence") == 1


def test_the_card_cites_the_model_and_the_package(folder):
    package = yaml.safe_load((Path(__file__).parents[1] / "CITATION.cff").read_text())
    (text,) = re.findall(r"```bibtex\n(.*?)```", render_card(folder, "user/flowers-vit"), re.DOTALL)
    model, software = text.split("\n\n")
    assert "year = {2026}" in model
    assert "url = {https://huggingface.co/user/flowers-vit}" in model
    assert f"title = {{{{{package['title']}}}}}" in software
    assert "author = {{The vit-cls authors}}" in software
    assert "version = {0.1.0}" in software
    assert text.count("{") == text.count("}")
    assert "huggingface.co" not in re.findall(r"```bibtex\n(.*?)```", render_card(folder), re.DOTALL)[0]
