"""A run that is killed anywhere and goes on ends with the same bytes as the run that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from matrix import SOAK

pytestmark = pytest.mark.world

SCRIPT = Path(__file__).with_name("interrupted_run.py")
EPOCHS, KILLS = 10, 3 * SOAK  # epochs of 5 steps


def start(folder: Path, cache: Path) -> subprocess.Popen:
    """The run in a process of its own; compiled programs are kept, so that a new start is short."""
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    environment |= {
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    environment["PYTHONPATH"] = os.pathsep.join([str(SCRIPT.parent.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(SCRIPT), str(EPOCHS)]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def files(folder: Path) -> dict[str, bytes]:
    found = [entry for entry in folder.rglob("*") if entry.is_file()]
    return {str(entry.relative_to(folder)): entry.read_bytes() for entry in found}


def run(folder: Path, cache: Path, kill_after: float | None = None) -> tuple[bool, float]:
    """Run, and kill it so many seconds after training began; whether it ended by itself, and in how many seconds."""
    with start(folder, cache) as process:
        assert process.stdout is not None
        process.stdout.readline()
        begun = time.perf_counter()
        try:
            _, error = process.communicate(timeout=kill_after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            _, error = process.communicate()
        seconds = time.perf_counter() - begun
    assert process.returncode in (0, -signal.SIGKILL), error.decode()[-2000:]
    return process.returncode == 0, seconds


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The cache of compiled programs, the files of the run that nobody stopped, and how long its steps took."""
    root = tmp_path_factory.mktemp("unbroken")
    run(root / "warm-up", root / "cache")
    _, seconds = run(root / "whole", root / "cache")
    return root / "cache", files(root / "whole"), seconds


def test_kills_change_nothing(unbroken, tmp_path):
    cache, whole, seconds = unbroken
    assert {"rows.txt", "run/trainer_state.json", "run/model.safetensors"} <= set(whole)
    assert f"run/checkpoint-{EPOCHS * 5}/training_state.safetensors" in whole
    chance, kills, runs = random.Random(0), 0, 0
    while kills < KILLS:
        folder, runs = tmp_path / f"run-{runs}", runs + 1
        while True:
            delay = chance.random() * seconds * 0.4 if kills < KILLS else None
            ended, _ = run(folder, cache, delay)
            if ended:
                break
            kills += 1
        left = files(folder)
        assert {name for name in left if left[name] != whole.get(name)} == set()
        assert set(left) == set(whole)
