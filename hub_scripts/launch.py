"""`vit-cls launch -n N -- train ...`: start the processes of one run on this machine, and look after them."""

import argparse
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any

from modeling_vit_cls.errors import ConfigError
from modeling_vit_cls.processes import HEARTBEAT_SECONDS

_ENDING_SECONDS = 2 * HEARTBEAT_SECONDS  # JAX ends the other processes after one heartbeat
_NOISE = b"[Gloo] Rank "  # what JAX's collectives on the CPU write on standard output
# How JAX begins to tell, with a stack trace, that it ends a process because another one has ended.
_DYING = re.compile(rb"[EF]\d{4} .* (coordination|JAX distributed) service")
_POLL_SECONDS = 0.1
_READING_SECONDS = 1  # at most, where a child of an ended process keeps its stream open
LAUNCHER = "VIT_CLS_LAUNCHER"  # the command of this verb, which its processes put before their own


def run(arguments: argparse.Namespace) -> None:
    """Start the processes, wait for them, and exit with the status of the first that failed."""
    words = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
    if not words or words[0] != "train":
        raise ConfigError("launch", shlex.join(words), "starts training only: vit-cls launch -n 4 -- train RECIPE ...")
    more = ["--json"] if arguments.json and "--json" not in words else []
    status = _Processes(arguments.processes, [*words, *more]).wait()
    if status:
        sys.exit(status)


class _Processes:
    """The processes of one command, which get the signals of this one."""

    def __init__(self, count: int, words: list[str]):
        self._words, self._signal = words, 0
        environments = environments_of(count, os.environ)
        self._held: list[list[bytes]] = [[] for _ in range(count)]  # what each one writes while JAX ends it
        command = [sys.executable, "-m", "hub_scripts", *words]
        self._all: list[subprocess.Popen[bytes]] = []
        self._readers: list[threading.Thread] = []
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP, which comes when a terminal is closed
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._pass_on)
        for index, environment in enumerate(environments):
            # A group of its own: the terminal sends Ctrl-C to a whole group, and each would get it twice.
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if index == 0 else subprocess.DEVNULL,
                stderr=None if index == 0 else subprocess.PIPE,  # the first one keeps the terminal and its bar
                process_group=0,
            )
            self._all.append(process)
            copy, stream = (self._copy_errors, process.stderr) if index > 0 else (_copy_output, process.stdout)
            self._readers.append(threading.Thread(target=copy, args=(stream, index), daemon=True))
            self._readers[-1].start()

    def wait(self) -> int:
        """Wait for all processes. If one fails, the others get some time to end, and are then killed.

        Returns 0 or, as in shells, the status of the first that failed, 128 + N for the signal N.
        """
        status, first, deadline = 0, 0, float("inf")
        running = dict(enumerate(self._all))
        while running:
            time.sleep(_POLL_SECONDS)
            ended = [index for index in running if self._all[index].poll() is not None]
            for index in ended:
                del running[index]
                self._readers[index].join(_READING_SECONDS)  # it has then read whether JAX ended this process
            # One that a signal ended comes first: it may be why others failed in the same moment. One that JAX ends,
            # also by a signal, comes last.
            for index in sorted(ended, key=lambda index: (bool(self._held[index]), self._all[index].returncode)):
                code = self._all[index].returncode
                if code and not status:
                    status, first = 128 - code if code < 0 else code, index
                    deadline = time.monotonic() + _ENDING_SECONDS
                    self._report(index, code, bool(running))
            if time.monotonic() > deadline:
                for process in running.values():
                    process.kill()
        for reader in self._readers:
            reader.join()
        if status:
            _write_errors(self._held[first], first)
        return status

    def _report(self, index: int, code: int, others: bool) -> None:
        """Say which process failed first, and how to go on if it did not tell it itself."""
        if self._signal:
            return
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        line = f"vit-cls: process {index} of {len(self._all)} {how}"
        if others:
            line += f"; the others are killed unless they end within {_ENDING_SECONDS} s"
        if code < 0:
            command = shlex.join(["vit-cls", "launch", "-n", str(len(self._all)), "--", *self._words])
            line += f"; to go on: {command} --resume_from_checkpoint true"
        print(line, file=sys.stderr, flush=True)

    def _copy_errors(self, stream: IO[bytes], index: int) -> None:
        """Copy what a process writes. How JAX ends it is held: it matters only of the process that failed first."""
        for line in stream:
            if self._held[index] or _DYING.match(line):
                self._held[index].append(line)
            else:
                _write_errors([line], index)

    def _pass_on(self, number: int, _: Any) -> None:
        self._signal = number
        number = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
        for process in self._all:
            if process.poll() is None:
                process.send_signal(number)


def environments_of(count: int, own: Mapping[str, str]) -> list[dict[str, str]]:
    """The environment of each process: JAX's variables with a free port, one GPU for each, and the launching command.

    Raises ConfigError if there are fewer GPUs than processes.
    """
    if count < 1:
        raise ConfigError("processes", count, "must be at least 1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_COORDINATOR_BIND_ADDRESS": address}
    shared |= {"JAX_NUM_PROCESSES": str(count), LAUNCHER: f"vit-cls launch -n {count} --"}
    visible = "" if own.get("JAX_PLATFORMS") == "cpu" else own.get("CUDA_VISIBLE_DEVICES")
    devices = [*map(str, range(count))] if visible is None else [name for name in visible.split(",") if name]
    if devices and len(devices) < count:
        raise ConfigError(
            "processes", count, f"each process needs a GPU, and CUDA_VISIBLE_DEVICES={visible} has {len(devices)}"
        )
    environments = [{**own, **shared, "JAX_PROCESS_ID": str(index)} for index in range(count)]
    for environment, device in zip(environments, devices):
        environment["CUDA_VISIBLE_DEVICES"] = device
    return environments


def _copy_output(stream: IO[bytes], _: int) -> None:
    for line in stream:
        if not line.startswith(_NOISE):
            with suppress(BrokenPipeError):  # the reader of the output has closed it; the processes go on
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()


def _write_errors(lines: list[bytes], index: int) -> None:
    for line in lines:
        sys.stderr.buffer.write(f"[{index}] ".encode() + line)
        sys.stderr.buffer.flush()
