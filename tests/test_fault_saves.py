"""Saves that are killed, meet a failing disk, or have company: the folder is the old checkpoint or the new one."""

import os
import random
import resource
import shutil
import signal
import stat
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import jax
import numpy as np
import pytest
from forked_saves import ForkedSaves, other_model
from matrix import SOAK

from modeling_vit_cls import CheckpointError, FlaxViTClsForImageClassification
from modeling_vit_cls.files.folder import replace_folder

Model = FlaxViTClsForImageClassification

OTHER = other_model()
FULL, BROKEN = ("ENOSPC", "EDQUOT", "EIO"), ("EIO", "EROFS")
ERRORS = {"write": FULL, "ftruncate": FULL, "mkdir": ("ENOSPC", "EROFS"), "fsync": ("EIO",), "linkat": BROKEN}
ERRORS |= {"chmod": ("EPERM",), "rename": BROKEN, "renameat2": BROKEN, "unlinkat": BROKEN, "rmdir": BROKEN}
ERRORS |= {"unlink": BROKEN}

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace, which stops at system calls, is not installed"
)
each_way = pytest.mark.parametrize("in_place", [False, True], ids=["exchanged", "in place"])
each_size = pytest.mark.parametrize("shards", ["5GB", "8KB"], ids=["one file", "shards"])


@pytest.fixture
def saved(model, tmp_path) -> Path:
    model.save_pretrained(tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "notes.txt").write_text("mine")
    return tmp_path / "checkpoint"


def of_which(folder: Path, old) -> str:
    """Whose checkpoint a folder is: the old model's, `other_model()`'s, or nobody's, which is an error."""
    try:
        loaded = Model.from_pretrained(folder)
    except CheckpointError as error:
        return "torn, and refused" if str(folder) in str(error) else f"refused without its name: {error}"
    for name, model in (("old", old), ("new", OTHER)):
        pairs = zip(jax.tree.leaves(loaded.params), jax.tree.leaves(model.params), strict=True)
        if loaded.config.hidden_act == model.config.hidden_act and all(np.array_equal(a, b) for a, b in pairs):
            return name
    raise AssertionError("a mixture")


def restore(folder: Path, old, shards: str) -> None:
    """Save the old model once more, which sweeps up whatever was left."""
    old.save_pretrained(folder, max_shard_size=shards)
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]
    assert (folder / "notes.txt").read_text() == "mine"


def points(saves: ForkedSaves) -> list[tuple[str, int]]:
    """Every call of a save that changes the disk, by name and number."""
    outcome, calls = saves.traced()
    assert outcome == (0, None)
    return [
        (name, i + 1) for name, count in Counter(call.split("(")[0] for call in calls).items() for i in range(count)
    ]


@pytest.fixture(scope="module")
def server() -> Iterator[ForkedSaves]:
    with ForkedSaves() as saves:
        yield saves


@pytest.fixture
def forked(server, saved, model, shards, in_place, monkeypatch) -> ForkedSaves:
    """Saves over `saved`, which holds the old model."""
    if in_place:
        monkeypatch.chdir(saved)  # the folder that a process works in is not exchanged under it
    restore(saved, model, shards)
    server.aim(saved, shards, in_place)
    return server


@needs_strace
@each_way
@each_size
def test_killed_at_each_system_call(forked, saved, model, shards, in_place, tally):
    for name, number in points(forked):
        restore(saved, model, shards)
        outcome, _ = forked.traced("-e", f"inject={name}:signal=KILL:when={number}")
        assert outcome.killed
        found = tally.attempt(lambda: of_which(saved, model))
        assert found in ("old", "new", "torn, and refused")[: 3 if in_place else 2]
        tally.note(found)
    assert {"old", "new"} <= set(tally.outcomes)


@each_way
@each_size
def test_killed_at_random_instants(forked, saved, model, shards, in_place, tally):
    chance, process, start = random.Random(f"{shards} {in_place}"), forked.stopped(), time.perf_counter()
    os.kill(process, signal.SIGCONT)
    assert forked.outcome() == (0, None)
    window = time.perf_counter() - start
    for _ in range(50 * SOAK):
        restore(saved, model, shards)
        process = forked.stopped()
        os.kill(process, signal.SIGCONT)
        time.sleep(window * chance.random())
        with suppress(ProcessLookupError):  # it has ended
            os.kill(process, signal.SIGKILL)
        killed = forked.outcome().killed
        found = tally.attempt(lambda: of_which(saved, model))
        assert found in ("old", "new", "torn, and refused")[: 3 if in_place else 2]
        tally.note(found if killed else "saved before the kill")
    restore(saved, model, shards)


@needs_strace
@each_way
@each_size
def test_a_disk_that_fails_at_each_system_call(forked, saved, model, shards, in_place, tally):
    for name, number in points(forked):
        for error in ERRORS[name]:
            restore(saved, model, shards)
            outcome, _ = forked.traced("-e", f"inject={name}:error={error}:when={number}")
            assert outcome.status == 0
            found = tally.attempt(lambda: of_which(saved, model))
            if outcome.error is None:
                assert found == "new"
            else:
                assert str(saved) in outcome.error
                assert found == "old" or "was replaced" in outcome.error, outcome.error
                assert found in ("old", "new", "torn, and refused")[: 3 if in_place else 2]
            left = [path.name for path in saved.parent.iterdir()]
            assert left == ["checkpoint"] or name in ("unlinkat", "rmdir")  # which leave it to the next save
            tally.note(f"{found}, {'without' if outcome.error is None else 'with'} an error")


def test_readers_and_writers_of_one_folder(saved, model, tally):
    kinds, chance = ("reads of the old", "reads of the new", "saves"), random.Random(0)

    def running() -> bool:
        """Until enough of each kind was seen, and no longer than that takes at worst."""
        seen = min(tally.outcomes[kind] for kind in kinds) >= 10 * SOAK and tally.outcomes.total() >= 300 * SOAK
        return not seen and tally.outcomes.total() < 10_000 * SOAK

    def write(shards: str) -> None:
        with ForkedSaves() as saves:
            saves.aim(saved, shards)
            while running():
                os.kill(saves.stopped(), signal.SIGCONT)
                tally.note(refused_or_saved(saves.outcome().error))
                time.sleep(chance.random())

    def write_old() -> None:
        while running():
            try:
                model.save_pretrained(saved, max_shard_size="8KB")
                tally.note(refused_or_saved(None))
            except CheckpointError as error:
                tally.note(refused_or_saved(str(error)))
            time.sleep(chance.random())

    def refused_or_saved(error: str | None) -> str:
        assert error is None or "another process is saving into it" in error
        return "saves" if error is None else "saves refused: another writer"

    def read() -> None:
        while running():
            found = of_which(saved, model)
            assert found in ("old", "new")
            tally.note(f"reads of the {found}")

    with ThreadPoolExecutor(8) as pool:
        for job in [
            pool.submit(write, "5GB"),
            pool.submit(write, "8KB"),
            *(pool.submit(each) for each in 2 * [write_old] + 4 * [read]),
        ]:
            job.result()
    assert min(tally.outcomes[kind] for kind in kinds) >= 10 * SOAK
    restore(saved, model, "5GB")


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_are_those_of_any_new_file(umask, model, tmp_path):
    before = os.umask(umask)
    try:
        model.save_pretrained(tmp_path / "new", max_shard_size="8KB")
        (tmp_path / "plain").touch()
        (tmp_path / "folder").mkdir()
    finally:
        os.umask(before)
    assert {mode(file) for file in (tmp_path / "new").iterdir()} == {mode(tmp_path / "plain")}
    assert mode(tmp_path / "new") == mode(tmp_path / "folder")


def test_the_mode_of_a_folder_that_is_replaced_stays(saved, model):
    saved.chmod(0o2750)  # files that are made in it are of its group
    model.save_pretrained(saved)
    assert mode(saved) == 0o2750
    assert {path.stat().st_gid for path in saved.iterdir()} == {saved.stat().st_gid}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_second_writer_gets_a_clear_error(saved, model):
    with replace_folder(saved, lambda name: True) as build:
        shutil.copytree(saved, build, dirs_exist_ok=True)
        with pytest.raises(CheckpointError, match="another process is saving into it"):
            model.save_pretrained(saved)
    model.save_pretrained(saved)


def test_a_full_disk_is_noticed_before_anything_is_written(saved, model, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 30, 1 << 30, 100))
    with pytest.raises(CheckpointError, match=r"needs [\d,]+ bytes, but the disk has 100 left"):
        model.save_pretrained(saved)
    assert sorted(path.name for path in saved.parent.iterdir()) == ["checkpoint"]
    assert of_which(saved, model) == "old"


def test_a_disk_that_fills_up_leaves_the_old_checkpoint(saved, model):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="cannot be written"):
            model.save_pretrained(saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert sorted(path.name for path in saved.parent.iterdir()) == ["checkpoint"]
    assert of_which(saved, model) == "old"
