"""results.json: what is recorded of a measurement, read and written byte for byte, and refused by field."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import jax
import pytest
from conftest import tiny_model

from modeling_vit_cls import CheckpointError
from modeling_vit_cls.evaluation.results import results
from modeling_vit_cls.results import Results

FOUND = {
    "metrics": {"accuracy": 0.5, "nll": 1.25},
    "examples": 360,
    "confusion_matrix": [[18] * 10] * 10,
    "throughput": {"images_per_second": 9.5, "batch_size": 50, "dtype": "float32", "includes": "decode, forward"},
}
COMMITTED = sorted((Path(__file__).parents[1] / "model_cards").glob("*/results.json"))


@pytest.fixture(scope="module")
def ten():
    return tiny_model(num_labels=10)


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.parent.name)
def test_committed_results_are_read_and_written_byte_for_byte(file, tmp_path):
    whole = Results.read(file)
    assert whole == Results.from_json(file.read_text())
    whole.write(tmp_path / "results.json")
    assert (tmp_path / "results.json").read_bytes() == file.read_bytes()


def test_results_say_of_what_and_where(ten, tmp_path):
    known = {"model_name": "me/ten", "dataset_name": "digits", "split": "test"}
    whole = results(FOUND, ten, **known, revision="abc", recipe={"learning_rate": 0.1})
    whole.write(tmp_path / "new" / "results.json")
    text = (tmp_path / "new" / "results.json").read_text()
    assert Results.from_json(text) == whole
    written = json.loads(text)
    assert len(text.splitlines()) < 80  # a row of the matrix is a line
    assert written["model"] == {
        "name": "me/ten",
        "class": "FlaxViTClsForImageClassification",
        "readout": "cls",
        "parameters": ten.num_parameters(),
    }
    assert written["dataset"] == {
        "name": "digits",
        "source": "built-in",
        "revision": "abc",
        "split": "test",
        "examples": 360,
    }
    assert written["recipe"] == {"learning_rate": 0.1}
    assert written["versions"]["jax"] == jax.__version__
    assert written["hardware"]["cores"] >= 1
    assert written["hardware"]["processor"]
    assert results(FOUND, ten, **known).recipe is None
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["results.json"]


def test_results_are_the_old_file_or_the_new_one(ten, tmp_path):
    file = tmp_path / "results.json"
    whole = results(FOUND, ten, model_name="ten", dataset_name="digits", split="test")
    whole.write(file)
    before = file.read_bytes()
    with pytest.raises(ValueError, match="Out of range float"):
        replace(whole, metrics={"accuracy": math.nan}).write(file)
    assert file.read_bytes() == before
    with pytest.raises(OSError, match="cannot be written"):
        whole.write(tmp_path)
    with pytest.raises(OSError, match="cannot be written"):
        whole.write(file / "results.json")
    assert os.listdir(tmp_path) == ["results.json"]


def test_results_of_a_version_that_recorded_less_are_read():
    old = {"dataset": {"name": "digits", "split": "test", "examples": 4}, "metrics": {"accuracy": 1.0}, "recipe": None}
    whole = Results.from_json(json.dumps(old))
    assert (whole.dataset.examples, whole.dataset.source, whole.training.dataset.name) == (4, None, None)
    assert Results.from_json(whole.to_json()) == whole


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"metrix": {}},
            "metrix is not a field of results.json: correct its name or remove it; did you mean 'metrics'",
        ),
        ({"metrics": [0.5]}, r"metrics must be names with values, got \[0\.5\]"),
        ({"dataset": {"exampels": 400}}, "dataset.exampels is not a field .* did you mean 'examples'"),
        ({"dataset": {"examples": "400"}}, "dataset.examples must be a number, got '400'"),
        ({"training": {"dataset": {"examples": True}}}, "training.dataset.examples must be a number, got True"),
        ({"training": "none"}, "training must be names with values, got 'none'"),
        ({"confusion_matrix": 5}, "confusion_matrix must be a list, got 5"),
    ],
)
def test_a_field_that_cannot_be_is_named(change, words, tmp_path):
    text = json.dumps({**json.loads(COMMITTED[0].read_text()), **change})
    (tmp_path / "results.json").write_text(text)
    for read in (lambda: Results.from_json(text), lambda: Results.read(tmp_path / "results.json")):
        with pytest.raises(CheckpointError, match=rf"results\.json: {words}"):
            read()


@pytest.mark.parametrize("text", ["{}", "[1]", "{", '{"date": "2026-11-26"}', "[" * 100_000])
def test_what_holds_no_results_is_refused_by_name(text, tmp_path):
    (tmp_path / "results.json").write_text(text)
    for read in (lambda: Results.from_json(text), lambda: Results.read(tmp_path / "results.json")):
        with pytest.raises(CheckpointError, match=r"results\.json: (the field metrics is missing|must|it must|cannot)"):
            read()
