"""Programs of the tests in processes of their own: several virtual devices in each, or several processes of one run."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

TESTS = Path(__file__).parent
RUN = TESTS / "run_of_processes.py"
# The folder of compiled programs of the test's own process. Processes of one device each use it too; the first writes.
_CACHE = ("compilation_cache_dir", "persistent_cache_min_compile_time_secs", "persistent_cache_enable_xla_caches")


def start(*arguments: object, devices: int = 1, processes: int = 1, cwd: Path = TESTS) -> list[subprocess.Popen[str]]:
    """Start Python with these arguments in processes of one run, which have so many devices each."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    roots = [str(TESTS.parent), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots), "JAX_PLATFORMS": "cpu"}
    environment["PYTHONWARNINGS"] = "ignore"
    if devices > 1:
        environment["XLA_FLAGS"] = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    else:
        environment |= {f"JAX_{name.upper()}": str(getattr(jax.config, f"jax_{name}")) for name in _CACHE}
    if processes > 1:
        environment |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_COORDINATOR_BIND_ADDRESS": address}
        environment |= {"JAX_NUM_PROCESSES": str(processes)}
    started = []
    for index in range(processes):
        own = {"JAX_PROCESS_ID": str(index)} if processes > 1 else {}
        command = [sys.executable, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=environment | own, cwd=cwd, **pipes))
    return started


def start_run(processes: int, cwd: Path, name: str, **arguments: Any) -> list[subprocess.Popen[str]]:
    """Start the processes of a training run; see `run_of_processes.py`."""
    return start(RUN, json.dumps({"name": name, **arguments}), processes=processes, cwd=cwd)


def ended(started: list[subprocess.Popen[str]]) -> list[subprocess.CompletedProcess[str]]:
    """Wait for processes, and return their exit status and output."""
    output = [(process, *process.communicate()) for process in started]
    return [subprocess.CompletedProcess(process.args, process.returncode, out, err) for process, out, err in output]


def finished(started: list[subprocess.Popen[str]]) -> list[subprocess.CompletedProcess[str]]:
    """Wait for processes that must succeed; fails with the end of their output if one does not."""
    processes = ended(started)
    assert not any(process.returncode for process in processes), "\n".join(
        process.stdout[-5000:] + process.stderr[-5000:] for process in processes
    )
    return processes


def on_devices(count: int, program: Path, *arguments: object) -> Any:
    """Run a program on `count` virtual devices of one process. Returns the JSON that it prints last."""
    (process,) = finished(start(program, *arguments, devices=count))
    return json.loads(process.stdout.splitlines()[-1])


def recorded(file: Path) -> tuple[list[list[int]], list[float]]:
    """The rows of each step of a run, and its losses of training and evaluation, in order."""
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    losses = [entry[name] for entry in entries for name in ("loss", "eval_loss") if name in entry]
    return [entry["rows"] for entry in entries if "rows" in entry], losses
