"""Several processes of one run, on JAX's own runtime: start, small messages, waiting, and the end after an error.

Messages and waiting go through JAX's coordinator, which is in process 0, and not through the devices. All processes
must call `wait`, `from_first`, `gather`, `agree` and `ready` in the same order. In one process they do nothing.
"""

import io
import itertools
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

import jax
import numpy as np

from .errors import ConfigError, one_line
from .launchers import launched

HEARTBEAT_SECONDS = 60  # a process that is silent for so long counts as dead, and JAX ends the others
_PATIENCE_MINUTES = 60  # for a message: longer than an evaluation or a save of process 0
_EXPECTED = (ValueError, OSError, FloatingPointError)  # whose text is enough
_MAX_LENGTH = 1000  # characters of an error that ends a process
_KEPT = 100  # messages of process 0 that are kept for slower processes, which are at most two steps behind
_numbers: dict[str, "itertools.count[int]"] = {}


def join() -> None:
    """Join the other processes of the run, if the environment tells of several. To be called before devices are used.

    What tells of several processes: JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; the variables of
    Open MPI and of Slurm's `srun`; a TPU pod. Raises ConfigError, naming the variable, for variables that contradict
    each other.
    """
    if jax.distributed.is_initialized():
        return
    options = launched(os.environ)
    if options is None:
        return
    jax.config.update("jax_enable_preemption_service", False)  # it would swallow SIGTERM
    jax.distributed.initialize(
        **options, heartbeat_timeout_seconds=HEARTBEAT_SECONDS, shutdown_timeout_seconds=HEARTBEAT_SECONDS
    )


def count() -> int:
    """The number of processes."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def index() -> int:
    """The number of this process, from 0."""
    return jax.process_index() if jax.distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this is process 0, which alone writes and reports."""
    return index() == 0


def local_index() -> int | None:
    """The number of this process on its host, if the launcher tells it."""
    if jax.distributed.is_initialized():
        for name in ("OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"):
            if os.environ.get(name, "").isdecimal():
                return int(os.environ[name])
    return None


def wait(name: str, minutes: float) -> None:
    """Wait until all processes are here. Raises TimeoutError after `minutes`."""
    if count() > 1:
        _in_time(minutes, f"at {name!r}", _client().wait_at_barrier, once(name), round(minutes * 60_000))


def from_first(text: str) -> str:
    """The text of process 0, in all processes.

    Process 0 does not wait for the others, so there must be a collective or a `wait` within 100 calls.
    """
    return _from_first(text.encode()).decode()


def gather(values: np.ndarray) -> np.ndarray:
    """Small arrays (...) of one shape from all processes, as (count, ...)."""
    values = np.asarray(values)
    if count() == 1:
        return values[None]
    gathered = _to_first(_packed(values))
    return _unpacked(_from_first(_packed(np.stack([*map(_unpacked, gathered)])) if is_first() else b""))


def once(name: str) -> str:
    """A key that is used once: the n-th use of a name has the same key in all processes."""
    return f"vit_cls/{name}/{next(_numbers.setdefault(name, itertools.count()))}"


def first_told(key: str, text: str | None) -> str | None:
    """In process 0, its own text, or else one that another process has sent by now; None in the other processes.

    These send their text, if it is not None. `key` is the same in all processes, and used for one text: `once` gives
    such a key.
    """
    if count() == 1 or (is_first() and text is not None):
        return text
    if not is_first():
        if text is not None:
            _client().key_value_set_bytes(key, text.encode(), allow_overwrite=True)
        return None
    try:
        return _client().key_value_try_get_bytes(key).decode()
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" not in str(error):
            raise
        return None


def settled(results: Any) -> Any:
    """The same arrays, once they are computed, if the CPUs of several processes compute them.

    There, two programs with collective operations must not run at the same time: each process may start them in another
    order, and then they wait for each other forever.
    """
    return jax.block_until_ready(results) if count() > 1 and jax.default_backend() == "cpu" else results


def agree(facts: Mapping[str, str]) -> None:
    """Check that all processes have the same facts.

    Raises ConfigError in every process, with the first fact that differs, its value, and that of process 0.
    """
    if count() == 1:
        return
    all_facts = [json.loads(text) for text in _to_first(json.dumps(dict(facts)).encode())]
    difference = json.loads(from_first(json.dumps(_difference(all_facts))))
    if difference is not None:
        with suppress(jax.errors.JaxRuntimeError):
            _to_first(b"")  # process 0, with the coordinator, leaves last
        raise ConfigError(*difference)


def ready(jitted: Any, *arguments: Any, **keywords: Any) -> None:
    """Compile a jitted function for these arguments, and wait until all processes have. Its call uses the program.

    Without it, processes that have compiled would stand in a collective operation, and on the CPU this is an error
    after 30 seconds.
    """
    if count() > 1:
        jitted.lower(*arguments, **keywords).compile()
        wait("compiled", _PATIENCE_MINUTES)


def leave(error: BaseException, step: int | None = None) -> NoReturn:
    """Print one line on stderr, and end this process at once, without waiting for others that may never come.

    `step` is the last step that was made; None before the training and after it. With one, the line tells how to go on.
    """
    which = f"process {index()} of {count()}" + ("" if step is None else f", step {step}")
    text = one_line(error) if isinstance(error, _EXPECTED) else f"{type(error).__name__}: {one_line(error)}"
    if isinstance(error, jax.errors.JaxRuntimeError):
        text = f"an operation of all processes failed, as it does when one of them ends: {text}"
    line = f"vit-cls: {which}: {text[:_MAX_LENGTH]}; the other processes end within {2 * HEARTBEAT_SECONDS} s"
    if step and not isinstance(error, ConfigError):
        line += "; to go on, start all of them again with --resume_from_checkpoint true"
    print(line, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _client() -> Any:
    """JAX's connection to its coordinator, which has no public name."""
    from jax._src import distributed

    return distributed.global_state.client


def _in_time(minutes: float, what: str, call: Any, *arguments: Any) -> Any:
    """Call the coordinator. Raises TimeoutError, instead of JAX's own error, when the time is over."""
    try:
        return call(*arguments)
    except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
            raise
        who = f"process {index()} of {count()} waited {minutes:g} minutes {what}"
        raise TimeoutError(f"{who} for another process, which is still elsewhere or has ended") from error


def _received(key: str) -> bytes:
    milliseconds = _PATIENCE_MINUTES * 60_000
    return _in_time(_PATIENCE_MINUTES, f"at {key!r}", _client().blocking_key_value_get_bytes, key, milliseconds)


def _from_first(message: bytes) -> bytes:
    if count() == 1:
        return message
    key = once("from_first")
    if not is_first():
        return _received(key)
    _client().key_value_set_bytes(key, message)
    name, _, number = key.rpartition("/")
    if int(number) >= _KEPT:
        _client().key_value_delete(f"{name}/{int(number) - _KEPT}")
    return message


def _to_first(message: bytes) -> list[bytes]:
    """The messages of all processes, in process 0; nothing in the others."""
    key = once("to_first")
    if not is_first():
        _client().key_value_set_bytes(f"{key}/{index()}", message)
        return []
    messages = [message, *[_received(f"{key}/{other}") for other in range(1, count())]]
    _client().key_value_delete(key)  # with all below it
    return messages


def _packed(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return file.getvalue()


def _unpacked(message: bytes) -> np.ndarray:
    return np.load(io.BytesIO(message), allow_pickle=False)


def _difference(all_facts: list[dict[str, str]]) -> tuple[str, str | None, str] | None:
    """Arguments of the ConfigError for the first fact in which a process differs from process 0; None if none does."""
    for other, facts in enumerate(all_facts[1:], 1):
        for name in {**all_facts[0], **facts}:
            first, value = all_facts[0].get(name), facts.get(name)
            if first != value:
                rule = f"is that of process 0, but process {other} of {len(all_facts)} has {value!r}"
                return name, first, f"{rule}: all processes need the same command, versions and data"
    return None
