"""Damaged checkpoints of a run: each file of them, in every way; nothing goes on from one that is not as it was saved.

The updates are no real ones: what is tried is the reading. tests/test_resume.py kills real runs.
"""

import random
import shutil
from pathlib import Path

import jax
import pytest
from matrix import SOAK
from small_runs import EVERY_STEP, run, steps_without_compiling, trainer

from modeling_vit_cls import CheckpointError, ConfigError
from modeling_vit_cls.files.file_digests import write_digests
from modeling_vit_cls.training.optimizer import make_optimizer
from modeling_vit_cls.training.state import read_training_state
from modeling_vit_cls.training.step import initial_state

__all__ = ["steps_without_compiling"]  # a fixture, for this module too

FILES = ["config.json", "model.safetensors", "preprocessor_config.json", "trainer_state.json"]
FILES += ["training_digests.json", "training_state.safetensors"]
CASES = 300


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Two runs with checkpoint-1 and -2 each: the one that goes on, and another, of another seed and model."""
    root = tmp_path_factory.mktemp("runs")
    run(root / "own", **EVERY_STEP)
    run(root / "other", **EVERY_STEP, seed=1, config={"hidden_dropout_prob": 0.1})
    return root


@pytest.fixture(scope="module")
def read(runs):
    """Read the checkpoint of a folder as the continuation of the first run does; steps made, first parameter."""
    going_on = trainer(runs / "own", **EVERY_STEP)
    going_on.state.max_steps = 2
    params = going_on.model.params
    like = initial_state(params, make_optimizer(going_on.args, params, 2), False)
    facts = going_on._run_facts()

    def read(folder: Path):
        state, trainer_state = read_training_state(folder, like, facts)
        return trainer_state, jax.device_get(state)

    return read


def damages(file: Path, others: list[Path], chance: random.Random):
    """Endless ways to damage a file, each as what is done and the new content; None where the file is gone."""
    whole = file.read_bytes()
    while True:
        how = chance.choice(["bit", "bit", "bit", "cut", "empty", "longer", "exchanged", "deleted", "zeros"])
        content = bytearray(whole)
        if how == "bit":
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        elif how == "cut":
            del content[chance.randrange(len(content)) :]
        elif how == "zeros":
            start = chance.randrange(len(content))
            content[start : start + 100] = bytes(len(content[start : start + 100]))
        elif how == "exchanged":
            content = chance.choice(others).read_bytes()
        elif how == "longer":
            content += chance.randbytes(chance.randint(1, 9))
        elif how == "empty":
            content = b""
        if how == "deleted" or bytes(content) != whole:  # files of two checkpoints may be the same
            yield how, None if how == "deleted" else bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_of_a_checkpoint_is_refused_by_name(runs, read, name, tmp_path, tally):
    folder = tmp_path / "checkpoint-2"
    shutil.copytree(runs / "own" / "checkpoint-2", folder)
    others = [runs / "own" / "checkpoint-1" / name]
    others += [runs / "other" / f"checkpoint-{step}" / name for step in (1, 2)]
    whole, ways = (folder / name).read_bytes(), damages(folder / name, others, random.Random(name))
    for _ in range(CASES * SOAK):
        how, content = next(ways)
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        error = tally.attempt(lambda: read(folder))
        assert isinstance(error, CheckpointError), (how, error)
        if how != "exchanged" or name != "training_digests.json":  # it then names the first file that is not its own
            assert name in str(error)
        assert "\n" not in str(error)
        tally.note("refused by the file's name")
        (folder / name).write_bytes(whole)
    assert read(folder)[0].global_step == 2


def test_whole_checkpoints_in_the_place_of_others_are_refused(runs, read, tmp_path, tally):
    places = [("own", 1, 2), ("own", 2, 1), ("other", 1, 1), ("other", 2, 2)]
    for which, step, named in places:
        folder = tmp_path / which / f"checkpoint-{named}"
        shutil.copytree(runs / which / f"checkpoint-{step}", folder, dirs_exist_ok=True)
        error = tally.attempt(lambda folder=folder: read(folder))
        assert isinstance(error, CheckpointError | ConfigError)
        assert "holds the checkpoint after" in str(error) or "seed=0: the run in" in str(error)
        tally.note("refused by the folder's name")


@pytest.mark.parametrize("name", ["trainer_state.json", "training_state.safetensors"])
def test_states_of_two_checkpoints_are_refused_even_with_digests_of_their_own(runs, read, name, tmp_path):
    folder = tmp_path / "checkpoint-2"
    shutil.copytree(runs / "own" / "checkpoint-2", folder)
    shutil.copy(runs / "own" / "checkpoint-1" / name, folder)
    write_digests(folder)
    with pytest.raises(CheckpointError, match=r"trainer_state\.json: is after .* they belong to two checkpoints"):
        read(folder)


@pytest.mark.parametrize("name", FILES)
def test_train_does_not_begin_with_a_damaged_checkpoint(runs, name, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs / "own", folder)
    content = bytearray((folder / "checkpoint-2" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "checkpoint-2" / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        run(folder, **EVERY_STEP, max_steps=3, resume_from_checkpoint=True)
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-1", "checkpoint-2"]
    goes_on = run(folder, **EVERY_STEP, max_steps=3, resume_from_checkpoint=str(folder / "checkpoint-1"))
    assert goes_on.state.global_step == 3


def test_a_checkpoint_without_digests_says_so(runs, read, tmp_path):
    folder = tmp_path / "checkpoint-2"
    shutil.copytree(runs / "own" / "checkpoint-2", folder)
    (folder / "training_digests.json").unlink()
    with pytest.raises(
        CheckpointError, match="an earlier version without digests wrote the checkpoint; training cannot be resumed"
    ):
        read(folder)
