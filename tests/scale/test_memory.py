"""What a checkpoint of the size of a ViT-L takes of the host's memory to load and to save, on a mesh of eight devices."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("large_checkpoint.py")
LARGEST = 4 * 1024 * 4096  # bytes of the largest tensor, a kernel of the MLP
MIB = 1 << 20


def run(*arguments: object, processes: int = 1) -> list[int]:
    """What the script printed, in each of its processes."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={8 // processes}"
    roots = os.pathsep.join([str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": roots}
    started = []
    for index in range(processes):
        several = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": str(processes)}
        own = environment | several | {"JAX_PROCESS_ID": str(index)} if processes > 1 else environment
        command = [sys.executable, str(SCRIPT), *map(str, arguments)]
        started.append(subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    results = [process.communicate() for process in started]
    assert not any(process.returncode for process in started), results
    return [json.loads(printed) for printed, _ in results if printed]


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
