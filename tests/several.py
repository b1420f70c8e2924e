"""Starts several real processes of one run on this machine, and collects what they wrote."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax

# The folder of compiled programs of the test's own process; of several processes the first alone writes into it.
_CACHE = ("compilation_cache_dir", "persistent_cache_min_compile_time_secs", "persistent_cache_enable_xla_caches")
RUN = Path(__file__).with_name("run_of_processes.py")


def start(count: int, *command: str, cwd=None, each: list[list[str]] | None = None) -> list[subprocess.Popen[str]]:
    """Start Python on a command in processes of one device each; `each` has more words for each process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = []
    for index in range(count):
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "ignore"}
        environment["PYTHONPATH"] = os.pathsep.join([str(RUN.parent), os.environ.get("PYTHONPATH", "")]).rstrip(
            os.pathsep
        )
        environment |= {f"JAX_{name.upper()}": str(getattr(jax.config, f"jax_{name}")) for name in _CACHE}
        if count > 1:
            environment |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_COORDINATOR_BIND_ADDRESS": address}
            environment |= {"JAX_NUM_PROCESSES": str(count), "JAX_PROCESS_ID": str(index)}
        words = [sys.executable, *command, *(each[index] if each else [])]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": cwd}
        started.append(subprocess.Popen(words, env=environment, **options))
    return started


def start_run(count: int, cwd: Path, name: str, **arguments) -> list[subprocess.Popen[str]]:
    """Start the processes of a training run; see `run_of_processes.py`."""
    return start(count, str(RUN), json.dumps({"name": name, **arguments}), cwd=cwd)


def ended(started: list[subprocess.Popen[str]]) -> list[subprocess.CompletedProcess[str]]:
    """Wait for processes, and return their exit status and output."""
    output = [(process, *process.communicate()) for process in started]
    return [subprocess.CompletedProcess(process.args, process.returncode, out, err) for process, out, err in output]


def finished(started: list[subprocess.Popen[str]]) -> list[subprocess.CompletedProcess[str]]:
    """Wait for processes that must succeed."""
    processes = ended(started)
    assert [process.returncode for process in processes] == [0] * len(processes), [p.stderr[-3000:] for p in processes]
    return processes


def recorded(file: Path) -> tuple[list[list[int]], list[float]]:
    """The rows of each step of a run, and its losses of training and evaluation, in order."""
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    losses = [entry[name] for entry in entries for name in ("loss", "eval_loss") if name in entry]
    return [entry["rows"] for entry in entries if "rows" in entry], losses
