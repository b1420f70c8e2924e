"""Recipes: read, overridden, refused; and one run from end to end by the command line."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from hub_scripts.__main__ import main
from modeling_vit_cls import ConfigError, FlaxAutoModelForImageClassification
from modeling_vit_cls.training.packaged import HEAD, find_recipe, packaged_recipes, read_head
from modeling_vit_cls.training.recipe import read_recipe
from modeling_vit_cls.training.run import build_model, load_splits, run_recipe

pytestmark = pytest.mark.world

CONFIGURATION = Path(__file__).parent.parent / "configuration"
DIGITS = CONFIGURATION / "vit_cls_digits_cls.yaml"
TINY = "{hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32, "
TINY += "image_size: 8, patch_size: 4}"


@pytest.mark.parametrize("file", sorted(CONFIGURATION.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_recipe_reads_back_as_itself(file, tmp_path):
    recipe = read_recipe(file)
    again = tmp_path / "recipe.yaml"
    again.write_text(yaml.safe_dump(recipe.to_dict()))
    assert read_recipe(again) == recipe
    fields = yaml.safe_load(file.read_text())
    assert recipe.training.learning_rate == float(fields["learning_rate"])


@pytest.mark.parametrize("file", packaged_recipes(), ids=lambda file: file.stem)
def test_every_recipe_has_a_head_whose_command_it_takes(file):
    head = read_head(file)
    assert all(text == text.strip() != "" for text in vars(head).values())
    words = shlex.split(head.command)
    assert words[:3] == ["vit-cls", "train", file.stem]
    recipe = read_recipe(words[2], words[3:])
    assert HEAD not in recipe.to_dict()


def test_what_follows_from_other_fields_follows_from_them_again(tmp_path):
    recipe = read_recipe("fine_tune", ["--dataset_name", "digits", "--output_dir", str(tmp_path)])
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(recipe.to_dict()))
    changed = read_recipe(again, ["--metric_for_best_model", "accuracy", "--output_dir", "other"]).training
    assert (changed.greater_is_better, changed.run_name) == (True, "other")
    explicit = ["--metric_for_best_model", "accuracy", "--greater_is_better", "false", "--run_name", "mine"]
    again.write_text(yaml.safe_dump(read_recipe(again, explicit).to_dict()))
    kept = read_recipe(again, ["--output_dir", "other"]).training
    assert (kept.greater_is_better, kept.run_name) == (False, "mine")


def test_a_recipe_of_the_package_is_found_beside_a_folder_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vit_cls_digits_cls").mkdir()
    assert read_recipe("vit_cls_digits_cls").model.readout == "cls"


def test_the_home_folder_is_meant_by_its_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_recipe("vit_cls_digits_cls", ["--output_dir=~/run"]).training.output_dir == str(tmp_path / "run")


def test_images_that_are_held_out_for_nothing_are_named(tmp_path, caplog):
    options = ["--output_dir", str(tmp_path / "run"), "--max_steps", "1", "--eval_strategy", "no"]
    run_recipe(read_recipe("vit_cls_digits_cls", options))
    assert "72 images of train are held out of the training, but eval_strategy='no' evaluates none" in caplog.text


def test_a_wrong_metric_is_an_error_before_the_training(tmp_path):
    options = ["--output_dir", str(tmp_path / "run"), "--metrics", "acuracy", "--max_steps", "1"]
    with pytest.raises(ConfigError, match=r"metrics='acuracy'"):
        run_recipe(read_recipe("vit_cls_digits_cls", options))
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_classes_without_a_training_image_are_named_and_the_share_is_exact(tmp_path, caplog):
    options = ["--output_dir", str(tmp_path / "run"), "--max_steps", "1"]
    options += ["--config_overrides", TINY[:-1] + ", num_channels: 1}", "--train_val_split", "0.125"]
    options += ["--max_train_samples", "8", "--max_eval_samples", "16"]
    results = run_recipe(read_recipe("vit_cls_digits_cls", [*options, "--test_split", "null"]))
    assert re.search(
        r"without an image in the training data, which .*cannot learn \(2 of 10\): \['\d', '\d'\]", caplog.text
    )
    assert results.dataset.split == "12.5% of train"


def test_accuracies_are_those_of_the_model_cards():
    """The head of a recipe that was measured has the accuracy of its card, which is rendered from its results."""
    recipes = [*(CONFIGURATION.parent / "model_cards").glob("*/recipe.yaml")]
    for recipe in recipes:
        accuracy = json.loads((recipe.parent / "results.json").read_text())["metrics"]["accuracy"]
        assert f"{accuracy:.4f}" in read_head(find_recipe(recipe.parent.name)).accuracy
    assert len(recipes) >= 2


@pytest.mark.parametrize("head", ["", "about: hello", "about: {trains: a, cost: b, accuracy: 0.9, command: d}"])
def test_a_head_that_is_not_whole_is_refused(head, tmp_path):
    (tmp_path / "r.yaml").write_text(f"output_dir: out\ndataset_name: digits\n{head}\n")
    with pytest.raises(ConfigError, match=r"about=.*r\.yaml: must have the texts trains, cost, accuracy, command"):
        read_head(tmp_path / "r.yaml")
    read_recipe(tmp_path / "r.yaml")  # it is no field of the run


def test_recipes_are_listed(capsys):
    assert main(["recipes", "--json"]) == 0
    rows = {row.pop("name"): row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == [file.stem for file in packaged_recipes()]
    assert rows["fine_tune"] == vars(read_head(find_recipe("fine_tune")))
    for pattern in ("digits", "vit_cls_digits_*"):
        assert main(["recipes", pattern]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines if not line.startswith(" ")] == ["vit_cls_digits_cls", "vit_cls_digits_mean"]
        assert f"  accuracy  {rows['vit_cls_digits_cls']['accuracy']}" in lines
    assert main(["recipes", "resnet"]) == 1
    assert "no recipe matches 'resnet'" in capsys.readouterr().err


def test_a_recipe_runs_by_its_name_from_an_empty_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = ["--config_overrides", TINY[:-1] + ", num_channels: 1}", "--max_steps", "2", "--eval_steps", "2"]
    given += ["--max_train_samples", "64", "--max_eval_samples", "16", "--output_dir", "out"]
    assert main(["train", "vit_cls_digits_cls", *given, "--json"]) == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert not (tmp_path / "configuration").exists()


def test_the_command_line_overrides_the_file():
    recipe = read_recipe(
        DIGITS, ["--readout", "mean", "--learning_rate", "1e-3", "--metrics", "a", "b", "--bf16", "true"]
    )
    assert recipe.model.overrides["readout"] == "mean"
    assert recipe.model.overrides["patch_size"] == 2
    assert (recipe.training.learning_rate, recipe.training.bf16) == (1e-3, True)
    assert recipe.evaluation.metrics == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("learning_rte: 1", [], "learning_rte=1: .*did you mean 'learning_rate'"),
        ("learning_rate: fast", [], "learning_rate"),
        ("model_revision: 0012345", [], "model_revision=5349: .*must be a text; YAML reads digits as a number: quote"),
        ("test_split: no", [], "test_split=False: .*must be a text; YAML reads yes, no, on and off"),
        ("dataset_name: digits", [], "output_dir"),
        ("- a", [], "must be a YAML mapping"),
        ("a: [", [], "cannot be read as YAML"),
        ("{output_dir: a, dataset_name: digits, lr_scheduler_type: step}", [], "lr_scheduler_type"),
        ("{output_dir: a, dataset_name: digits, learning_rate: -1}", [], "learning_rate=-1.0: must be positive"),
        ("{output_dir: a, dataset_name: digits}", ["--learning_rte", "1"], "did you mean --learning_rate"),
        ("{output_dir: a, dataset_name: digits}", ["stray"], "stray"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_named(text, overrides, message, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_recipe(tmp_path / "recipe.yaml", overrides)
    with pytest.raises(SystemExit) as stopped:
        main(["train", str(tmp_path / "recipe.yaml"), *overrides])
    assert stopped.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_splits_have_nothing_in_common():
    recipe = read_recipe(DIGITS, ["--train_val_split", "0.25"])
    train, evaluation = load_splits(recipe.data)
    paths = [{row["image"]["path"] for row in split} for split in (train, evaluation)]
    assert (len(paths[0]), len(paths[1]), paths[0] & paths[1]) == (1078, 359, set())


def photos(folder: Path) -> Path:
    """A newcomer's folder: two classes, two splits."""
    for split, count in (("train", 12), ("test", 4)):
        for number in range(count):
            kind, colour = (("cats", (200, 30, 30)), ("dogs", (30, 30, 200)))[number % 2]
            place = folder / split / kind
            place.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20 + number, 18), colour).save(place / f"{number}.jpg")
    return folder


def test_a_folder_of_images_is_trained_on_fine_tuned_and_predicted(tmp_path, capsys):
    images, first, second = photos(tmp_path / "photos"), tmp_path / "first", tmp_path / "second"
    (tmp_path / "recipe.yaml").write_text(
        f"{{output_dir: {first}, dataset_name: {images}, config_overrides: {TINY}, test_split: test,"
        " num_train_epochs: 8, learning_rate: 0.01, save_strategy: 'no', disable_tqdm: true,"
        " per_device_train_batch_size: 8}"
    )
    assert main(["train", "--json", str(tmp_path / "recipe.yaml")]) == 0
    shown = capsys.readouterr()
    assert "\r" not in shown.err  # a bar, into a file
    assert "step 16/16, epoch 8: training ended: " in shown.err
    assert "is not used" not in shown.err
    results = json.loads(shown.out)
    assert results == json.loads((first / "results.json").read_text())
    assert results["dataset"]["examples"] == 4
    assert {"config.json", "model.safetensors", "README.md", "recipe.yaml", "attention.png"} <= {
        entry.name for entry in first.iterdir()
    }
    model = FlaxAutoModelForImageClassification.from_pretrained(str(first))
    assert dict(model.config.id2label) == {0: "cats", 1: "dogs"}

    overrides = ["--model_name_or_path", str(first), "--config_overrides", "{drop_path_rate: 0.1}"]
    overrides += ["--output_dir", str(second), "--freeze_backbone", "true", "--learning_rate", "0.001"]
    (images / "train" / "cats" / "broken.jpg").write_bytes(b"not a JPEG file")
    shutil.copytree(images / "test", images / "Val")
    overrides += ["--on_bad_image", "skip", "--train_val_split", "0.3", "--test_split", "null"]
    overrides += ["--load_best_model_at_end", "true", "--eval_strategy", "epoch", "--save_strategy", "epoch"]
    assert main(["train", str(tmp_path / "recipe.yaml"), *overrides]) == 0
    shown = capsys.readouterr()
    assert re.search(r"^dataset +photos, split 30% of train, \d+ examples$", shown.out, re.MULTILINE)
    assert f"card: {second}/README.md" in shown.out
    warnings = [line for line in shown.err.splitlines() if line.startswith("vit-cls: warning: ")]
    assert sum("broken.jpg: cannot be read as an image" in line for line in warnings) == 1
    assert sum("the images of 30% of train choose the best step, and are also those" in line for line in warnings) == 1
    for use in ("--eval_split validation chooses the best step", "--test_split test measures the trained model"):
        assert sum(f"of {images} is not used: {use}" in line for line in warnings) == 1
    assert "**These images also chose the step" in (second / "README.md").read_text()
    assert "WARNING" not in shown.err
    (images / "train" / "cats" / "broken.jpg").unlink()
    assert main(["predict", str(second), str(images / "test" / "cats"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert main(["benchmark", str(second), "--dataset_name", str(images), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["accuracy"] == pytest.approx(1.0)
    assert main(["train", str(tmp_path / "recipe.yaml"), "--dataset_name", "no/such"]) == 1
    assert "dataset_name='no/such'" in capsys.readouterr().err


def test_a_new_set_of_classes_gives_a_new_head(tmp_path):
    recipe = read_recipe(DIGITS, ["--config_overrides", TINY])
    model = build_model(recipe.model, ["a", "b", "c"], seed=0)
    model.save_pretrained(tmp_path)
    tuned = read_recipe(DIGITS, ["--model_name_or_path", str(tmp_path), "--config_overrides", "{}"])
    again = build_model(tuned.model, ["x", "y"], seed=1)
    assert dict(again.config.id2label) == {0: "x", 1: "y"}
    assert again.params["classifier"]["bias"].shape == (2,)
