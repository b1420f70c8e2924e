"""The host's memory that a checkpoint of the size of a ViT-L takes to load and to save, on a mesh of eight devices."""

import json
from pathlib import Path

import pytest
from children import finished, start

SCRIPT = Path(__file__).with_name("large_checkpoint.py")
LARGEST = 4 * 1024 * 4096  # bytes of the largest tensor, a kernel of the MLP
MIB = 1 << 20


def run(*arguments: object, processes: int = 1) -> list[int]:
    """What the script printed, in each of its processes."""
    started = start(SCRIPT, *arguments, devices=8 // processes, processes=processes)
    return [json.loads(process.stdout) for process in finished(started) if process.stdout]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("large") / "model"
    run("write", folder)
    return folder


def test_a_load_takes_the_size_of_the_file(folder):
    (peak,) = run("load", folder)
    assert peak <= 1.1 * (folder / "model.safetensors").stat().st_size


def test_a_process_with_half_of_the_devices_takes_half_of_the_file(folder):
    peaks = run("load", folder, processes=2)
    assert max(peaks) <= 0.6 * (folder / "model.safetensors").stat().st_size


@pytest.mark.parametrize("what", ["save", "save_stacked"])
def test_a_save_takes_one_tensor(folder, what):
    (peak,) = run(what, folder)
    assert peak <= LARGEST + 64 * MIB
    assert (folder / what / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
