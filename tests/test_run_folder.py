"""A run's folder holds one run: nothing of an earlier save, of another run or of other data is mixed into it."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from conftest import assert_same, tiny_config, tiny_model
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file
from transformers import TrainerCallback

from hub_scripts.__main__ import main
from modeling_vit_cls import CheckpointError, ConfigError, FlaxViTClsForImageClassification, ViTClsImageProcessor
from modeling_vit_cls.cards import render_card
from modeling_vit_cls.checkpoints.ownership import signed
from modeling_vit_cls.data.sources import load_images
from modeling_vit_cls.names import RUN_LOCK
from modeling_vit_cls.training import FlaxTrainer, TrainingArguments
from modeling_vit_cls.training.recipe import read_recipe

FULL = load_images("digits", "train")
ROWS = FULL.select(range(64))
EVERY_STEP = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
MODEL = {"config.json", "model.safetensors", "preprocessor_config.json"}
PICTURES = {"training_curve.png", "confusion_matrix.png", "attention.png"}
CARD = "# A card\n" + "".join(f"![A picture]({name})\n" for name in sorted(PICTURES))
RECIPE = {"output_dir": "x", "dataset_name": "digits", "learning_rate": 1e-3}
RESULTS = {"model": {}, "dataset": {}, "metrics": {}, "recipe": RECIPE, "versions": {}, "hardware": {}}


@pytest.fixture(scope="module", autouse=True)
def steps_without_compiling():
    """Updates that are functions of seed, step and rows, as real ones are (test_resume.py), but of plain NumPy.

    Every evaluation gives the same accuracy, and a greater loss than the one before.
    """

    def make_train_step(module, optimizer, processor, arguments):
        def step(state, batch):
            update = np.float32(0.001 * (2 + np.sin(arguments.seed + int(state.step) + batch.rows.sum())))
            params = jax.tree.map(lambda leaf: np.asarray(leaf) + update, state.params)
            squares = {name: np.ones(1) for name in flatten_dict(params, sep=".")}
            state = state.replace(step=state.step + 1, params=params, loss_sum=state.loss_sum + 1)
            return state, {"loss": np.float32(1), "grad_norm": np.float32(1), "squares": squares}

        return step

    def make_eval_step(module, processor):
        def step(params, batch):
            losses = np.full(len(batch.labels), np.mean(params["classifier"]["bias"]), np.float32)
            return np.eye(10, dtype=np.float32)[0 * batch.labels], losses

        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modeling_vit_cls.training.trainer.make_train_step", make_train_step)
        patch.setattr("modeling_vit_cls.training.trainer.make_eval_step", make_eval_step)
        yield


def trainer(folder, data=ROWS, callbacks=None, processor=None, config=None, **changes) -> FlaxTrainer:
    """Two steps to an epoch."""
    few = {"max_steps": 2, "per_device_train_batch_size": 32, "save_strategy": "no", "disable_tqdm": True}
    model = FlaxViTClsForImageClassification(tiny_config(num_channels=1, num_labels=10, **(config or {})))
    arguments = TrainingArguments(str(folder), **(few | changes))
    return FlaxTrainer(model, arguments, data, ROWS.select(range(16)), processor, callbacks=callbacks)


def run(folder, *more, **changes) -> FlaxTrainer:
    made = trainer(folder, *more, **changes)
    made.train()
    return made


def copied(source: Path, target: Path) -> Path:
    subprocess.run(["cp", "-r", source, target], check=True)
    return target


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A run of two steps that kept both."""
    folder = tmp_path_factory.mktemp("base") / "run"
    run(folder, **EVERY_STEP)
    return folder


# Saves


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


def refuse(*_, **__):
    raise PermissionError(1, "Operation not permitted")


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
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: is a folder where a file is to be written"):
        model.save_pretrained(folder)
    assert (folder / "config.json").read_bytes() == before


# What binds a run


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
    from modeling_vit_cls.data.fingerprint import fingerprint

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


# Paths


BEST = EVERY_STEP | {"load_best_model_at_end": True, "metric_for_best_model": "accuracy"}


def best_first(folder, **changes) -> FlaxTrainer:
    """A run whose first checkpoint is the best."""
    return trainer(folder, **(BEST | changes))


def weights(folder: Path):
    return FlaxViTClsForImageClassification.from_pretrained(folder).params


def test_a_moved_run_finds_its_own_best_checkpoint(tmp_path):
    first = best_first(tmp_path / "old")
    first.train()
    assert first.state.best_model_checkpoint == str(tmp_path / "old" / "checkpoint-1")
    for file in (tmp_path / "old").rglob("*"):
        assert not file.is_file() or str(tmp_path).encode() not in file.read_bytes()
    (tmp_path / "old").rename(tmp_path / "new")
    best_first(tmp_path / "old", seed=7).train()
    own, other = (weights(tmp_path / name / "checkpoint-1") for name in ("new", "old"))
    assert not all(np.array_equal(*pair) for pair in zip(jax.tree.leaves(own), jax.tree.leaves(other)))
    for changes in ({}, {"max_steps": 3}):
        moved = best_first(tmp_path / "new", **changes)
        moved.train(resume_from_checkpoint=True)
        assert_same(moved.model.params, own)

    for _ in range(2):  # into a third folder, the best comes along; from there the run goes on alone
        elsewhere = best_first(tmp_path / "third", max_steps=3)
        last = tmp_path / ("third" if (tmp_path / "third").exists() else "new") / "checkpoint-3"
        elsewhere.train(resume_from_checkpoint=last)
        assert_same(elsewhere.model.params, own)
        copied(tmp_path / "new" / "checkpoint-3", tmp_path / "third" / "checkpoint-3")

    other = (tmp_path / "old" / "checkpoint-1").rename(tmp_path / "third" / "checkpoint-1-of-another")
    (tmp_path / "third" / "checkpoint-1").rename(tmp_path / "third" / "own")
    other.rename(tmp_path / "third" / "checkpoint-1")
    with pytest.raises(ConfigError, match=r"seed=0: the run in .*third/checkpoint-1 had 7"):
        best_first(tmp_path / "third", max_steps=3).train(resume_from_checkpoint=True)


def test_a_best_checkpoint_that_is_gone_is_missed_before_the_first_step(tmp_path):
    best_first(tmp_path).train()
    (tmp_path / "checkpoint-1").rename(tmp_path / "away")
    with pytest.raises(CheckpointError, match="checkpoint-1: there is no such checkpoint"):
        best_first(tmp_path, max_steps=3).train(resume_from_checkpoint=True)
    assert not (tmp_path / "checkpoint-3").exists()


def test_the_best_has_a_checkpoint_also_between_two_saves(tmp_path):
    made = best_first(tmp_path, save_steps=2)
    made.train()
    assert made.state.best_global_step == 1
    assert_same(made.model.params, weights(tmp_path / "checkpoint-1"))


def test_a_run_does_not_come_between_the_checkpoints_of_another(base, tmp_path):
    other = copied(base, tmp_path / "other")
    for wanted in (False, base / "checkpoint-2"):
        with pytest.raises(ConfigError, match="output_dir=.*holds checkpoint-2 of an earlier run"):
            trainer(other, **EVERY_STEP).train(resume_from_checkpoint=wanted)
    with pytest.raises(CheckpointError, match="checkpoint-9: there is no such checkpoint"):
        trainer(tmp_path / "new", **EVERY_STEP).train(resume_from_checkpoint=tmp_path / "checkpoint-9")
    (other / "checkpoint-2").rename(other / "checkpoint-4")
    with pytest.raises(CheckpointError, match="checkpoint-4: holds the checkpoint after 2 steps"):
        run(other, **EVERY_STEP, resume_from_checkpoint=True)


def test_a_limit_does_not_remove_the_checkpoint_that_was_just_written(base, tmp_path):
    again = copied(base, tmp_path / "again")
    copied(base / "checkpoint-2", again / "checkpoint-5")  # of a longer run that somebody takes back
    trainer(again, **EVERY_STEP, save_total_limit=1).train(resume_from_checkpoint=again / "checkpoint-1")
    assert sorted(path.name for path in again.iterdir()) == ["checkpoint-2", "checkpoint-5"]


# Digests


def test_loading_and_verify_compare_all_files_of_a_checkpoint(base, tmp_path, capsys):
    folder = copied(base / "checkpoint-2", tmp_path / "checkpoint-2")
    assert main(["verify", str(folder)]) == 0
    file = folder / "preprocessor_config.json"
    whole = file.read_text()
    file.write_text(whole.replace("0.5", "0.6"))
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: is not what was saved in this checkpoint"):
        FlaxViTClsForImageClassification.from_pretrained(folder)
    file.write_text(whole)
    (folder / "trainer_state.json").write_text("{}")
    FlaxViTClsForImageClassification.from_pretrained(folder)  # which does not read it
    assert main(["verify", str(folder)]) == 1
    assert "trainer_state.json: is not what was saved" in capsys.readouterr().err


# One process at a time


def test_a_second_process_is_refused_at_once(tmp_path):
    code = (
        f"import fcntl; f = open({RUN_LOCK!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, **pipes) as process:
        process.stdout.readline()
        with pytest.raises(ConfigError, match=r"output_dir=.*another run is training into it"):
            run(tmp_path)
        recipe = tmp_path / "r.yaml"
        recipe.write_text(yaml.dump({"output_dir": str(tmp_path), "dataset_name": "no/such-data"}))
        assert main(["train", str(recipe)]) == 1  # before the data is looked for
        process.kill()
        process.communicate()
    assert (tmp_path / RUN_LOCK).exists()
    trainer(tmp_path).folder.__enter__().__exit__()
    assert not (tmp_path / RUN_LOCK).exists(), "what a killed run left goes with the next one"


class At(TrainerCallback):
    """Do something once a step is made."""

    def __init__(self, step: int, action):
        self.step, self.action = step, action

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.action()


def test_a_second_run_of_the_same_process_is_refused_and_saves_are_not(tmp_path):
    def second():
        with pytest.raises(ConfigError, match="another run is training into it"):
            run(tmp_path / "run", seed=9)
        first.save_model()

    first = trainer(tmp_path / "run", callbacks=[At(1, second)], save_strategy="steps", save_steps=1)
    first.train()
    assert {path.name for path in (tmp_path / "run").iterdir()} >= MODEL | {"checkpoint-1", "checkpoint-2"}
    assert not (tmp_path / "run" / RUN_LOCK).exists()


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("in_place", [False, True], ids=["exchanged", "in place"])
def test_the_lock_outlasts_a_save_into_the_folder(tmp_path, links, in_place, monkeypatch):
    if not links:
        monkeypatch.setattr("os.link", refuse)
    held, place = trainer(tmp_path / "run"), tmp_path / "run"
    with held.folder:
        (place / "notes.md").write_text("mine")
        if in_place:
            monkeypatch.chdir(place)
        for _ in range(2):
            held.save_model()
            with pytest.raises(ConfigError, match="another run is training into it"):
                trainer(place).folder.__enter__()
    assert {path.name for path in place.iterdir()} == MODEL | {"trainer_state.json", "notes.md"}


def test_the_folder_is_tried_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("mine")
    steps = []
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match=r"output_dir=.*cannot be written"):
            run(folder, callbacks=[At(1, lambda: steps.append(1))])
    assert steps == []


# Ctrl-C and SIGTERM


@pytest.fixture
def handlers():
    """Those that Python itself gives, whatever this process was started with."""
    before = [signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGTERM, signal.SIG_DFL)]
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), before):
        signal.signal(number, handler)


def send(number: int, times: int = 1):
    return lambda: [os.kill(os.getpid(), number) for _ in range(times)]


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_stopped_run_keeps_its_step_and_goes_on_as_if_it_had_not(tmp_path, capsys, handlers, number, error):
    whole = run(tmp_path / "whole", max_steps=3)
    capsys.readouterr()
    with pytest.raises(error) as stopped:
        run(tmp_path / "run", callbacks=[At(2, send(number))], max_steps=3)
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert f"stopped by {number.name} after step 2" in said[0]
    assert "trainer.train(resume_from_checkpoint=True)" in said[0]
    assert error is KeyboardInterrupt or stopped.value.code == 143
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-2"]
    again = run(tmp_path / "run", max_steps=3, resume_from_checkpoint=True)
    assert_same(again.model.params, whole.model.params)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_second_signal_ends_at_once_and_says_so(tmp_path, capsys, handlers, number, error):
    with pytest.raises(error):
        run(tmp_path / "run", callbacks=[At(1, send(number, 2))])
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().err == (
        f"stopped at once by a second signal, {number.name}: what was not saved yet is lost\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_last_step_loses_nothing_and_is_answered(tmp_path, capsys, handlers, number):
    class AtEnd(TrainerCallback):
        def on_train_end(self, args, state, control, **kwargs):
            os.kill(os.getpid(), number)

    ended = run(tmp_path / "run", callbacks=[AtEnd])
    assert ended.state.global_step == 2
    assert_same(ended.model.params, run(tmp_path / "other").model.params)
    assert [line for line in capsys.readouterr().err.splitlines() if "step" not in line or "stops" in line] == [
        f"{number.name} came after the last step: it stops nothing; send it again to stop what follows"
    ]


def test_a_programs_own_handlers_and_other_threads_are_left_alone(tmp_path):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    try:
        assert run(tmp_path / "a", callbacks=[At(1, send(signal.SIGTERM))]).state.global_step == 2
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [1]
    thread = threading.Thread(target=lambda: seen.append(run(tmp_path / "b").state.global_step))
    thread.start()
    thread.join()
    assert seen == [1, 2]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_the_command_line_says_which_command_goes_on(tmp_path, capsys, handlers, number, status):
    recipe, folder, ended = tmp_path / "a recipe.yaml", tmp_path / "run", threading.Event()
    sizes = "{hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32, image_size: 8, "
    fields = {"output_dir": str(folder), "dataset_name": "digits", "max_train_samples": 64, "max_eval_samples": 16}
    fields |= {"config_overrides": sizes + "patch_size: 4, num_channels: 1}", "disable_tqdm": True}
    fields |= {"save_strategy": "steps", "save_steps": 1, "max_steps": 100_000, "save_total_limit": 1}
    recipe.write_text(yaml.dump(fields))

    def stop():
        while not list(folder.glob("checkpoint-*")) and not ended.wait(0.01):
            pass
        if not ended.is_set():
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        found = None
        with suppress(SystemExit) if number == signal.SIGINT else pytest.raises(SystemExit) as stopped:
            found = main(["train", str(recipe), "--seed", "3"])
        assert (found if number == signal.SIGINT else stopped.value.code) == status
    finally:
        ended.set()
        thread.join()
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "stopped by" in line]
    assert said.endswith(f"to go on: vit-cls train '{recipe}' --seed 3 --resume_from_checkpoint true")


# Text that is nested too deeply


def test_text_that_is_nested_too_deeply_is_one_clear_error(folder, tmp_path):
    deep = "[" * 600 + "]" * 600
    recipe = tmp_path / "deep.yaml"
    recipe.write_text(f"output_dir: o\ndataset_name: digits\nmetrics: {deep}")
    with pytest.raises(ConfigError, match=r"nested too deeply"):
        read_recipe(recipe)
    recipe.write_text(f"output_dir: o\ndataset_name: digits\nconfig_overrides: '{deep}'")
    with pytest.raises(ConfigError, match="config_overrides"):
        read_recipe(recipe).model.overrides  # noqa: B018
    (folder / "recipe.yaml").write_text(f"metrics: {deep}")
    with pytest.raises(CheckpointError, match=r"recipe\.yaml: cannot be read as YAML .*nested too deeply"):
        render_card(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors, folder / "model.safetensors", metadata={"xxh3_128": deep, "stamp": "x"})
    with pytest.raises(CheckpointError, match=r"model\.safetensors: its digests cannot be read"):
        FlaxViTClsForImageClassification.from_pretrained(folder)
