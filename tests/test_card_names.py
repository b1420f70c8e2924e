"""Names in a card: where they come from is said as it was recorded, and whatever they are, nothing comes of them."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_model
from huggingface_hub import ModelCard
from trained_folder import RESULTS, STATE, cells, write

from modeling_vit_cls.cards import render_card, write_card
from modeling_vit_cls.hub.changes import EVAL_RESULTS


@pytest.fixture
def folder(model_folder, tmp_path) -> Path:
    """A trained folder, and what lies beside its weights."""
    folder = Path(shutil.copytree(model_folder, tmp_path / "trained"))
    write(folder, results=RESULTS, recipe={"learning_rate": 1e-3}, state=STATE)
    return folder


def claims(text: str) -> tuple[Any, Any]:
    data = ModelCard(text).data
    return data.base_model, data.datasets


def test_a_card_is_the_same_wherever_it_is_rendered(folder, tmp_path, monkeypatch):
    """Names without a record are claimed nowhere, be there folders of these names or not; recorded ones everywhere."""
    project = tmp_path / "project"
    (project / "someone" / "flowers").mkdir(parents=True)
    (project / "google" / "vit-base-patch16-224").mkdir(parents=True)
    unrecorded = {**RESULTS, "dataset": {"name": "someone/flowers", "split": "test", "examples": 9}, "training": {}}
    for results, expected in (
        (RESULTS, ("google/vit-base-patch16-224", ["someone/flowers"])),
        (unrecorded, (None, None)),
        ({"metrics": {"accuracy": 0.5}}, (None, None)),
    ):
        write(folder, results=results)
        cards = []
        for place in (project, tmp_path, Path("/")):
            monkeypatch.chdir(place)
            cards.append(render_card(folder))
        assert cards[0] == cards[1] == cards[2]
        assert claims(cards[0]) == expected


@pytest.mark.parametrize("source", ["folder", "built-in", "", None, 3])
@pytest.mark.parametrize(
    "name", ["data/photos", "photos", "/home/me/photos", "../photos", "C:\\me\\photos", "a/b/photos"]
)
def test_what_is_not_recorded_to_be_of_the_hub_is_not_claimed(folder, name, source):
    record = {"name": name, "source": source}
    training = {"base_model": record, "dataset": record}
    write(folder, results={**RESULTS, "dataset": {**record, "split": "test", "examples": 9}, "training": training})
    write(folder, recipe={"model_name_or_path": name, "dataset_name": name})
    write_card(folder)
    text = (folder / "README.md").read_text()
    assert claims(text) == (None, None)
    assert not (folder / EVAL_RESULTS).exists()
    assert "Measured on photos, split test" in text
    assert "It was fine-tuned from a model called photos, which is not known to be on the Hub." in text
    assert "give yours by `--dataset_name FOLDER`" in text
    assert not re.search(r"home|me\\|\.\./|data/photos", text)


def test_a_hub_id_that_is_none_is_not_claimed(folder):
    for name in ("../x", "a/b/c", "a b/c", "-a/b", "a/../b", "https://hf.co/a/b", "ä/b", ""):
        write(folder, results={**RESULTS, "dataset": {"name": name, "source": "hub", "split": "test", "examples": 9}})
        assert claims(render_card(folder))[1] is None


HOSTILE = [
    "a|b",
    "=1+1",
    "@everyone",
    "+1",
    "-1",
    "<script>alert(1)</script>",
    "`x`",
    "``` `",
    "new\nline\r\n# x",
    "\u202egpj.exe",
    "\u2066x\u2069",
    "\x1b[31mred",
    "http://evil.example/x",
    "https://evil.example",
    "www.evil.example",
    "evil.example/x",
    "me@evil.example",
    "[x](javascript:alert(1))",
    "![x](http://evil.example/y.png)",
    "javascript:alert(1)",
    "$x$",
    "$$x$$",
    "\\(x\\)",
    "&lt;b&gt;",
    "&#64;all",
    ":smile:",
    "a: b\n---\nlicense: mit",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "*b*",
    "# h",
    "> q",
    "|---|",
    "~~s~~",
    "==m==",
    "<!-- x -->",
    "\u200bx",
    "1. x",
    "\\",
    "a\\|b @x",
    "`a|b` @x",
    "//evil.example",
    "mailto:x@y.zz",
]


def outside_code(text: str) -> str:
    """Markdown without its spans and blocks of code."""
    return re.sub(
        r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", "", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    )


def check_inert(text: str, rows: int) -> None:
    card = ModelCard(text)
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert set(card.data.to_dict()) <= {
        "library_name", "license", "metrics", "pipeline_tag", "tags", "model-index", "base_model", "datasets",
        "base_model_relation",
    }  # fmt: skip
    plain = outside_code(card.text.replace("https://huggingface.co/google/vit-base-patch16-224", ""))
    unescaped = re.sub(r"\\[!-/:-@\[-`{-~]", "", plain.rpartition("<!--")[0])
    assert not re.search(r"://|www\.|@|evil\.|javascript:|\$|&|<[a-z!/]|:smile|mailto:|\{\{|==", unescaped)
    assert not re.search(r"!\[x|\]\(java", unescaped)
    headings = [line for line in card.text.splitlines() if line.startswith("#")]
    known = ("Use", "Intended use", "Results", "Training", "Reproduce", "Limits", "How to cite")
    assert set(headings[1:]) <= {f"## {name}" for name in known}
    table = [line for line in card.text.splitlines() if line.startswith("|")]
    assert len(table) == rows
    assert all(len(cells(re.sub(r"\\\\", "", row))) == 2 for row in table)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_inert_in_a_card(name, folder, tally):
    dataset = {"name": name, "source": "folder", "split": name, "examples": 4, "revision": name}
    results = {**RESULTS, "dataset": dataset, "metrics": {name: 0.5, "accuracy": 0.25}, "date": name}
    results |= {"versions": {name: name}, "hardware": {"processor": name, "accelerators": [name]}}
    results |= {"throughput": {**RESULTS["throughput"], "dtype": name, "includes": name}}
    base = {"name": "google/vit-base-patch16-224", "source": "hub"}
    results |= {"training": {"dataset": {**dataset, "examples": 4}, "base_model": base}}
    recipe = {"license": name, "dataset_name": name, "mixup_alpha": name, "ema_decay": name}
    recipe |= {"load_best_model_at_end": True, "metric_for_best_model": name}
    write(folder, results=results, recipe=recipe, state={**STATE, "best_global_step": 3})
    check_inert(render_card(folder), rows=4)
    del results["training"]["base_model"]
    write(folder, results=results, recipe={**recipe, "model_name_or_path": name})
    check_inert(render_card(folder, name), rows=4)
    tally.note("inert in the card")


def test_hostile_names_of_classes_are_inert(tmp_path):
    tiny_model(num_labels=None, id2label=dict(enumerate(HOSTILE))).save_pretrained(tmp_path)
    text = render_card(tmp_path, "me/vit")
    check_inert(text, rows=0)
    (line,) = [line for line in text.splitlines() if line.startswith("Classes: ")]
    assert line.count(", ") == len(HOSTILE) - 1
