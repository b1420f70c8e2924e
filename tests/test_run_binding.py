"""What binds a run: it goes on only as itself, with the files that it saved."""

import os
from pathlib import Path

import pytest
from small_runs import EVERY_STEP, FULL, ROWS, base, copied, run, steps_without_compiling, trainer

from hub_scripts.__main__ import main
from modeling_vit_cls import CheckpointError, ConfigError, FlaxViTClsForImageClassification, ViTClsImageProcessor
from modeling_vit_cls.config_rules import LATER_FIELDS
from modeling_vit_cls.images.sources import load_images
from modeling_vit_cls.training.binding import changes_since

pytestmark = pytest.mark.world

__all__ = ["base", "steps_without_compiling"]  # fixtures, for this module too


def replaced(row: int):
    """ROWS with the image of one row replaced by another of the same name and class."""
    other = next(i for i in range(100, len(FULL)) if FULL[i]["label"] == ROWS[row]["label"])
    image = {"bytes": FULL[other]["image"]["bytes"], "path": ROWS[row]["image"]["path"]}
    change = lambda example, i: {"image": image} if i == row else {}  # noqa: E731
    return ROWS.map(change, with_indices=True, features=ROWS.features)


def relabelled(row: int):
    change = lambda example, i: {"label": (example["label"] + 1) % 10} if i == row else {}  # noqa: E731
    return ROWS.map(change, with_indices=True, features=ROWS.features)


MEAN = ViTClsImageProcessor(size={"height": 8, "width": 8}, image_mean=[0.1], image_std=[0.2])
OTHERS = {
    "one image": ("train_dataset", lambda: {"data": replaced(41)}),
    "one label": ("train_dataset", lambda: {"data": relabelled(41)}),
    "the order": ("train_dataset", lambda: {"data": ROWS.select([1, 0, *range(2, 64)])}),
    "a row less": ("train_dataset", lambda: {"data": ROWS.select(range(63))}),
    "mean and deviation": ("processing_class.image_mean", lambda: {"processor": MEAN}),
    "heads": ("num_attention_heads", lambda: {"config": {"num_attention_heads": 4}}),
    "readout": ("readout", lambda: {"config": {"readout": "mean"}}),
    "dropout": ("hidden_dropout_prob", lambda: {"config": {"hidden_dropout_prob": 0.5}}),
    "names": ("id2label", lambda: {"config": {"id2label": {i: str(9 - i) for i in range(10)}}}),
    "seed": ("seed", lambda: {"seed": 1}),
    "what is best": ("metric_for_best_model", lambda: {"metric_for_best_model": "accuracy"}),
    "fewer steps": ("max_steps", lambda: {"max_steps": 1}),
    "fewer epochs": ("num_train_epochs", lambda: {"max_steps": -1, "num_train_epochs": 0.5}),
    "no evaluation": ("eval_strategy", lambda: {"eval_strategy": "no"}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_goes_on_only_as_itself(base, name, tally):
    field, change = OTHERS[name]
    with pytest.raises(ConfigError, match=r"the run in .*checkpoint-2 had") as error:
        run(base, **(EVERY_STEP | change()), resume_from_checkpoint=True)
    assert error.value.field == field
    tally.note("refused by field")


def test_a_field_that_came_later_binds_a_run_by_the_value_that_it_had_before():
    record = {
        "arguments": {"global_batch": 8},
        "processor": {},
        "class_names": [],
        "train_dataset": {},
        "eval_dataset": None,
    }
    record["total_steps"] = 1
    before = {**record, "config": {"hidden_size": 16}}
    now = {**record, "config": {"hidden_size": 16, **LATER_FIELDS}}
    assert changes_since(now, before, Path("checkpoint-1")) == []
    now["config"]["num_cls_tokens"] = 2
    with pytest.raises(ConfigError, match="num_cls_tokens=2"):
        changes_since(now, before, Path("checkpoint-1"))


def test_the_images_of_an_update_bind_a_run_and_not_those_of_a_device():
    record = {"config": {}, "processor": {}, "class_names": [], "train_dataset": {}, "eval_dataset": None}
    record["total_steps"] = 1

    def arguments(size: int, devices: int, parts: int, **more):
        fields = {"per_device_train_batch_size": size, "gradient_accumulation_steps": parts, **more}
        return {**record, "arguments": {**fields, "global_batch": size * devices * parts}}

    checkpoint, before = Path("checkpoint-1"), arguments(8, 4, 2, mesh="data=-1")
    changes = changes_since(arguments(4, 8, 2, mesh="fsdp=8"), before, checkpoint)
    assert changes == ["per_device_train_batch_size is now 4, was 8", "mesh is now 'fsdp=8', was 'data=-1'"]
    gives = r"per_device_train_batch_size=8: gives 128 images .* but the run in checkpoint-1 had 64: use 4"
    with pytest.raises(ConfigError, match=gives):
        changes_since(arguments(8, 8, 2), before, checkpoint)
    with pytest.raises(ConfigError, match="had 64: no number of images of a device gives this here"):
        changes_since(arguments(8, 3, 2), before, checkpoint)
    with pytest.raises(ConfigError, match="gradient_accumulation_steps=1"):
        changes_since(arguments(8, 8, 1), before, checkpoint)
    earlier = arguments(32, 1, 2)
    del earlier["arguments"]["global_batch"]  # a version that used one device
    assert changes_since(arguments(8, 4, 2), earlier, checkpoint)
    with pytest.raises(ConfigError, match="had 64: use 8"):
        changes_since(arguments(32, 4, 2), earlier, checkpoint)


def test_a_run_that_is_refused_leaves_the_trainer_as_it_was(tmp_path):
    made = run(tmp_path, **EVERY_STEP)
    with pytest.raises(ConfigError, match=r"holds checkpoint-\d of an earlier run.*--resume_from_checkpoint true"):
        made.train()
    assert made.state.global_step == 2
    with pytest.raises(ConfigError, match=r"resume_from_checkpoint=.*is a run's folder: give .*checkpoint-\d"):
        made.train(resume_from_checkpoint=tmp_path)


def test_the_evaluated_images_bind_too(base):
    other = trainer(base, **EVERY_STEP)
    other.eval_dataset = other.eval_dataset.select(range(15))
    with pytest.raises(ConfigError, match="eval_dataset='15 examples'"):
        other.train(resume_from_checkpoint=True)


def test_files_count_by_name_size_and_content_wherever_they_lie(tmp_path):
    from modeling_vit_cls.images.fingerprint import fingerprint

    def images(root: Path):
        for row in ROWS.select(range(6)):
            file = root / str(row["label"]) / Path(row["image"]["path"]).name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(row["image"]["bytes"])
        return load_images(str(root), "train")

    first = fingerprint(images(tmp_path / "a"))
    assert fingerprint(images(tmp_path / "b")) == first
    file = next((tmp_path / "b").rglob("*.png"))
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    assert fingerprint(load_images(str(tmp_path / "b"), "train"))["images"] != first["images"]
    file.unlink()
    (tmp_path / "pipe").mkdir()
    os.mkfifo(file)  # it must not be opened
    assert fingerprint(images_of(file, first))["images"] != first["images"]


def images_of(file: Path, like) -> object:
    import datasets

    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=["a"])})
    return datasets.Dataset.from_dict({"image": [{"bytes": None, "path": str(file)}], "label": [0]}, features=features)


def test_what_may_change_changes_and_the_log_says_so(base, tmp_path, caplog):
    moved = copied(base, tmp_path / "moved")
    longer = run(moved, **EVERY_STEP, max_steps=3, logging_steps=1, save_total_limit=2, resume_from_checkpoint=True)
    assert longer.state.global_step == longer.state.max_steps == 3
    said = [
        record.message for record in caplog.records if "these settings changed since the checkpoint" in record.message
    ]
    assert len(said) == 1
    for part in ("output_dir is now 'moved', was 'run'", "logging_steps is now 1, was 50", "steps are now 3, were 2"):
        assert part in said[0]
    assert sorted(path.name for path in moved.iterdir()) == ["checkpoint-2", "checkpoint-3"]
    caplog.clear()
    run(moved, **EVERY_STEP, max_steps=3, logging_steps=1, save_total_limit=2, resume_from_checkpoint=True)
    assert not caplog.records


def test_loading_and_verify_compare_all_files_of_a_checkpoint(base, tmp_path, capsys):
    folder = copied(base / "checkpoint-2", tmp_path / "checkpoint-2")
    assert main(["verify", str(folder)]) == 0
    file = folder / "preprocessor_config.json"
    whole = file.read_text()
    file.write_text(whole.replace("0.5", "0.6"))
    with pytest.raises(
        CheckpointError, match=r"preprocessor_config\.json: differs from what was saved in this checkpoint"
    ):
        FlaxViTClsForImageClassification.from_pretrained(folder)
    file.write_text(whole)
    (folder / "trainer_state.json").write_text("{}")
    FlaxViTClsForImageClassification.from_pretrained(folder)  # which does not read it
    assert main(["verify", str(folder)]) == 1
    assert "trainer_state.json: differs from what was saved" in capsys.readouterr().err
