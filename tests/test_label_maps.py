"""Label maps as people's config.json files have them: read as transformers reads them, and what is odd is said."""

import json
import shutil

import pytest
from PIL import Image
from test_families import golden
from transformers import AutoConfig

from modeling_vit_cls import (
    CheckpointError,
    FlaxViTClsForImageClassification,
    ImageClassificationPipeline,
    ViTClsConfig,
)

pytestmark = pytest.mark.world

NAMES = {"0": "a", "1": "b", "2": "c", "3": "d", "4": "e"}
INVERSE = {name: int(i) for i, name in NAMES.items()}
ODD = {  # fields of config.json -> a word of the warning, None for none
    "longer": ({"id2label": NAMES, "label2id": {**INVERSE, "f": 5}}, "label2id"),
    "shorter": ({"id2label": NAMES, "label2id": {"a": 0}}, "label2id"),
    "never set": ({"id2label": NAMES, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}, "label2id"),
    "permuted": ({"id2label": NAMES, "label2id": {name: 4 - i for name, i in INVERSE.items()}}, "label2id"),
    "no numbers": ({"id2label": NAMES, "label2id": dict.fromkeys(INVERSE)}, "label2id"),
    "another head": ({"id2label": NAMES, "label2id": INVERSE, "num_labels": 2}, "num_labels=2"),
    "from 1": ({"id2label": {str(i + 1): name for name, i in INVERSE.items()}}, "no name for class 0"),
    "a gap": ({"id2label": {"0": "a", "1": "b", "2": "c", "3": "d", "7": "e"}}, "no name for class 4"),
    "negative": ({"id2label": {**{i: n for i, n in NAMES.items() if i != "4"}, "-1": "e"}}, "no name for class 4"),
    "duplicates": ({"id2label": {**NAMES, "3": "a"}, "label2id": {**INVERSE, "a": 3}}, "label2id"),
    "mixed up": ({"id2label": dict(reversed(NAMES.items()))}, None),
    "texts": ({"id2label": NAMES, "label2id": {name: str(i) for name, i in INVERSE.items()}}, None),
    "inverse null": ({"id2label": NAMES, "label2id": None}, None),
    "whole": ({"id2label": NAMES, "label2id": INVERSE, "num_labels": 5}, None),
}


def folder_of(fields, tmp_path, drop=("id2label", "label2id", "num_labels")):
    shutil.copy(golden("vit") / "model.safetensors", tmp_path)
    told = json.loads((golden("vit") / "config.json").read_text())
    told = {name: value for name, value in told.items() if name not in drop}
    (tmp_path / "config.json").write_text(json.dumps({**told, **fields}))
    return tmp_path


@pytest.mark.parametrize("name", ODD)
def test_odd_maps_are_read_as_transformers_reads_them_and_said(name, tmp_path, caplog):
    fields, words = ODD[name]
    folder = folder_of(fields, tmp_path)
    model, report = FlaxViTClsForImageClassification.from_pretrained(folder, output_loading_info=True)
    theirs = AutoConfig.from_pretrained(folder)
    if name != "another head":  # transformers 5 forgets the names there, 4.57 does not
        assert model.config.id2label == theirs.id2label
        assert model.config.num_labels == theirs.num_labels
    assert model.config.num_labels == 5
    assert model.config.label2id == {text: i for i, text in model.config.id2label.items()}
    assert [words in note for note in report.config_notes] == ([] if words is None else [True])
    assert (words is None) == ("config.json" not in caplog.text)
    model.save_pretrained(tmp_path / "ours")
    again = FlaxViTClsForImageClassification.from_pretrained(tmp_path / "ours").config
    assert (again.id2label, again.label2id) == (model.config.id2label, model.config.label2id)
    assert AutoConfig.from_pretrained(tmp_path / "ours").id2label == again.id2label


def test_every_output_has_a_name(tmp_path):
    folder = folder_of(ODD["from 1"][0], tmp_path)
    model = FlaxViTClsForImageClassification.from_pretrained(folder)
    assert [model.config.id2label[i] for i in range(5)] == ["LABEL_0", "a", "b", "c", "d"]
    found = ImageClassificationPipeline(model)(Image.new("RGB", (20, 20)))[0]
    assert {row["label"] for row in found} == {"LABEL_0", "a", "b", "c", "d"}


def test_names_that_are_numbers_or_nothing_are_words(tmp_path):
    named = {"0": None, "1": 1, "2": 2.5, "3": "d", "4": "e"}
    config = FlaxViTClsForImageClassification.from_pretrained(folder_of({"id2label": named}, tmp_path)).config
    assert list(config.id2label.values()) == ["LABEL_0", "1", "2.5", "d", "e"]


def test_the_classifier_says_how_many_there_are(tmp_path, caplog):
    for count in ({}, {"num_labels": 5}):
        folder = folder_of({"id2label": {"0": "a", "3": "d"}, **count}, tmp_path)
        model, report = FlaxViTClsForImageClassification.from_pretrained(folder, output_loading_info=True)
        assert model.config.id2label == {0: "a", 1: "LABEL_1", 2: "LABEL_2", 3: "d", 4: "LABEL_4"}
        (note,) = report.config_notes
        assert note == "id2label has 2 names, the classifier 5 outputs: the others are LABEL_i"
        assert note in caplog.text
    other = {"id2label": {str(i): f"k{i}" for i in range(7)}, "num_labels": 5}
    config = FlaxViTClsForImageClassification.from_pretrained(folder_of(other, tmp_path)).config
    assert config.id2label[4] == "LABEL_4"
    assert "the classifier 5 outputs" in caplog.text
    config = FlaxViTClsForImageClassification.from_pretrained(folder_of({"label2id": INVERSE}, tmp_path)).config
    assert config.id2label == {i: name for name, i in INVERSE.items()}


@pytest.mark.parametrize("wrong", [["a", "b"], {"cat": "0"}, {"0": ["a"]}, {"0": "a", "00": "b"}, "abc", 5])
def test_what_is_no_map_from_numbers_to_names_is_refused(wrong, tmp_path):
    with pytest.raises(CheckpointError, match="id2label.*must map numbers of classes to names"):
        FlaxViTClsForImageClassification.from_pretrained(folder_of({"id2label": wrong}, tmp_path))


def test_a_new_head_has_new_names_and_no_old_remark(tmp_path):
    folder = folder_of(ODD["longer"][0], tmp_path)
    model, report = FlaxViTClsForImageClassification.from_pretrained(folder, num_labels=3, output_loading_info=True)
    assert model.config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert report.config_notes == []
    assert ViTClsConfig(num_labels=3).id2label == model.config.id2label


@pytest.mark.parametrize("saved_by", ["ours", "transformers"])
def test_the_number_of_classes_that_it_has_keeps_their_names(saved_by, tmp_path):
    folder = folder_of({"id2label": NAMES}, tmp_path)
    if saved_by == "ours":
        FlaxViTClsForImageClassification.from_pretrained(folder).save_pretrained(tmp_path / "ours")
        folder = tmp_path / "ours"
        assert list(AutoConfig.from_pretrained(folder, num_labels=5).id2label.values()) == list(INVERSE)
    model, report = FlaxViTClsForImageClassification.from_pretrained(folder, num_labels=5, output_loading_info=True)
    assert (list(model.config.id2label.values()), model.config.label2id, report.new_keys) == ([*INVERSE], INVERSE, [])
    other = FlaxViTClsForImageClassification.from_pretrained(folder, num_labels=4, ignore_mismatched_sizes=True)
    assert list(other.config.id2label.values()) == ["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"]
