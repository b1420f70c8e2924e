"""A classifier over a dataset, its results as files, evaluate's evaluator, and the verbs `benchmark` and `predict`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import evaluate
import jax
import numpy as np
import pytest
from conftest import tiny_model
from PIL import Image
from sklearn.metrics import confusion_matrix

from hub_scripts.__main__ import main
from modeling_vit_cls import BadImageError, ConfigError, ImageClassificationPipeline, ViTClsImageProcessor
from modeling_vit_cls.evaluation.benchmark import benchmark
from modeling_vit_cls.evaluation.evaluator import ViTClsEvaluator
from modeling_vit_cls.evaluation.metrics import Accuracy, load_metric
from modeling_vit_cls.evaluation.results import results
from modeling_vit_cls.images.fingerprint import images_digest
from modeling_vit_cls.images.sources import load_images, open_image
from modeling_vit_cls.results import Results

NAMES = [str(number) for number in range(10)]
QUIET = {"disable_tqdm": True}


def classifier(names: list[str]):
    """A tiny model of 8 x 8 images with classes of these names."""
    return tiny_model(num_labels=len(names), id2label=dict(enumerate(names)))


@pytest.fixture(scope="module")
def digits() -> datasets.Dataset:
    return load_images("digits", "test")


@pytest.fixture(scope="module")
def ten():
    return classifier(NAMES)


@pytest.fixture(scope="module")
def found(ten, digits):
    return benchmark(ten, digits, batch_size=50, **QUIET)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Images of two classes, "cat" and "dog", of every kind, in one split, "test"."""
    root = tmp_path_factory.mktemp("images")
    ramp = np.linspace(0, 65535, 12 * 10).reshape(12, 10)
    kinds = {
        "grey.png": Image.fromarray((ramp / 257).astype(np.uint8)),
        "alpha.png": Image.fromarray(np.stack([ramp / 257] * 4, axis=-1).astype(np.uint8)),
        "deep.png": Image.fromarray(ramp.astype(np.uint16)),
        "photo.jpg": Image.fromarray(np.stack([ramp / 257, ramp / 300, ramp / 400], axis=-1).astype(np.uint8)),
    }
    for name in ("cat", "dog"):
        (root / "test" / name).mkdir(parents=True)
        for file, image in kinds.items():
            (image if name == "cat" else image.rotate(90)).save(root / "test" / name / file)
    return root


@pytest.fixture(scope="module")
def saved(tmp_path_factory, ten) -> Path:
    """A checkpoint of the ten digits."""
    path = tmp_path_factory.mktemp("model") / "ten"
    ten.save_pretrained(path)
    return path


@pytest.mark.world
def test_numbers_are_those_of_the_pipeline(ten, digits, found):
    classify, photos = ImageClassificationPipeline(ten, batch_size=60), [open_image(image) for image in digits["image"]]
    predictions = classify(photos, top_k=None)
    best = [int(rows[0]["label"]) for rows in predictions]
    labels = list(digits["label"])
    assert found["examples"] == 360  # in eight batches, the last not full
    assert found["metrics"]["accuracy"] == pytest.approx(np.mean(np.equal(best, labels)))
    top = [str(label) in [row["label"] for row in rows[:5]] for rows, label in zip(predictions, labels)]
    assert found["metrics"]["top_5_accuracy"] == pytest.approx(np.mean(top))
    scores = [{row["label"]: row["score"] for row in rows}[str(label)] for rows, label in zip(predictions, labels)]
    assert found["metrics"]["nll"] == pytest.approx(-np.mean(np.log(scores)), rel=1e-5)
    assert found["confusion_matrix"] == confusion_matrix(labels, best, labels=range(10)).tolist()
    assert np.sum(found["confusion_matrix"]) == 360
    assert found["throughput"]["images_per_second"] > 0
    assert list(found["metrics"]) == ["accuracy", "top_5_accuracy", "macro_f1", "nll", "ece"]
    assert "skipped" not in found


@pytest.mark.parametrize("batch_size", [1, 7, 20, 64])
def test_the_batch_size_changes_nothing(ten, digits, batch_size):
    few = digits.select(range(20))
    wanted = benchmark(ten, few, batch_size=20, **QUIET)
    got = benchmark(ten, few, batch_size=batch_size, **QUIET)
    assert got["confusion_matrix"] == wanted["confusion_matrix"]
    assert got["metrics"] == pytest.approx(wanted["metrics"], rel=1e-5)


def test_classes_in_another_order_are_matched_by_name(digits, ten, found):
    order = np.random.default_rng(0).permutation(10)
    other = classifier([NAMES[number] for number in order])
    head = dict(ten.params["classifier"])
    other.params = {**ten.params, "classifier": jax.tree.map(lambda leaf: leaf[..., order], head)}
    again = benchmark(other, digits, batch_size=50, **QUIET)
    assert again["metrics"] == pytest.approx(found["metrics"], rel=1e-5)
    matrix = np.asarray(found["confusion_matrix"])
    assert again["confusion_matrix"] == matrix[np.ix_(order, order)].tolist()


def test_five_classes_have_no_top_5(folder):
    model, data = classifier(["cat", "dog"]), load_images(str(folder), "test")
    assert "top_5_accuracy" not in benchmark(model, data, **QUIET)["metrics"]
    asked = benchmark(model, data, metrics=["top_5_accuracy"], **QUIET)
    assert asked["metrics"] == {"top_5_accuracy": 1.0}


def test_many_classes_have_no_confusion_matrix(digits):
    many = [f"class {number}" for number in range(101)]
    data = digits.select(range(4)).cast_column("label", datasets.ClassLabel(names=many))
    assert "confusion_matrix" not in benchmark(classifier(many), data, **QUIET)


def test_broken_images_are_named_or_counted(tmp_path, folder, caplog):
    data = load_images(str(folder), "test")
    rows = [{"image": {"bytes": b"not an image", "path": "cat/broken.png"}, "label": 0}, *data]
    rows = [*rows[1:4], rows[0], *rows[4:]]  # among the cats, and dogs follow
    broken = datasets.Dataset.from_list(rows, features=data.features)
    model = classifier(["dog", "cat"])
    with pytest.raises(BadImageError, match=r"cat/broken.png: cannot"):
        benchmark(model, broken, batch_size=4, **QUIET)
    got = benchmark(model, broken, batch_size=4, on_bad_image="skip", **QUIET)
    assert (got["examples"], got["skipped"]) == (8, 1)
    assert "cat/broken.png" in caplog.text
    whole = benchmark(model, data, batch_size=3, **QUIET)
    assert got["confusion_matrix"] == whole["confusion_matrix"]
    assert got["metrics"] == pytest.approx(whole["metrics"], rel=1e-5)
    with pytest.raises(BadImageError, match="none of the 1 images"):
        benchmark(model, broken.select([3]), on_bad_image="skip", **QUIET)


def test_what_cannot_be_benchmarked(ten, digits):
    few = digits.select(range(3))
    with pytest.raises(ConfigError, match="has no examples"):
        benchmark(ten, digits.select([]), **QUIET)
    with pytest.raises(ConfigError, match="batch_size=0"):
        benchmark(ten, few, batch_size=0, **QUIET)
    with pytest.raises(ConfigError, match="on_bad_image='ignore'"):
        benchmark(ten, few, on_bad_image="ignore", **QUIET)
    with pytest.raises(ConfigError, match="model='str'"):
        benchmark("ten", few, **QUIET)
    with pytest.raises(ConfigError, match="metrics='sharpness'"):
        benchmark(ten, few, metrics=["sharpness"], **QUIET)
    other = ViTClsImageProcessor(size={"height": 9, "width": 9})
    for skip in ("raise", "skip"):  # the images are not broken
        with pytest.raises(ConfigError, match=r"must give \(8, 8\) pixels and 3 channels.*not \(9, 9\) and 3"):
            benchmark(ten, few, processor=other, on_bad_image=skip, **QUIET)
    unlabelled = datasets.Dataset.from_dict(
        {"image": list(few["image"]), "label": [1, -1, -1]}, features=digits.features
    )
    with pytest.raises(ConfigError, match="2 of 3 examples have no class, the first is row 1"):
        benchmark(ten, unlabelled, **QUIET)


@pytest.mark.world
def test_evaluator_of_evaluate(ten, digits, found):
    pipeline = ImageClassificationPipeline(ten, batch_size=64)
    mapping = {name: number for number, name in enumerate(NAMES)}
    for model, metric in ((pipeline, "accuracy"), (ten, Accuracy()), (pipeline, None)):
        got = ViTClsEvaluator().compute(model, digits, metric=metric, label_mapping=mapping)
        assert got["accuracy"] == pytest.approx(found["metrics"]["accuracy"])
        assert got["samples_per_second"] > 0
    decoded = digits.select(range(30)).cast_column("image", datasets.Image())
    some = {"metric": "accuracy", "label_mapping": mapping, "strategy": "bootstrap", "n_resamples": 20}
    got = ViTClsEvaluator().compute(pipeline, decoded, random_state=0, **some)["accuracy"]
    low, high = got["confidence_interval"]
    assert 0 <= low <= got["score"] <= high < 1
    with pytest.raises(ConfigError, match="model_or_pipeline='google/vit"):
        ViTClsEvaluator().compute("google/vit", digits)
    assert isinstance(ViTClsEvaluator(), evaluate.ImageClassificationEvaluator)


def test_benchmark_verb(saved, tmp_path, capsys, found):
    arguments = ["benchmark", str(saved), "--dataset_name", "digits", "--batch_size", "50"]
    assert main([*arguments, "--output", str(tmp_path / "r.json")]) == 0
    shown = capsys.readouterr().out
    assert f"accuracy        {found['metrics']['accuracy']:.4f}\n" in shown
    assert "digits, split test, 360 examples" in shown
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["metrics"] == pytest.approx(found["metrics"])
    assert written["model"]["name"] == saved.name, "not where it lies on this machine"
    assert main([*arguments, "--metrics", "accuracy", "ece", "--dtype", "bfloat16", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said["metrics"]) == ["accuracy", "ece"]
    assert said["throughput"]["dtype"] == "bfloat16"


def test_duplicates_that_are_known_stay_with_the_same_images(found, ten, saved, tmp_path):
    """They are counted in training, and a later benchmark of the model does not have the training data."""
    model = shutil.copytree(saved, tmp_path / "model")
    counted = results({**found, "duplicates": 7}, ten, model_name="m", dataset_name="digits", split="test")
    counted.write(model / "results.json")
    for options, expected in ([], 7), (["--split", "train"], None):
        words = [
            "benchmark",
            str(model),
            "--dataset_name",
            "digits",
            *options,
            "--output",
            str(tmp_path / "again.json"),
        ]
        assert main(words) == 0
        assert Results.read(tmp_path / "again.json").dataset.duplicates == expected
    fewer = results(
        {**found, "examples": 5}, ten, model_name="m", dataset_name="digits", split="test", tested=counted.dataset
    )
    assert fewer.dataset.duplicates is None


def test_benchmark_verb_on_a_folder_of_images(folder, tmp_path, capsys):
    model = classifier(["dog", "cat"])
    model.save_pretrained(tmp_path / "model")
    arguments = ["benchmark", str(tmp_path / "model"), "--dataset_name", str(folder), "--json"]
    assert main(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["dataset"] == {"name": folder.name, "source": "folder", "split": "test", "examples": 8}
    assert np.sum(said["confusion_matrix"], axis=1).tolist() == [4, 4]


def test_verbs_fail_in_one_line_that_names_it(saved, folder, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    good = str(folder / "test" / "cat" / "grey.png")
    digits = ["--dataset_name", "digits"]
    for arguments, message in (
        (["predict", str(saved), good, "--top_k", "0"], "top_k=0: must be a positive integer"),
        (["benchmark", str(saved), *digits, "--split", "dev"], "split='dev': must be one of digits: train, test"),
        (["benchmark", str(saved), *digits, "--metrics", "sharpness"], "metrics='sharpness': is neither"),
        (["benchmark", str(saved), "--dataset_name", str(folder)], "the dataset has 2 classes, the model 10"),
        (["benchmark", str(tmp_path / "no"), *digits], "is neither a local folder"),
    ):
        assert main(arguments) == 1, arguments
        shown = capsys.readouterr()
        assert message in shown.err
        assert shown.err.count("\n") == 1
        assert shown.out == ""
    for verb, example in (("benchmark", "--dataset_name digits --output"), ("predict", "--top_k 3")):
        with pytest.raises(SystemExit) as stopped:
            main([verb, "--help"])
        assert stopped.value.code == 0
        assert example in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit) as stopped:
        main(["benchmark", str(saved)])
    assert stopped.value.code == 2


def test_the_numbers_outlive_a_file_that_cannot_be_written(saved, tmp_path, capsys):
    assert main(["benchmark", str(saved), "--dataset_name", "digits", "--json", "--output", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["dataset"]["examples"] == 360
    assert "cannot be written" in shown.err


def shell(program: str) -> subprocess.CompletedProcess[str]:
    """A Python program in a process of its own."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_verbs_from_a_shell_find_what_an_earlier_one_compiled(saved, folder, tmp_path):
    image = str(folder / "test" / "cat" / "alpha.png")
    command = [sys.executable, "-m", "hub_scripts", "predict", str(saved), image, "--top_k", "1", "--json"]
    elsewhere = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    kept = []
    for _ in range(2):
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=elsewhere | {"HF_HOME": str(tmp_path)}
        )
        assert len(json.loads(done.stdout)[0]["predictions"]) == 1
        kept.append(sorted(file.name for file in tmp_path.glob("assets/vit-cls/compiled/*/*-cache")))
    assert any("forward" in name for name in kept[0])
    assert kept[1] == kept[0]


WITHOUT_THE_EXTRA = """
import sys
import hub_scripts.command
from hub_scripts.__main__ import main
assert not {"evaluate", "pandas", "pyarrow", "sklearn"} & set(sys.modules), "imported before it is needed"
sys.modules["NAME"] = None  # as if it were not installed
sys.exit(main(["benchmark", "MODEL", "--dataset_name", "digits"]))
"""


@pytest.mark.parametrize("name", ["datasets", "evaluate"])
def test_a_missing_extra_is_one_line(saved, name):
    done = shell(WITHOUT_THE_EXTRA.replace("NAME", name).replace("MODEL", str(saved)))
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"vit-cls: {name} is needed to ")
    assert "[train]'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_duplicates_of_a_folder_are_not_those_of_another_of_its_name(folder, tmp_path):
    model = classifier(["dog", "cat"])
    model.save_pretrained(tmp_path / "model")
    same, other = (tmp_path / name / "photos" for name in "ab")
    for place in (same, other):
        shutil.copytree(folder, place)
    digest = images_digest(load_images(str(same), "test"), "image")
    Image.new("RGB", (9, 9)).save(other / "test" / "cat" / "photo.jpg")
    measured = benchmark(model, load_images(str(same), "test"), **QUIET)
    names = {"model_name": "m", "dataset_name": str(same), "split": "test"}
    counted = results({**measured, "duplicates": 3, "images": digest}, model, **names)
    counted.write(tmp_path / "model" / "results.json")
    for place, expected in ((same, 3), (other, None)):
        out = tmp_path / "out.json"
        words = ["benchmark", str(tmp_path / "model"), "--dataset_name", str(place), "--output", str(out)]
        assert main(words) == 0
        assert Results.read(out).dataset.duplicates == expected


def test_metrics_make_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "cache")
    assert load_metric("accuracy").compute(predictions=[0, 1], references=[0, 0]) == {"accuracy": 0.5}
    assert not (tmp_path / "cache").exists()
