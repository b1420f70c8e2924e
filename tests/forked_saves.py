"""Saves in processes that can be killed, or whose system calls can be made to fail: a server that forks one per save.

As a program: for each line on the standard input, JSON of folder, size of shards and whether to work in the folder, a
forked process stops itself, is named on the standard output and, once it is continued, saves `other_model()`.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
from conftest import tiny_model

from modeling_vit_cls import CheckpointError

# What changes a file or a folder. `openat` is not among them: what it makes is there when the next of these is killed.
CALLS = ("write", "pwrite64", "rename", "renameat2", "fsync", "unlink", "unlinkat", "rmdir", "mkdir", "link", "linkat")
CALLS += ("chmod", "fchmod", "ftruncate", "copy_file_range")


class Outcome(NamedTuple):
    """How a save ended: its process's status, as `os.waitpid` gives it, and the error that it raised, if any."""

    status: int
    error: str | None

    @property
    def killed(self) -> bool:
        return os.WIFSIGNALED(self.status)


class ForkedSaves:
    """Saves of `other_model()`, each in a process of its own.

    They go over the folder that `aim` gives; in place where their working directory is that folder, which then cannot
    be exchanged under it.
    """

    def __init__(self) -> None:
        command = [sys.executable, "-W", "ignore", __file__]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.target: list[Any] = []

    def aim(self, folder: Path, shards: str, in_place: bool = False) -> None:
        """Where the next saves go."""
        self.target = [str(folder), shards, in_place]

    def __enter__(self) -> "ForkedSaves":
        return self

    def __exit__(self, *_: object) -> None:
        self.server.kill()
        self.server.communicate()

    def stopped(self) -> int:
        """The process of the next save; it waits to be continued."""
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(self.target) + "\n")
        self.server.stdin.flush()
        return int(self._line())

    def outcome(self) -> Outcome:
        """How the save ended; waits for it."""
        return Outcome(*json.loads(self._line()))

    def traced(self, *options: str) -> tuple[Outcome, list[str]]:
        """A save under strace, and the calls that it made, as strace writes them."""
        process = self.stopped()
        command = ["strace", "-qq", "-p", str(process), "-e", f"trace={','.join(CALLS)}", *options]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
            while not _is_traced(process):
                assert strace.poll() is None, strace.communicate()[1]
            os.kill(process, signal.SIGCONT)
            said = strace.communicate()[1]
        return self.outcome(), [line for line in said.splitlines() if re.match(r"\w+\(", line)]

    def _line(self) -> str:
        assert self.server.stdout is not None
        line = self.server.stdout.readline()
        assert line, "the server of saves has died"
        return line


def _is_traced(process: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{process}/status").read_text()


def other_model() -> Any:
    """The model that is saved; it computes otherwise than `tiny_model()`, with other parameters."""
    new = tiny_model(hidden_act="relu")
    new.params = jax.tree.map(lambda leaf: leaf + 1, new.params)
    return new


def _serve() -> None:
    new = other_model()
    for line in sys.stdin:
        folder, shards, in_place = json.loads(line)
        here, there = socket.socketpair()
        if (child := os.fork()) == 0:
            os.chdir(folder if in_place else "/")
            os.kill(os.getpid(), signal.SIGSTOP)
            try:
                new.save_pretrained(folder, max_shard_size=shards)
            except CheckpointError as error:
                there.send(str(error).encode())
            os._exit(0)
        os.waitpid(child, os.WUNTRACED)
        print(child, flush=True)
        status = os.waitpid(child, 0)[1]
        there.close()
        print(json.dumps([status, here.recv(10_000).decode() or None]), flush=True)


if __name__ == "__main__":
    _serve()
