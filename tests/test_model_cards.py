"""The committed cards say what was measured: each is rendered anew from the files beside it."""

import re
import shutil
from pathlib import Path

import pytest

from benchmarks.study.record import essentials
from modeling_vit_cls import FlaxViTClsForImageClassification, ViTClsConfig
from modeling_vit_cls.cards import render_card
from modeling_vit_cls.names import RECIPE, RESULTS
from modeling_vit_cls.results import Results
from modeling_vit_cls.training.recipe import read_recipe

pytestmark = pytest.mark.world

ROOT = Path(__file__).parent.parent
FOLDERS = sorted(entry for entry in (ROOT / "model_cards").iterdir() if entry.is_dir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_card_is_its_results(folder, tmp_path):
    whole, config = tmp_path / folder.name, ViTClsConfig.from_pretrained(folder)
    FlaxViTClsForImageClassification(config).save_pretrained(whole)  # any weights: a card counts them alone
    shutil.copytree(folder, whole, dirs_exist_ok=True)
    assert folder.with_suffix(".md").read_text() == render_card(whole)


def test_the_table_has_the_accuracies_of_the_results():
    text = (ROOT / "model_cards" / "README.md").read_text()
    rows = re.findall(r"^\| \[`(\w+)`\]\((\w+)\.md\) \| ([\d,]+) \w.* \| (0\.\d{4}) \|$", text, re.MULTILINE)
    measured = [(folder.name, Results.read(folder / RESULTS)) for folder in FOLDERS]
    assert sorted(rows) == [
        (name, name, f"{results.dataset.examples:,}", f"{results.metrics['accuracy']:.4f}")
        for name, results in measured
    ]


@pytest.mark.parametrize("file", [folder / RECIPE for folder in FOLDERS if (folder / RECIPE).exists()])
def test_a_card_is_of_the_recipe_that_is_there(file):
    assert essentials(read_recipe(file)) == essentials(read_recipe(file.parent.name))
