"""What is pushed, seen before it is: a plan without a network; no file that names a place on the user's machine."""

import getpass
import itertools
import json
import re
import socket
import sys
import time
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import yaml
from conftest import tiny_model
from huggingface_hub import ModelCard
from huggingface_hub.errors import OfflineModeIsEnabled
from PIL import Image

from hub_scripts.__main__ import main
from modeling_vit_cls import CheckpointError
from modeling_vit_cls.cards import render_card
from modeling_vit_cls.hub.changes import files_to_push
from modeling_vit_cls.install import needs
from modeling_vit_cls.provenance import last_name, public_json, public_recipe, record

pytestmark = pytest.mark.world

RECIPE = """
model_name_or_path: models/base
num_train_epochs: 2
per_device_train_batch_size: 8
save_strategy: epoch
eval_strategy: epoch
load_best_model_at_end: true
disable_tqdm: true
test_split: test
"""
_numbers = itertools.count()


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A user's folder: images, a checkpoint to start from, a recipe, and the run `runs/v1` of it."""
    project = tmp_path_factory.mktemp("project")
    colours = np.random.default_rng(0)
    for split, kind, number in itertools.product(("train", "test"), ("cat", "dog", "cup"), range(6)):
        place = project / "data" / "photos" / split / kind
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colours.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(place / f"{number}.png")
    tiny_model(num_labels=3).save_pretrained(project / "models" / "base")
    (project / "recipe.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        data = ["--dataset_name", str(project / "data" / "photos"), "--output_dir", "runs/v1"]
        assert main(["train", "recipe.yaml", *data]) == 0
    return project


@pytest.fixture
def no_waits(monkeypatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def places(project: Path) -> list[bytes]:
    """What tells where a file was written, or by whom."""
    words = {str(project), str(project.parent), str(Path.home()), socket.gethostname(), "data/photos", "models/base"}
    words |= {"runs/v1", f"/{getpass.getuser()}/"}
    return [word.encode() for word in words if len(word) > 5]


def test_no_pushed_file_names_a_place_on_this_machine(project, hub, tally):
    repo_id = f"user/photos-{next(_numbers)}"
    assert main(["push", str(project / "runs" / "v1"), repo_id]) == 0
    files = hub.files(repo_id)
    assert {"README.md", "results.json", "recipe.yaml", "trainer_state.json", "config.json", "attention.png"} <= set(
        files
    )
    for name, content in files.items():
        assert not [place for place in places(project) if place in content], name
        tally.note("of no place")
    assert yaml.safe_load(files["recipe.yaml"])["dataset_name"] == "./photos"
    results = json.loads(files["results.json"])
    assert results["training"]["base_model"] == {"name": "base", "source": "folder"}
    assert results["dataset"]["source"] == "folder"


def test_the_card_of_a_run_claims_nothing_and_is_the_same_everywhere(project, monkeypatch):
    folder, cards = project / "runs" / "v1", set()
    for place in (project, project / "data", Path("/")):
        monkeypatch.chdir(place)
        cards.add(render_card(folder))
    (card,) = cards
    assert (ModelCard(card).data.base_model, ModelCard(card).data.datasets) == (None, None)
    assert "It was fine-tuned from a model called base, which is not known to be on the Hub." in card
    assert re.search(r"Training data: photos, a folder of the author's own, split train, \d+ images\.", card)
    assert re.search(r"The weights are those of step \d+, the best of the run by eval\\_loss", card)


def test_a_later_benchmark_forgets_nothing_of_the_training(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    output = tmp_path / "results.json"
    assert main(["benchmark", "runs/v1", "--dataset_name", "data/photos", "--output", str(output), "--json"]) == 0
    before = json.loads((project / "runs" / "v1" / "results.json").read_text())
    after = json.loads(output.read_text())
    assert {name: after[name] for name in ("recipe", "training")} == {
        name: before[name] for name in ("recipe", "training")
    }
    assert (after["model"]["name"], after["dataset"]["name"]) == ("v1", "photos")


def test_paths_that_an_older_run_left_are_not_pushed(folder):
    """A run of before the record: ids stay, whatever they are; what can only be a path is its last name."""
    (folder / "trainer_state.json").write_text(
        json.dumps({"best_model_checkpoint": "runs/v1/checkpoint-3", "log_history": [{"note": "/home/me/x.log"}]})
    )
    recipe = {"output_dir": "/home/me/runs/v1", "run_name": "/home/me/runs/v1", "dataset_name": "../photos"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "model_name_or_path": "google/vit"}))
    dataset = {"name": "/home/me/data/photos", "split": "test", "examples": 3}
    results = {"model": {"name": "C:\\me\\v1"}, "dataset": dataset, "recipe": recipe, "metrics": {"accuracy": 1.0}}
    (folder / "results.json").write_text(json.dumps(results))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    files = files_to_push(folder, with_results=True)
    sent = {name: content if isinstance(content, bytes) else content.read_bytes() for name, content in files.items()}
    assert not [
        name for name, content in sent.items() if b"/me" in content or b"\\\\me" in content or b"runs" in content
    ]
    assert json.loads(sent["trainer_state.json"])["best_model_checkpoint"] == "checkpoint-3"
    assert yaml.safe_load(sent["recipe.yaml"])["model_name_or_path"] == "google/vit"
    assert json.loads(sent["results.json"])["dataset"] == {**dataset, "name": "photos"}
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}, "the folder is as it was"
    for text in ("a: [", "date: 2024-99-99", "[" * 600 + "]" * 600):
        (folder / "recipe.yaml").write_text(text)
        with pytest.raises(CheckpointError, match=r"recipe\.yaml: cannot be read as YAML; correct or remove it"):
            files_to_push(folder, with_results=True)
    (folder / "recipe.yaml").unlink()
    (folder / "results.json").write_text("[" * 600 + "]" * 600)
    with pytest.raises(CheckpointError, match=r"results\.json: "):
        files_to_push(folder, with_results=True)


@pytest.mark.parametrize("with_results", [False, True])
def test_config_and_image_processor_are_pushed_without_paths_and_with_all_their_labels(folder, with_results):
    """Names of Open Images' classes look like paths; `_name_or_path` is where transformers loaded something from."""
    labels = {"0": "/m/01yrx", "1": "~", **{str(i): f"./kind/{i}" for i in range(2, 5)}}
    for origin, kept in (("/home/alice/secret/vit", {}), ("google/vit", {"_name_or_path": "google/vit"})):
        for name, more in (
            ("config.json", {"id2label": labels}),
            ("preprocessor_config.json", {"note": "/home/alice"}),
        ):
            fields = json.loads((folder / name).read_text()) | more | {"_name_or_path": origin}
            (folder / name).write_text(json.dumps(fields))
        files = files_to_push(folder, with_results)
        assert b"secret" not in files["preprocessor_config.json"]
        assert json.loads(files["preprocessor_config.json"])["note"] == "alice"
        config = files["config.json"]
        sent = json.loads(config if isinstance(config, bytes) else config.read_bytes())
        assert sent["id2label"] == labels
        assert {name: value for name, value in sent.items() if name == "_name_or_path"} == kept
        assert {*json.loads((folder / "config.json").read_text())} - {*sent} == {"_name_or_path"} - {*kept}


def test_no_field_of_a_recipe_keeps_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alice" / "secret").mkdir(parents=True)
    named = "{hidden_size: 8, _name_or_path: /home/alice/secret/vit, id2label: {0: /m/01yrx}, note: ~/alice/secret}"
    recipe = {
        "output_dir": "runs/x",
        "run_name": "runs/alice/x",
        "hub_model_id": "alice/vit",
        "config_overrides": named,
    }
    recipe["metrics"] = ["accuracy", "evaluate-metric/f1", "alice/secret", "alice/metric.py", "a/b/metric.py"]
    shown = public_recipe(recipe)
    assert shown["run_name"] == "x"
    assert shown["hub_model_id"] == "alice/vit"
    assert shown["metrics"] == ["accuracy", "evaluate-metric/f1", "./secret", "./metric.py", "./metric.py"]
    overrides = {"hidden_size": 8, "id2label": {0: "/m/01yrx"}, "note": "secret"}
    assert yaml.safe_load(shown["config_overrides"]) == overrides
    assert public_recipe({"config_overrides": yaml.safe_load(named)})["config_overrides"] == overrides
    assert public_recipe({"config_overrides": "{a: [ /home/alice"})["config_overrides"] == "{}"
    results = public_json({"training": {"arguments": {"run_name": "runs/alice/x"}}})
    assert results == {"training": {"arguments": {"run_name": "x"}}}


@pytest.mark.parametrize(
    ("path", "last"),
    [("/a/b", "b"), ("a/b/", "b"), ("C:\\a\\b", "b"), ("~/x", "x"), ("b", "b"), ("/", "unnamed"), ("a/\u202eb\n", "b")],
)
def test_the_last_name_of_a_path(path, last):
    assert last_name(path) == last
    assert last_name(".") == Path.cwd().name


def test_names_are_recorded_as_what_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone" / "flowers").mkdir(parents=True)
    assert record("someone/flowers") == {"name": "flowers", "source": "folder"}
    assert record("someone/roses", "v1") == {"name": "someone/roses", "source": "hub", "revision": "v1"}
    assert record(str(tmp_path)) == {"name": tmp_path.name, "source": "folder"}
    assert public_recipe({"metrics": ["accuracy", "/x/m.py"], "seed": 1, "config_overrides": '{"a": "b/c"}'}) == {
        "metrics": ["accuracy", "./m.py"],
        "seed": 1,
        "config_overrides": '{"a": "b/c"}',
    }
    assert public_json({"a": [{"b": "~/x", "c": "./y/z", "d": "a/b", "e": 1}]}) == {
        "a": [{"b": "x", "c": "z", "d": "a/b", "e": 1}]
    }


def offline(*_, **__):
    raise OfflineModeIsEnabled("offline mode is enabled")


@pytest.mark.parametrize("how", ["no network", "offline"])
def test_a_plan_needs_no_network(how, project, hub, monkeypatch, capsys, no_waits):
    if how == "offline":
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", offline)  # as with HF_HUB_OFFLINE=1 from the start
    else:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    folder, before = project / "runs" / "v1", len(hub.requests)
    assert main(["push", str(folder), "user/v1", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    size = (folder / "model.safetensors").stat().st_size
    assert re.search(rf"^push +{size:,}  model\.safetensors$", shown, re.MULTILINE)
    assert render_card(folder, "user/v1").rstrip() in shown
    assert "user/v1: would be pushed: " in shown
    assert "The Hub could not be asked what it holds already: user/v1: " in shown
    assert main(["push", str(folder), "user/v1", "--dry_run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["not_asked"]
    assert plan["creates_repository"] is None
    assert {change["action"] for change in plan["changes"]} == {"push"}
    assert plan["card"] == render_card(folder, "user/v1")
    assert len(hub.requests) == before
    assert [wait for wait in no_waits if wait >= 1] == [], "nobody waits for a network that a plan does not need"
    assert main(["push", str(folder), "user/v1"]) == 1, "a push does"


def test_a_plan_that_the_hub_refuses_is_an_error(project, hub, capsys, no_waits):
    hub.faults = iter(["403"])
    assert main(["push", str(project / "runs" / "v1"), "user/v1", "--dry_run"]) == 1
    assert "the token may not" in capsys.readouterr().err
    hub.faults = iter(())
    assert main(["push", str(project / "runs" / "v1"), "not a name!", "--dry_run"]) == 1
    assert "is not the name of a Hub repository" in capsys.readouterr().err


def test_a_missing_extra_is_found_before_the_network(project, hub, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("modeling_vit_cls.cards")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    before = len(hub.requests)
    for more in ([], ["--dry_run"]):
        assert main(["push", str(project / "runs" / "v1"), "user/v1", *more]) == 1
        assert capsys.readouterr().err == f"vit-cls: {needs('jinja2', 'to write model cards', 'train')}\n"
    assert len(hub.requests) == before
