"""A save over an earlier one: nothing of another model stays beside the new one, and all that is the user's does."""

import json
from pathlib import Path

import jax
import pytest
import yaml
from conftest import tiny_model
from small_runs import MODEL, base, refuse, steps_without_compiling, trainer

from modeling_vit_cls import CheckpointError, FlaxViTClsForImageClassification, ViTClsImageProcessor
from modeling_vit_cls.files.ownership import signed

pytestmark = pytest.mark.world

__all__ = ["base", "steps_without_compiling"]  # fixtures, for this module too

PICTURES = {"training_curve.png", "confusion_matrix.png", "attention.png"}
CARD = "# A card\n" + "".join(f"![A picture]({name})\n" for name in sorted(PICTURES))
RECIPE = {"output_dir": "x", "dataset_name": "digits", "learning_rate": 1e-3}
RESULTS = {"model": {}, "dataset": {}, "metrics": {}, "recipe": RECIPE, "versions": {}, "hardware": {}}


def old_model(folder: Path) -> None:
    """Put beside a model all that a save, an export, a training, a benchmark and a card of ours leave."""
    texts = {"README.md": signed(CARD), "results.json": json.dumps(RESULTS), "recipe.yaml": yaml.dump(RECIPE)}
    names = ["trainer_state.json", "training_state.safetensors", "training_digests.json", "model.onnx"]
    names += ["model.onnx.data", "model.stablehlo", *PICTURES]
    for name in [*names, ".eval_results/vit-cls.yaml"]:
        texts.setdefault(name, "old")
    (folder / ".eval_results").mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)


@pytest.mark.parametrize("in_place", [False, True], ids=["exchanged", "in place"])
def test_a_save_leaves_nothing_of_an_earlier_model_and_all_of_the_users(folder, in_place, monkeypatch):
    old_model(folder)
    for name in ("notes.md", "my_results.json", "checkpoint-1/config.json", "runs/events/log"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    if in_place:
        monkeypatch.chdir(folder)
    tiny_model(num_labels=3).save_pretrained(folder)
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert left == MODEL | {"notes.md", "my_results.json", "checkpoint-1/config.json", "runs/events/log"}
    assert not (folder / ".eval_results").exists()


def test_what_somebody_wrote_or_edited_stays(folder):
    old_model(folder)
    (folder / "README.md").write_text(signed(CARD) + "and a word of mine")
    (folder / "results.json").write_text('{"accuracy": 1.0}')
    (folder / ".eval_results" / "mine.yaml").write_text("mine")
    tiny_model(num_labels=3).save_pretrained(folder)
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert left == MODEL | PICTURES | {"README.md", "results.json", "recipe.yaml", ".eval_results/mine.yaml"}


@pytest.mark.parametrize("in_place", [False, True], ids=["exchanged", "in place"])
def test_metrics_and_the_pictures_of_others_outlast_a_save(tmp_path, in_place, monkeypatch):
    made = trainer(tmp_path)
    if in_place:
        monkeypatch.chdir(tmp_path)
    for name in ("train", "eval", "test"):
        made.save_metrics(name, {f"{name}_loss": 0.5})
    (tmp_path / "README.md").write_text(signed("# A card without pictures\n"))
    (tmp_path / "attention.png").write_text("mine")
    made.save_model()
    metrics = {f"{name}_results.json" for name in ("train", "eval", "test", "all")}
    assert metrics | {"attention.png", "README.md"} <= {path.name for path in tmp_path.iterdir()}
    made.model.params = jax.tree.map(lambda leaf: leaf + 1, made.model.params)
    made.save_model()
    names = {path.name for path in tmp_path.iterdir()}
    assert metrics | {"attention.png"} <= names
    assert "README.md" not in names, "what was said of the other weights"


def test_what_was_measured_of_the_same_model_stays(folder, model):
    old_model(folder)
    model.save_pretrained(folder)
    names = {path.name for path in folder.iterdir()}
    assert {"README.md", "results.json", "recipe.yaml", "attention.png"} <= names
    assert not {"trainer_state.json", "training_state.safetensors", "model.onnx"} & names
    model = FlaxViTClsForImageClassification.from_pretrained(folder)
    model.image_processor = ViTClsImageProcessor(size={"height": 8, "width": 8}, image_mean=[0.1, 0.2, 0.3])
    model.save_pretrained(folder)
    assert {path.name for path in folder.iterdir() if path.is_file()} == MODEL


@pytest.mark.parametrize("in_place", [False, True], ids=["exchanged", "in place"])
def test_the_state_that_is_saved_is_the_one_that_is_there_afterwards(tmp_path, in_place, monkeypatch):
    for steps in (2, 3):
        saving = trainer(tmp_path / "run")
        saving.state.global_step = steps
        saving.save_model()
        if in_place:
            monkeypatch.chdir(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "trainer_state.json").read_text())["global_step"] == 3


def test_without_links_files_are_copied_and_never_over_others(folder, monkeypatch):
    monkeypatch.setattr("os.link", refuse)
    (folder / "notes.md").write_text("mine")
    (folder / "link").symlink_to("notes.md")
    old_model(folder)
    tiny_model(num_labels=3).save_pretrained(folder)
    assert (folder / "link").is_symlink()
    assert (folder / "link").read_text() == "mine"
    assert FlaxViTClsForImageClassification.from_pretrained(folder).config.num_labels == 3


def test_a_processor_that_cannot_be_read_stops_no_save(folder, model, caplog):
    """It is replaced: what the model has of its own, or what its config means, is what the folder then holds."""
    other = tiny_model()
    other.image_processor = None
    broken = [("preprocessor_config.json", "{"), ("preprocessor_config.json", '{"image_mean": "x"}')]
    broken += [("processor_config.json", "{"), ("processor_config.json", '{"image_processor": 3}')]
    for saved in (model, other):
        for name, text in broken:
            (folder / name).write_text(text)
            saved.save_pretrained(folder)
            read = FlaxViTClsForImageClassification.from_pretrained(folder)
            assert read.image_processor.output_hw == model.config.image_hw
            assert not (folder / "processor_config.json").exists()
    assert "processor_config.json" in caplog.text
    (folder / "processor_config.json").write_text('{"tokenizer": 3}')
    model.save_pretrained(folder)
    assert (folder / "processor_config.json").exists()


def test_a_folder_where_a_file_is_to_be_written_is_refused(folder, model):
    before = (folder / "config.json").read_bytes()
    (folder / "preprocessor_config.json").unlink()
    (folder / "preprocessor_config.json").mkdir()
    (folder / "preprocessor_config.json" / "mine").write_text("mine")
    with pytest.raises(
        CheckpointError, match=r"preprocessor_config\.json: is a folder, but a file of this name must be written"
    ):
        model.save_pretrained(folder)
    assert (folder / "config.json").read_bytes() == before
