"""Scores of classes as transformers' pipeline makes them: by problem_type, one label, or as asked."""

import json

import numpy as np
import pytest
from conftest import pixels, tiny_model
from PIL import Image
from transformers import AutoConfig

from modeling_vit_cls import (
    ConfigError,
    FlaxViTClsForImageClassification,
    ImageClassificationPipeline,
    ViTClsConfig,
    export_pretrained,
)
from modeling_vit_cls.evaluation.benchmark import benchmark
from modeling_vit_cls.images.sources import load_images
from modeling_vit_cls.training import FlaxTrainer, TrainingArguments

pytestmark = pytest.mark.world

MULTI, SINGLE = "multi_label_classification", "single_label_classification"


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def identity(x):
    return x


@pytest.mark.parametrize(
    ("labels", "kind", "function"),
    [
        (3, None, softmax),
        (3, SINGLE, softmax),
        (3, MULTI, sigmoid),
        (3, "regression", identity),
        (1, None, sigmoid),
        (1, MULTI, sigmoid),
        (1, SINGLE, sigmoid),
        (1, "regression", identity),
    ],
)
def test_problem_type_comes_through_every_door_and_says_the_function(labels, kind, function, tmp_path):
    model = tiny_model(num_labels=labels, problem_type=kind, num_hidden_layers=1)
    model.save_pretrained(tmp_path / "ours")
    export_pretrained(model, tmp_path / "theirs", "transformers")
    image, path = Image.new("RGB", (20, 20), "teal"), tmp_path / "image.png"
    image.save(path)
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        assert json.loads((folder / "config.json").read_text()).get("problem_type") == kind
        pipeline = ImageClassificationPipeline(str(folder))
        assert pipeline.model.config.problem_type == kind
    found = pipeline(path)[0]
    logits = np.asarray(pipeline.model(pipeline.processor(image)["pixel_values"]).logits)[0]
    right = sorted(function(logits), reverse=True)
    np.testing.assert_allclose([row["score"] for row in found], right, rtol=1e-5)
    assert AutoConfig.from_pretrained(tmp_path / "ours").problem_type == kind


def test_the_function_can_be_asked_for(model):
    image = Image.new("RGB", (8, 8), "teal")
    logits = np.asarray(model(model.image_processor(image)["pixel_values"]).logits)[0]
    for asked, function in (("sigmoid", sigmoid), ("softmax", softmax), ("none", identity), ("default", softmax)):
        for found in (
            ImageClassificationPipeline(model, function_to_apply=asked)(image)[0],
            ImageClassificationPipeline(model)(image, function_to_apply=asked)[0],
        ):
            right = sorted(function(logits), reverse=True)
            np.testing.assert_allclose([row["score"] for row in found], right, rtol=1e-4)
    with pytest.raises(ConfigError, match="function_to_apply='tanh'"):
        ImageClassificationPipeline(model, function_to_apply="tanh")


def test_large_logits_overflow_nowhere():
    model = tiny_model(problem_type=MULTI)
    model.params = {**model.params, "classifier": {n: 1e6 * leaf for n, leaf in model.params["classifier"].items()}}
    scores = [row["score"] for row in ImageClassificationPipeline(model)(Image.new("RGB", (8, 8), "teal"))[0]]
    assert 0 <= min(scores) <= max(scores) <= 1


def test_an_unknown_problem_type_is_refused_by_name():
    with pytest.raises(ConfigError, match="problem_type='multi_label': must be one of 'single_label"):
        ViTClsConfig(problem_type="multi_label")


def test_what_knows_one_class_an_image_refuses_others(tmp_path):
    digits = load_images("digits", "test").select(range(8))
    for kind in (MULTI, "regression"):
        model = tiny_model(num_channels=1, num_labels=10, problem_type=kind, num_hidden_layers=1)
        with pytest.raises(ConfigError, match=f"problem_type='{kind}': a benchmark needs one class per image"):
            benchmark(model, digits)
        with pytest.raises(ConfigError, match=f"problem_type='{kind}': FlaxTrainer needs one class per image"):
            FlaxTrainer(model, TrainingArguments(str(tmp_path)), digits)
    model.save_pretrained(tmp_path / "model")
    again = FlaxViTClsForImageClassification.from_pretrained(tmp_path / "model", problem_type=None)
    assert again.config.problem_type is None
    np.testing.assert_array_equal(again(pixels(channels=1)).logits, model(pixels(channels=1)).logits)
