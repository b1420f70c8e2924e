"""Model cards: what was measured and nothing else, whatever the names; a snippet that runs, metadata for the Hub."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import huggingface_hub
import numpy as np
import pytest
import yaml
from conftest import tiny_model
from huggingface_hub import ModelCard
from PIL import Image
from test_pictures import LOG, ODD
from trained_folder import RESULTS, cells, trained_folder, write

from modeling_vit_cls import (
    CheckpointError,
    ConfigError,
    FlaxViTClsForImageClassification,
    FlaxViTClsModel,
    ViTClsImageProcessor,
    install,
)
from modeling_vit_cls.cards import card_to_push, render_card, write_card
from modeling_vit_cls.cards.card import READOUT_WORDS
from modeling_vit_cls.cards.pictures import attention_maps
from modeling_vit_cls.config_rules import Readout
from modeling_vit_cls.hub.changes import EVAL_RESULTS
from modeling_vit_cls.install import how_to_install

PICTURES = ["training_curve.png", "confusion_matrix.png", "attention.png"]


@pytest.fixture
def folder(model_folder, tmp_path) -> Path:
    return trained_folder(model_folder, tmp_path)


def images() -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8))


@pytest.mark.world
def test_metadata_is_what_the_hub_reads(folder):
    data = ModelCard(render_card(folder, "user/flowers-vit")).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "vit-cls", "image-classification")
    assert data.tags == ["jax", "flax", "vision"]
    assert (data.base_model, data.datasets) == ("google/vit-base-patch16-224", ["someone/flowers"])
    assert data.metrics == ["accuracy", "macro_f1"]
    assert data.model_name == "user/flowers-vit"
    assert data.eval_results is not None
    found = {result.metric_type: result for result in data.eval_results}
    assert {name: result.metric_value for name, result in found.items()} == RESULTS["metrics"]
    assert found["accuracy"].dataset_type == "someone/flowers"
    assert (found["accuracy"].dataset_split, found["accuracy"].dataset_revision) == ("test", "5503434")


def test_the_card_says_what_was_measured_and_how(folder, model):
    write_card(folder, images(), model=model)
    text = (folder / "README.md").read_text()
    for words in (
        "| accuracy | 0.9600 |",
        "| macro\\_f1 | 0.9512 |",
        "someone/flowers, split test, revision 5503434, 400 images, on 2026-11-23",
        "1,234 images per second, batches of 32, float32, with decode, forward",
        "A Processor (R), 2 cores, 2 x NVIDIA H200",
        "jax 0.10.2, vit-cls 0.1.0",
        "Trained for 20 steps, 2 epochs. Training loss: 0.5000 at the end. It is the plain cross-entropy.",
        "Evaluation loss: 0.6000 at the end, also the plain cross-entropy.",
        "For images like those of someone/flowers: to sort them into the classes above",
        "vit-cls train recipe.yaml\nvit-cls benchmark trained --dataset_name someone/flowers --split test "
        "--dataset_revision 5503434\n",
        "its 95 % interval is 0.9360 to 0.9752 (Wilson)",
        "(calibration) was not measured",
        "the [CLS] token",
        "LABEL\\_0, LABEL\\_1",
    ):
        assert words in text
    links = re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)
    assert sorted(links) == sorted(PICTURES)
    for link in links:
        with Image.open(folder / link) as picture:
            assert picture.format == "PNG"


@pytest.mark.parametrize(
    ("recipe", "dataset", "options"),
    [
        ({}, {"split": "15% of train"}, None),
        ({"max_eval_samples": 100}, {}, None),
        (
            {"dataset_config_name": "fine", "label_column_name": "fine_label"},
            {"revision": "v2"},
            " --dataset_config_name fine --label_column_name fine_label --dataset_revision v2",
        ),
    ],
)
def test_the_command_of_the_benchmark_measures_the_same_images(folder, recipe, dataset, options):
    own = yaml.safe_load((folder / "recipe.yaml").read_text())
    write(folder, results={**RESULTS, "dataset": {**RESULTS["dataset"], **dataset}}, recipe={**own, **recipe})
    write_card(folder)
    text = (folder / "README.md").read_text()
    if options is None:
        assert "vit-cls benchmark" not in text
    else:
        assert f"vit-cls benchmark trained --dataset_name someone/flowers --split test{options}\n" in text


@pytest.mark.world
def test_eval_results_are_what_the_hub_reads(folder):
    write_card(folder)
    entries = yaml.safe_load((folder / EVAL_RESULTS).read_text())
    assert entries == [
        {
            "dataset": {"id": "someone/flowers", "task_id": "default", "revision": "5503434"},
            "value": 0.96,
            "date": "2026-11-23",
            "notes": "accuracy, split test, 400 examples",
        }
    ]
    if hasattr(huggingface_hub, "parse_eval_result_entries"):
        assert huggingface_hub.parse_eval_result_entries(entries)[0].value == 0.96


def test_what_was_not_measured_is_not_printed(model_folder, tmp_path):
    folder = Path(shutil.copytree(model_folder, tmp_path / "trained"))
    text = render_card(folder)
    headings = re.findall(r"^## (.*)", text, re.MULTILINE)
    assert headings == ["Use", "Intended use", "Limits", "How to cite"]
    assert "The data that it was trained on, and their licence, are not stated." in text
    assert "how often it is right is not known" in text
    metadata = ModelCard(text).data.to_dict()
    assert set(metadata) == {"library_name", "pipeline_tag", "tags"}
    assert not re.search(r"None|\[More|TODO|nan|\{\{|\{%", text.partition("## How to cite")[0])
    write_card(folder)
    assert {entry.name for entry in folder.iterdir()} - {entry.name for entry in model_folder.iterdir()} == {
        "README.md"
    }
    (folder / "results.json").write_text(json.dumps({"metrics": {"accuracy": 1.0}, "hardware": None, "versions": {}}))
    text = render_card(folder)
    assert "| accuracy | 1.0000 |" in text
    assert not re.search(r"None|nan|Speed|Hardware|Software", text)


@pytest.mark.parametrize(
    ("name", "kind", "shown"),
    [("digits", "digits", "digits"), ("/home/me/secret/roses", "imagefolder", "roses"), ("./roses/", None, "roses")],
)
def test_data_that_is_not_on_the_hub_is_not_said_to_be(folder, name, kind, shown):
    write(folder, results={**RESULTS, "dataset": {"name": name, "split": "test", "examples": 400}})
    write_card(folder)
    text = (folder / "README.md").read_text()
    data = ModelCard(text).data
    assert data.datasets is None
    assert data.eval_results is not None
    assert data.eval_results[0].dataset_type == (kind or "imagefolder")
    assert f"Measured on {shown}, split test" in text
    assert "secret" not in text
    assert ("--dataset_name digits" in text) == (name == "digits")
    assert not (folder / EVAL_RESULTS).exists()


@pytest.mark.world
def test_the_snippet_runs(folder, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", render_card(folder), re.DOTALL)
    monkeypatch.chdir(folder.parent)
    Image.fromarray(images()[0]).save("image.jpg")
    exec(code, {})
    (predictions,) = eval(capsys.readouterr().out)
    assert len(predictions) == 5
    assert {*predictions[0]} == {"label", "score"}


def test_rendering_twice_gives_the_same_bytes(folder, model):
    write_card(folder, images(), model=model)
    first = {name: (folder / name).read_bytes() for name in ["README.md", EVAL_RESULTS, *PICTURES]}
    write_card(folder, images(), model=model)
    assert first == {name: (folder / name).read_bytes() for name in first}
    assert render_card(folder) == (folder / "README.md").read_text()


ODD_NAMES = [
    *ODD,
    "---",
    "# title",
    "![x](y)",
    "a\n---\nb",
    "```",
    "<!-- x",
    "*b*",
    "'\"",
    "{% raw %}",
    "\x1b[31m\u202e",
]


def test_odd_names_break_nothing(tmp_path):
    odd = tiny_model(num_labels=None, id2label=dict(enumerate(ODD_NAMES)))
    folder = tmp_path / "a|b # {{ x }} $y"
    odd.save_pretrained(folder)
    matrix = np.eye(len(ODD_NAMES), dtype=int).tolist()
    for name in ODD_NAMES:
        results = {**RESULTS, "confusion_matrix": matrix, "metrics": {name or "m": 0.5, "accuracy": 0.25}}
        results |= {"dataset": {"name": f"/data/{name}", "split": name, "examples": 4}, "date": name}
        write(folder, results, {"license": name, "model_name_or_path": name}, {"log_history": LOG})
        text = render_card(folder)
        card = ModelCard(text)
        assert card.data.model_name == folder.name
        assert card.data.eval_results is not None or not name.replace("/", "")
        assert (card.data.license or "") == " ".join("".join(c if c.isprintable() else " " for c in name).split())
        rows = [line for line in card.text.splitlines() if line.startswith("|")]
        assert len(rows) == 4
        assert all(len(cells(row)) == 2 for row in rows)
        headings = [line for line in card.text.splitlines() if line.startswith("#")]
        assert headings[0] == "# a\\|b \\# \\{\\{ x \\}\\} \\$y"
        assert headings[1:3] == ["## Use", "## Intended use"]
        assert headings[-2:] == ["## Limits", "## How to cite"]
        assert len(re.findall(r"^```", card.text, re.MULTILINE)) == 6
        assert card.text.count("<!--") == 1
    write_card(folder, images(), model=odd)
    assert (folder / "attention.png").exists()


def test_metrics_that_are_no_numbers_stay_out_of_the_metadata(folder):
    write(folder, results={**RESULTS, "metrics": {"accuracy": 0.5, "nll": float("nan"), "note": "x", "per": [1, 2]}})
    text = render_card(folder)
    assert ModelCard(text).data.metrics == ["accuracy"]
    assert "| negative log-likelihood (nll) | nan |" in text, "it was measured, and it is not a number"
    assert "note" not in text


def test_an_edited_card_is_left_alone(folder, model, caplog):
    write_card(folder)
    assert card_to_push(folder, "user/name")["README.md"] == render_card(folder, "user/name").encode()
    write(folder, results={**RESULTS, "metrics": {"accuracy": 0.5}})
    before = {entry: entry.read_bytes() for entry in folder.rglob("*.*") if entry.is_file()}
    edited = (folder / "README.md").read_text().replace("## Limits", "## Known limits")
    (folder / "README.md").write_text(edited)
    with caplog.at_level(logging.WARNING):
        write_card(folder, images(), model=model)
    assert (folder / "README.md").read_text() == edited
    assert "edited since" in caplog.text
    (folder / "README.md").write_bytes(before[folder / "README.md"])
    assert before == {entry: entry.read_bytes() for entry in before}, "pictures and .eval_results stay with the card"
    (folder / "README.md").write_text(edited)
    assert card_to_push(folder, "user/name") == {}


def test_pictures_that_no_card_of_ours_shows_are_left_alone(folder, model):
    """The user's own: beside a README.md of his, or shown by none."""
    write_card(folder, images(), model=model)
    edited = (folder / "README.md").read_text() + "More of mine."
    for text, names in ((edited, PICTURES), (None, ["attention.png"])):
        (folder / "README.md").unlink()
        if text is not None:
            (folder / "README.md").write_text(text)
        for name in names:
            (folder / name).write_bytes(b"mine")
        write_card(folder, None if text is None else images(), model=model)
        assert {(folder / name).read_bytes() for name in names} == {b"mine"}
    card = (folder / "README.md").read_text()
    assert "attention.png" not in card
    assert "training_curve.png" in card
    assert render_card(folder) == card


def test_the_attention_stays_until_it_is_drawn_anew(folder, model):
    write_card(folder, images(), model=model)
    drawn = (folder / "attention.png").read_bytes()
    card = (folder / "README.md").read_text()
    write_card(folder)
    assert (folder / "attention.png").read_bytes() == drawn
    assert (folder / "README.md").read_text() == card
    write_card(folder, [])
    assert not (folder / "attention.png").exists()
    assert "attention.png" not in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ({"height": 8, "width": 8}, "images of 8 x 8 pixels in patches of 4 x 4."),
        ({"max_num_patches": 16, "patch_size": 4}, "images of any size in patches of 4 x 4 pixels."),
    ],
)
def test_the_size_is_that_of_the_image_processor(size, words, tmp_path):
    wide = tiny_model(image_size=16, num_labels=3)
    wide.image_processor = ViTClsImageProcessor(size=size)
    wide.save_pretrained(tmp_path / "wide")
    assert words in render_card(tmp_path / "wide")


def test_what_no_longer_holds_goes(folder, model):
    write_card(folder, images(), model=model)
    (folder / "trainer_state.json").unlink()
    (folder / ".eval_results" / "imagenet.yaml").write_text("another's")
    write(folder, results={**RESULTS, "dataset": {"name": "digits", "split": "test", "examples": 360}})
    write_card(folder)
    assert [name for name in PICTURES if (folder / name).exists()] == ["confusion_matrix.png", "attention.png"]
    shown = re.findall(r"\]\((\w+\.png)\)", (folder / "README.md").read_text())
    assert sorted(shown) == ["attention.png", "confusion_matrix.png"]
    assert os.listdir(folder / ".eval_results") == ["imagenet.yaml"]


def test_a_write_that_fails_leaves_the_old_card_whole(folder, model):
    write_card(folder)
    before = (folder / "README.md").read_bytes()
    (folder / "attention.png").mkdir()
    write(folder, results={**RESULTS, "metrics": {"accuracy": 0.1}})
    with pytest.raises(CheckpointError, match="its card cannot be written"):
        write_card(folder, images(), model=model)
    assert (folder / "README.md").read_bytes() == before
    assert not [name for name in os.listdir(folder) if "tmp" in name]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("results.json", "{", r"results\.json: cannot be read as JSON"),
        ("trainer_state.json", "[]", r"trainer_state\.json: must hold one JSON object"),
        ("recipe.yaml", "a: [", r"recipe\.yaml: cannot be read as YAML"),
        ("recipe.yaml", "- a", r"recipe\.yaml: expected names and values, got list"),
        ("config.json", "{", r"config\.json"),
    ],
)
def test_what_cannot_be_read_is_named(folder, name, content, words):
    (folder / name).write_text(content)
    with pytest.raises(CheckpointError, match=words):
        render_card(folder)


def test_a_backbone_has_no_card(tmp_path):
    tiny_model(FlaxViTClsModel).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="holds no classifier"):
        render_card(tmp_path)


@pytest.mark.parametrize(("right", "count"), [(45, 45), (0, 45), (1, 1), (384, 400)])
def test_the_interval_of_an_accuracy_is_never_empty(folder, right, count):
    dataset = {"name": "digits", "split": "test", "examples": count}
    write(folder, results={**RESULTS, "metrics": {"accuracy": right / count}, "dataset": dataset})
    low, high = map(float, re.findall(r"95 % interval is ([\d.]+) to ([\d.]+) \(Wilson\)", render_card(folder))[0])
    assert low <= right / count <= high
    assert high - low > 0.02
    if right == count:  # where the share is 1, Wilson's lower bound is n / (n + z^2)
        assert low == pytest.approx(count / (count + 1.959964**2), abs=1e-4)


NOT_INSTALLED = """
import sys
for package, module in (("matplotlib", "cards.pictures"), ("jinja2", "cards")):
    sys.modules[package] = None
    for loaded in [loaded for loaded in sys.modules if loaded.startswith("modeling_vit_cls.cards")]:
        del sys.modules[loaded]
    try:
        __import__(f"modeling_vit_cls.{module}")
    except ImportError as error:
        print(error)
    del sys.modules[package]
"""


def test_a_card_has_words_for_every_readout():
    assert set(READOUT_WORDS) == set(get_args(Readout))


def test_the_mean_of_several_cls_tokens_is_called_so(tmp_path):
    tiny_model(num_cls_tokens=2).save_pretrained(tmp_path / "trained")
    write(tmp_path / "trained", results=RESULTS)
    assert "It reads out the mean of the [CLS] tokens, from images" in render_card(tmp_path / "trained")


def test_what_is_not_installed_is_named_with_the_remedy():
    done = subprocess.run([sys.executable, "-c", NOT_INSTALLED], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"matplotlib is needed to draw pictures: {how_to_install('train')}",
        f"jinja2 is needed to write model cards: {how_to_install('train')}",
    ]


def test_images_are_drawn_by_the_model_that_is_given_and_none_is_loaded(folder, model, monkeypatch):
    with pytest.raises(ConfigError, match="model=None: is needed to draw images: pass the model that was saved"):
        write_card(folder, images())
    assert not (folder / "README.md").exists()

    def load(*_, **__):
        raise AssertionError

    monkeypatch.setattr(FlaxViTClsForImageClassification, "from_pretrained", load)
    write_card(folder, images(), model=model)
    assert (folder / "attention.png").read_bytes() == attention_maps(model, images())


@pytest.mark.parametrize(
    ("urls", "command"),
    [
        ([], "`pip install .` in a clone of the repository of vit-cls"),
        (["Repository, https://example.org/a/vit-cls"], "`pip install 'vit-cls @ git+https://example.org/a/vit-cls'`"),
    ],
    ids=["no repository is set", "a repository is set"],
)
def test_a_card_tells_to_install_from_the_repository(urls, command, folder, monkeypatch):
    monkeypatch.setattr(install, "metadata", lambda _: SimpleNamespace(get_all=lambda _: urls or None))
    assert f"Install vit-cls: {command}. Then:" in render_card(folder)
    extra = command.replace("install .", "install '.[train]'").replace("vit-cls @", "vit-cls[train] @")
    assert str(install.needs("grain", "to read", "train")) == f"grain is needed to read: {extra}"
