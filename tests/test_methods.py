"""A backbone measured without training: every readout from one pass, results, card, and the probe as a classifier."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from conftest import tiny_model
from huggingface_hub import ModelCard

from hub_scripts.__main__ import main
from modeling_vit_cls import ConfigError, FlaxViTClsForImageClassification, FlaxViTClsModel, ViTClsImageProcessor
from modeling_vit_cls.cards import card_to_push, render_card
from modeling_vit_cls.evaluation import probe
from modeling_vit_cls.evaluation.benchmark import benchmark
from modeling_vit_cls.evaluation.features import Features, extract, readouts_of
from modeling_vit_cls.evaluation.linear_head import classifier_of
from modeling_vit_cls.evaluation.methods import evaluate_features
from modeling_vit_cls.images.sources import load_images, open_image
from modeling_vit_cls.names import EVAL_RESULTS
from modeling_vit_cls.results import Results

QUIET = {"batch_size": 50, "disable_tqdm": True}
FEW = (1e-2, 1e5)  # the second is the largest of the grid


@pytest.fixture(scope="module")
def digits() -> tuple[datasets.Dataset, datasets.Dataset]:
    """120 and 60 digits."""
    return load_images("digits", "train").select(range(120)), load_images("digits", "test").select(range(60))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("backbone") / "tiny"
    tiny_model(FlaxViTClsModel).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory, digits) -> Path:
    """The digits 0, 1 and 2 as a folder of images, with splits train and test."""
    root = tmp_path_factory.mktemp("images") / "photos"
    for split, rows in zip(("train", "test"), digits):
        for number, row in enumerate(rows):
            if row["label"] < 3:
                folder = root / split / ("zero", "one", "two")[row["label"]]
                folder.mkdir(parents=True, exist_ok=True)
                open_image(row["image"]).save(folder / f"{number}.png")
    return root


@pytest.fixture
def few_cs(monkeypatch):
    """Two values of C: a compiled sweep over 45 takes longer."""
    monkeypatch.setattr(probe.fit_probe, "__defaults__", (FEW, 0))


CONFIGS = [
    {},
    {"readout": "map", "num_register_tokens": 2},
    {"readout": "mean", "use_cls_token": False},
    {"norm_position": "after_readout", "projection_size": 3},
    {"use_distillation_token": True},
    {"representation_size": 6, "readout": "cls_mean"},
]


@pytest.mark.parametrize("overrides", CONFIGS, ids=str)
def test_each_readout_is_what_a_model_with_it_reads_out(overrides, digits):
    backbone = tiny_model(FlaxViTClsModel, **overrides)
    features = extract(backbone, digits[1].select(range(8)), **QUIET)
    assert features.readouts == readouts_of(backbone.config)
    assert features.readouts[0] == backbone.config.readout
    pixels = backbone.image_processor([open_image(image) for image in digits[1].select(range(8))["image"]])
    for readout in features.readouts:
        reader = classifier_of(backbone, readout, head(features.of(readout).shape[1]), list("ab"))
        plain = FlaxViTClsModel(reader.config, params=reader.params["vit_cls"])
        wanted = np.asarray(plain(pixels["pixel_values"]).pooler_output)
        np.testing.assert_allclose(features.of(readout), wanted, rtol=1e-4, atol=1e-5)


def head(width: int) -> probe.Probe:
    return probe.Probe(np.ones((width, 2), np.float32), np.zeros(2, np.float32), 1.0, 0.5)


def test_the_readouts_of_a_backbone():
    assert readouts_of(tiny_model(FlaxViTClsModel).config) == ("cls", "mean", "cls_mean")
    assert readouts_of(tiny_model(FlaxViTClsModel, readout="map").config) == ("map", "cls", "mean", "cls_mean")
    assert readouts_of(tiny_model(FlaxViTClsModel, readout="mean", use_cls_token=False).config) == ("mean",)
    assert readouts_of(tiny_model(FlaxViTClsModel, norm_position="after_readout").config) == ("cls", "mean")


@pytest.mark.parametrize("overrides", [CONFIGS[1], CONFIGS[5]], ids=str)
def test_a_saved_probe_classifies_as_the_probe(overrides, digits, tmp_path, few_cs):
    train, test = (rows.filter(lambda label: label < 2, input_columns="label") for rows in digits)
    names = datasets.ClassLabel(names=["zero", "one"])
    train, test = train.cast_column("label", names), test.cast_column("label", names)
    backbone = tiny_model(FlaxViTClsModel, **overrides)
    measured = evaluate_features("probe", extract(backbone, train, **QUIET), extract(backbone, test, **QUIET))
    assert measured.probe is not None
    classifier_of(backbone, measured.readout, measured.probe, ["zero", "one"]).save_pretrained(tmp_path)
    model = FlaxViTClsForImageClassification.from_pretrained(tmp_path)
    assert (model.config.readout, model.config.id2label) == (measured.readout, {0: "zero", 1: "one"})
    again = benchmark(model, test, **QUIET)
    assert again["metrics"] == pytest.approx(measured.found["metrics"], rel=1e-4)
    assert again["metrics"] == pytest.approx(measured.by_readout[measured.readout], rel=1e-4)
    assert again["confusion_matrix"] == measured.found["confusion_matrix"]


@pytest.mark.world
def test_a_probe_becomes_a_model_with_results_and_card(saved, photos, tmp_path, capsys, few_cs):
    arguments = ["benchmark", str(saved), "--method", "probe", "--dataset_name", str(photos), "--batch_size", "10"]
    assert main([*arguments, "--output_dir", str(tmp_path / "head"), "--output", str(tmp_path / "r.json")]) == 0
    shown = capsys.readouterr().out
    assert "best readout" in shown
    written = Results.read(tmp_path / "head" / "results.json")
    measured = Results.read(tmp_path / "r.json")
    assert written.metrics == measured.metrics
    assert f"accuracy{' ' * 8}" in shown
    assert (written.model.class_name, measured.model.class_name) == (
        "FlaxViTClsForImageClassification",
        "FlaxViTClsModel",
    )
    assert written.features.readouts is not None
    assert set(written.features.readouts) == {"cls", "mean", "cls_mean"}
    assert written.features.readouts[written.model.readout or ""] == written.metrics
    assert (written.features.method, written.features.train.split) == ("probe", "train")
    assert written.features.c in FEW
    assert (", the largest tried" in shown) == (written.features.c == FEW[1])
    assert written.training.base_model.name == "tiny"
    assert main(["benchmark", str(tmp_path / "head"), "--dataset_name", str(photos), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["metrics"] == pytest.approx(written.metrics, rel=1e-4)
    model = FlaxViTClsForImageClassification.from_pretrained(tmp_path / "head")
    assert set(model.config.label2id) == {"zero", "one", "two"}
    assert isinstance(model.image_processor, ViTClsImageProcessor)
    card = (tmp_path / "head" / "README.md").read_text()
    assert "The classifier is a logistic regression on the features of" in card
    assert "| cls\\_mean | " in card
    assert "fine-tuned from a model called tiny" in card
    assert card == render_card(tmp_path / "head")
    assert main([*arguments, "--output_dir", str(tmp_path / "head")]) == 1
    assert "holds a model already: give another folder" in capsys.readouterr().err


@pytest.mark.world
def test_neighbours_in_results_and_card(folder, photos, tmp_path, capsys):
    arguments = ["benchmark", str(folder), "--dataset_name", str(photos), "--batch_size", "20"]
    assert main([*arguments, "--method", "knn", "--output", str(folder / "results.json"), "--json"]) == 0
    record = Results.from_json(capsys.readouterr().out)
    assert record == Results.read(folder / "results.json")
    assert list(record.metrics) == ["knn_10_accuracy", "knn_20_accuracy"]
    assert record.features.train.examples == sum(1 for _ in (photos / "train").rglob("*.png"))
    assert record.features.readouts is not None
    assert record.features.readouts["cls"] == record.metrics
    card = render_card(folder)
    assert "These numbers are not of the model's own classifier, but of a vote of the nearest features" in card
    assert ModelCard(card).data.metrics == ["knn_10_accuracy", "knn_20_accuracy"]
    assert main([*arguments, "--method", "retrieval", "--train_split", "test"]) == 0
    shown = capsys.readouterr().out
    assert "recall_at_1 " in shown
    assert "map_at_r " in shown
    assert "recall_at_1      1.0000" not in shown, "an image does not find itself"

    hub = record.to_json().replace('"photos",\n    "source": "folder"', '"me/photos",\n    "source": "hub"')
    (folder / "results.json").write_text(hub)
    (folder / "README.md").unlink(missing_ok=True)
    from modeling_vit_cls.cards import write_card

    write_card(folder)
    command = "--dataset_name me/photos --split test --method knn --train_split train\n"
    assert command in (folder / "README.md").read_text()
    notes = (card_to_push(folder, "me/model")[EVAL_RESULTS] or b"").decode()
    assert "knn_10_accuracy, split test" in notes
    assert "by knn on features" in notes


@pytest.mark.world
def test_bad_input_is_one_line(saved, photos, tmp_path, capsys):
    base = ["benchmark", str(saved), "--dataset_name", str(photos), "--batch_size", "10"]
    (tmp_path / "one" / "train" / "cat").mkdir(parents=True)
    for split in ("train", "test"):
        (tmp_path / "one" / split / "cat").mkdir(parents=True, exist_ok=True)
        for file in sorted((photos / split / "one").iterdir())[:4]:
            (tmp_path / "one" / split / "cat" / file.name).write_bytes(file.read_bytes())
    one = ["benchmark", str(saved), "--dataset_name", str(tmp_path / "one")]
    for arguments, message in (
        ([*base, "--method", "knn", "--train_split", "dev"], "train_split='dev': must be one of"),
        ([*base, "--method", "knn", "--train_split", "test"], "split='test': is the training split too"),
        ([*base, "--method", "knn", "--metrics", "accuracy"], "metrics=['accuracy']: must be left out"),
        ([*base, "--method", "knn", "--output_dir", str(tmp_path / "x")], "is where a probe is saved"),
        ([*base, "--train_split", "train"], "train_split='train': is for --method knn, retrieval and probe"),
        ([*one, "--method", "knn"], "has fewer images than the smallest number of neighbours, 10"),
        ([*one, "--method", "probe"], "classes=['cat']: a probe needs at least two"),
    ):
        assert main(arguments) == 1, arguments
        shown = capsys.readouterr()
        assert message in shown.err.splitlines()[-1]
        assert shown.out == ""


def test_classes_are_matched_by_name_and_checked_arguments():
    def features(names: list[str], labels: list[int]) -> Features:
        vectors = np.eye(3, dtype=np.float32)[[{"a": 0, "b": 1}[names[label]] for label in labels]]
        return Features({"cls": vectors}, np.asarray(labels), names, ("cls",), 0, {})

    train, test = features(["a", "b"], [0, 1] * 10), features(["b", "a"], [0, 1, 1])
    assert evaluate_features("knn", train, test).by_readout["cls"]["knn_10_accuracy"] == 1
    with pytest.raises(ConfigError, match=r"classes=\['c'\]: are not among the classes of the training split"):
        evaluate_features("knn", train, features(["b", "a", "c"], [0, 1]))
    part = features(["b"], [0, 0])
    assert evaluate_features("knn", train, part).by_readout["cls"]["knn_10_accuracy"] == 1
    with pytest.raises(ConfigError, match="would know its images"):
        evaluate_features("knn", train, None)
    with pytest.raises(ConfigError, match="method='svm': must be one of 'knn', 'retrieval', 'probe'"):
        evaluate_features("svm", train, test)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="must be a FlaxViTClsModel"):
        extract(tiny_model(), load_images("digits", "test"))  # pyright: ignore[reportArgumentType]


def test_a_search_for_what_is_not_there_is_counted_apart(caplog):
    vectors, labels = np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 2]], np.array([0, 0, 1, 1, 2])
    features = Features({"cls": vectors}, labels, ["a", "b", "c"], ("cls",), 0, {})
    found = evaluate_features("retrieval", features, None).found
    assert found["examples"] == 4
    assert found["metrics"]["recall_at_1"] == 1
    assert "1 of the 5 images to search for are left out, because there is no other image" in caplog.text
