"""What the environment tells about the processes of a run: Slurm, Open MPI, TPU pods, and JAX's own variables."""

import re
from collections.abc import Mapping
from typing import Any

from .errors import ConfigError


def launched(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """What to pass to `jax.distributed.initialize`, which finds out the rest itself; None for a single process.

    Raises ConfigError, naming the variable, for variables that contradict each other.
    """
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
