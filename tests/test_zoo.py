"""The zoo: its list, what it is made of, and how a model that was made anew is compared."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks import zoo
from hub_scripts.zoo import read_zoo
from modeling_vit_cls.names import RECIPE, RESULTS
from modeling_vit_cls.results import Results

NAME = "vit_cls_digits_cls"
SHORT = ("--max_steps", "2", "--eval_strategy", "no", "--max_train_samples", "200")


def test_the_list_names_what_is_committed_and_can_be_made():
    models = read_zoo(zoo.CARDS / "zoo.yaml").models
    folders = {entry.name for entry in zoo.CARDS.iterdir() if entry.is_dir()}
    recipes = {file.stem for file in (zoo.ROOT / "configuration").glob("vit_cls_*.yaml")}
    assert {model.folder.resolve() for model in models} == {zoo.ZOO / name for name in zoo.names()}
    assert {model.repo_id.split("/")[1] for model in models} == folders
    assert folders == recipes | zoo.PROBES.keys()
    assert {backbone for backbone, _ in zoo.PROBES.values()} <= recipes


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The folder of a zoo with one model, hardly trained."""
    folder = tmp_path_factory.mktemp("zoo")
    zoo.train(NAME, folder / NAME, *SHORT)
    return folder


@pytest.fixture
def folder(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "zoo") / NAME


def test_a_model_is_made_once_for_a_recipe(folder):
    written = (folder / RESULTS).stat().st_mtime_ns
    assert zoo.train(NAME, folder, *SHORT).model.readout == "cls"
    assert (folder / RESULTS).stat().st_mtime_ns == written
    recipe = yaml.safe_load((folder / RECIPE).read_text())
    (folder / RECIPE).write_text(yaml.safe_dump(recipe | {"learning_rate": 1e-4}))
    zoo.train(NAME, folder, *SHORT)
    assert (folder / RESULTS).stat().st_mtime_ns > written
    assert yaml.safe_load((folder / RECIPE).read_text()) == recipe


def test_what_is_committed_is_without_weights_and_pictures(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "ZOO", folder.parent)
    monkeypatch.setattr(zoo, "CARDS", tmp_path)
    assert {"attention.png", "model.safetensors"} <= {file.name for file in folder.iterdir()}
    zoo.commit(NAME)
    committed = {file.name for file in (tmp_path / NAME).iterdir()}
    assert committed == {"config.json", "results.json", "recipe.yaml", "trainer_state.json"}
    assert ".png" not in (tmp_path / f"{NAME}.md").read_text()


def test_a_probe_is_fitted_anew_and_committed_without_a_recipe(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "ZOO", folder.parent)
    monkeypatch.setattr(zoo, "CARDS", tmp_path)
    probe = folder.parent / "probe"
    probe.mkdir()
    (probe / "old").touch()
    results = zoo.fit_probe(folder, "digits", probe)
    assert results.features.method == "probe"
    assert not (probe / "old").exists()
    zoo.commit("probe")
    assert {file.name for file in (tmp_path / "probe").iterdir()} == {"config.json", "results.json"}


@pytest.mark.parametrize(
    ("change", "size", "wrong"),
    [
        (0.0, 1_000, None),
        (0.019, zoo.LARGEST, None),
        (-0.021, 1_000, "the accuracy differs from the committed one by more than 0.02"),
        (0.0, zoo.LARGEST + 1, "the weights have more than 8 MB"),
    ],
)
def test_what_differs_by_more_than_the_tolerance_is_a_problem(change, size, wrong):
    committed = Results.read(zoo.CARDS / NAME / RESULTS)
    accuracy = committed.metrics["accuracy"] + change
    assert zoo.problem(replace(committed, metrics={"accuracy": accuracy}), committed, size) == wrong
