"""Several processes of one run, on JAX's own runtime: start, small messages, waiting, and the end after an error.

Messages and waiting go through JAX's coordinator, which is in process 0, and not through the devices. All processes
must call `wait`, `from_first`, `gather`, `agree` and `ready` in the same order. In one process they do nothing.
"""

import io
import itertools
import json
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import jax
import numpy as np

from .errors import ConfigError, one_line

HEARTBEAT_SECONDS = 60  # a process that is silent for so long counts as dead, and JAX ends the others
_PATIENCE_MINUTES = 60  # for a message: longer than an evaluation or a save of process 0
_KEPT = 100  # messages of process 0 that are kept for slower processes, which are at most two steps behind
_numbers: dict[str, "itertools.count[int]"] = {}


def join() -> None:
    """Join the other processes of the run, if the environment tells of several. To be called before devices are used.

    Several processes are told of by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, by Open MPI, by
    Slurm's `srun`, or by a TPU pod. Raises ConfigError, naming the variable, for variables that contradict each other.
    """
    if jax.distributed.is_initialized():
        return
    options = _launched(os.environ)
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
        _in_time(minutes, f"at {name!r}", _client().wait_at_barrier, _numbered(name), round(minutes * 60_000))


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


def agree(facts: Mapping[str, str]) -> None:
    """Check that all processes have the same facts.

    Raises ConfigError in every process, with the first fact that differs, its value, and that of process 0.
    """
    if count() == 1:
        return
    all_facts = [json.loads(text) for text in _to_first(json.dumps(dict(facts)).encode())]
    difference = json.loads(from_first(json.dumps(_difference(all_facts))))
    if difference is not None:
        raise ConfigError(*difference)


def ready(jitted: Any, *arguments: Any, **keywords: Any) -> None:
    """Compile a jitted function for these arguments, and wait until all processes have. Its call uses the program.

    Without it, processes that have compiled would stand in a collective operation, and on the CPU this is an error
    after 30 seconds.
    """
    if count() > 1:
        jitted.lower(*arguments, **keywords).compile()
        wait("compiled", _PATIENCE_MINUTES)


def leave(error: BaseException, step: int) -> NoReturn:
    """Print one line on stderr, and end this process at once, without waiting for others that may never come."""
    which = f"process {index()} of {count()}, step {step}"
    others = f"the other processes end within {HEARTBEAT_SECONDS} s"
    remedy = "to go on, start all of them again with --resume_from_checkpoint true"
    print(f"vit-cls: {which}: {one_line(error)[:1000] or type(error).__name__}; {others}; {remedy}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _launched(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """What to pass to `jax.distributed.initialize`; None for a single process."""
    address = environment.get("JAX_COORDINATOR_ADDRESS")
    if "JAX_NUM_PROCESSES" in environment or "JAX_PROCESS_ID" in environment:
        options = _counted(environment, "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        if options is not None and address is None:
            raise ConfigError("JAX_COORDINATOR_ADDRESS", None, "is needed with JAX_NUM_PROCESSES: give HOST:PORT")
        if options is not None:
            options |= {"coordinator_address": address, "cluster_detection_method": "deactivate"}
        return options
    # Open MPI before Slurm: under mpirun in a Slurm job, Slurm's variables are those of MPI's daemons.
    if "OMPI_COMM_WORLD_SIZE" in environment:
        options = _counted(environment, "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")
        if options is not None and address is None and "OMPI_MCA_orte_hnp_uri" not in environment:
            rule = "is needed with this version of MPI: give HOST:PORT of the first process"
            raise ConfigError("JAX_COORDINATOR_ADDRESS", None, rule)
        return options
    # Only srun sets SLURM_STEP_NUM_TASKS; SLURM_NTASKS is also there in the script of sbatch and the shell of salloc.
    if "SLURM_STEP_NUM_TASKS" in environment:
        options = _counted(environment, "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
        for name in ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_LOCALID"):
            if options is not None and not environment.get(name):
                raise ConfigError(name, environment.get(name), "is needed beside SLURM_STEP_NUM_TASKS: start with srun")
        return options
    if address is not None:
        raise ConfigError("JAX_NUM_PROCESSES", None, "is needed with JAX_COORDINATOR_ADDRESS")
    return {} if _on_pod() else None


def _counted(environment: Mapping[str, str], count_name: str, index_name: str) -> dict[str, Any] | None:
    """The number of processes and of this one, from two variables; None for one process."""
    for name in (count_name, index_name):
        if not re.fullmatch(r"[0-9]+", environment.get(name, "")):
            raise ConfigError(name, environment.get(name), f"must be a number, beside {count_name} and {index_name}")
    processes, this = int(environment[count_name]), int(environment[index_name])
    if this >= processes:
        raise ConfigError(index_name, this, f"must be below {count_name}={processes}")
    return {"num_processes": processes, "process_id": this} if processes > 1 else None


def _on_pod() -> bool:
    """Whether this is one of several hosts of a Cloud TPU."""
    from jax._src.clusters import GceTpuCluster, GkeTpuCluster  # jax has no public name for it

    return any(pod.is_env_present() and pod.get_process_count() > 1 for pod in (GkeTpuCluster, GceTpuCluster))


def _client() -> Any:
    """JAX's connection to its coordinator, which has no public name."""
    from jax._src import distributed

    return distributed.global_state.client


def _numbered(name: str) -> str:
    """A key that is used once: the n-th use of a name has the same key in all processes."""
    return f"vit_cls/{name}/{next(_numbers.setdefault(name, itertools.count()))}"


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
    key = _numbered("from_first")
    if not is_first():
        return _received(key)
    _client().key_value_set_bytes(key, message)
    name, _, number = key.rpartition("/")
    if int(number) >= _KEPT:
        _client().key_value_delete(f"{name}/{int(number) - _KEPT}")
    return message


def _to_first(message: bytes) -> list[bytes]:
    """The messages of all processes, in process 0; nothing in the others."""
    key = _numbered("to_first")
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
