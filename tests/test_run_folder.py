"""A run's folder holds one run, which one process trains into, and may be moved."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from conftest import assert_same
from small_runs import EVERY_STEP, MODEL, At, base, copied, refuse, run, steps_without_compiling, trainer

from hub_scripts.__main__ import main
from modeling_vit_cls import CheckpointError, ConfigError, FlaxViTClsForImageClassification
from modeling_vit_cls.names import RUN_LOCK
from modeling_vit_cls.training import FlaxTrainer

pytestmark = pytest.mark.world

__all__ = ["base", "steps_without_compiling"]  # fixtures, for this module too

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
