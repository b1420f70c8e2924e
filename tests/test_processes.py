"""Several processes of one run: which environments start them, what they tell each other, and how one leaves."""

import json
import os
import re
import textwrap

import jax
import numpy as np
import pytest
import run_of_processes
from children import ended, finished, recorded, start, start_run

from modeling_vit_cls import processes
from modeling_vit_cls.errors import ConfigError

SRUN = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4"}
SRUN |= {"SLURM_PROCID": "3", "SLURM_LOCALID": "1"}
MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
MPI |= {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911"}
JAX = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}


def joined(monkeypatch, environment) -> dict | None:
    """What `join` passes to JAX; None if it does not initialise."""
    calls = []
    for name in os.environ:
        if name.startswith(("SLURM_", "OMPI_", "JAX_COORDINATOR", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: calls.append(options))
    preemption_service = jax.config.jax_enable_preemption_service
    try:
        processes.join()
    finally:
        jax.config.update("jax_enable_preemption_service", preemption_service)
    if not calls:
        return None
    assert calls[0].pop("heartbeat_timeout_seconds") == calls[0].pop("shutdown_timeout_seconds") == 60
    return calls[0]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (SRUN, {"num_processes": 4, "process_id": 3}),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        # the script of sbatch, and the shell of salloc, without srun
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, None),
        (MPI, {"num_processes": 4, "process_id": 2}),
        (MPI | {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, None),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"} | MPI, {"num_processes": 4, "process_id": 2}),
        (JAX | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, None),
    ],
)
def test_several_processes_are_joined_and_a_single_one_never_initialises(monkeypatch, environment, expected):
    assert joined(monkeypatch, environment) == expected


def test_the_three_variables_of_jax_are_passed_on_and_come_first(monkeypatch):
    expected = {"num_processes": 2, "process_id": 1, "coordinator_address": "10.0.0.1:1234"}
    assert joined(monkeypatch, SRUN | JAX) == expected | {"cluster_detection_method": "deactivate"}


def test_a_pod_of_tpus_is_joined_and_a_single_host_is_not(monkeypatch):
    monkeypatch.setattr("jax._src.clusters.cloud_tpu_cluster.running_in_cloud_tpu_vm", True)
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")  # no server of metadata is asked
    for name in ("MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "host0,host1")
    assert joined(monkeypatch, {}) == {}  # JAX reads the rest itself
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "host0")
    assert joined(monkeypatch, {}) is None


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        (JAX | {"JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID"),
        (JAX | {"JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID"),
        (JAX | {"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}, "JAX_COORDINATOR_ADDRESS"),
        ({"JAX_NUM_PROCESSES": "2"}, "JAX_PROCESS_ID"),
        ({"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234"}, "JAX_NUM_PROCESSES"),
        (SRUN | {"SLURM_PROCID": "4"}, "SLURM_PROCID"),
        (SRUN | {"SLURM_STEP_NODELIST": ""}, "SLURM_STEP_NODELIST"),
        (MPI | {"OMPI_COMM_WORLD_RANK": "4"}, "OMPI_COMM_WORLD_RANK"),
        ({name: value for name, value in MPI.items() if "MCA" not in name}, "JAX_COORDINATOR_ADDRESS"),
    ],
)
def test_contradictory_variables_are_named(monkeypatch, environment, name):
    with pytest.raises(ConfigError) as caught:
        joined(monkeypatch, environment)
    assert caught.value.field == name


def test_one_process_needs_nobody():
    processes.wait("nobody", 1)
    processes.agree({"arguments": "a"})
    assert (processes.count(), processes.index(), processes.is_first()) == (1, 0, True)
    assert processes.from_first("text") == "text"
    np.testing.assert_array_equal(processes.gather(np.arange(3)), np.arange(3)[None])


def test_two_processes_tell_each_other_and_one_that_leaves_says_why():
    program = """
        from modeling_vit_cls import processes

        processes.join()
        import os
        import jax, jax.numpy as jnp, numpy as np
        from jax.sharding import Mesh, NamedSharding, PartitionSpec
        from modeling_vit_cls.errors import ConfigError

        this = processes.index()
        assert processes.count() == 2 and processes.is_first() == (this == 0)
        for number in range(250):  # more than the coordinator keeps
            assert processes.from_first(f"{number} of {this}") == f"{number} of 0"
            if number % 50 == 0:
                processes.wait("a while", 5)
        assert processes.gather(np.arange(3) + this).tolist() == [[0, 1, 2], [1, 2, 3]]
        processes.agree({"version of jax": "1", "arguments": "same"})
        try:
            processes.agree({"version of jax": "1", "arguments": f"of {this}"})
        except ConfigError as error:
            assert error.field == "arguments" and "'of 0'" in str(error) and "process 1 of 2 has 'of 1'" in str(error)
        else:
            raise AssertionError("the arguments differ")

        compiled = []
        jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
        whole = NamedSharding(Mesh(jax.devices(), ("data",)), PartitionSpec())
        values = jax.make_array_from_process_local_data(NamedSharding(whole.mesh, PartitionSpec("data")), np.ones(2))
        total = jax.jit(jnp.sum, out_shardings=whole)
        processes.ready(total, values)
        programs = compiled.count("/jax/core/compile/backend_compile_duration")
        assert programs > 0 and float(total(values)) == 4
        assert compiled.count("/jax/core/compile/backend_compile_duration") == programs  # the call compiled nothing

        processes.wait("the end", 5)
        if this == 0:
            try:
                processes.wait("nobody else", 0.001)
            except TimeoutError as error:
                processes.leave(error, 7)
        os._exit(0)  # without the end of JAX, which waits for process 0
        """
    first, second = ended(start("-c", textwrap.dedent(program), processes=2))
    assert (first.returncode, second.returncode) == (1, 0), (first.stderr, second.stderr)
    line = first.stderr.splitlines()[-1]
    assert re.match("vit-cls: process 0 of 2, step 7: process 0 of 2 waited 0.001 minutes at 'nobody else' for", line)
    assert "--resume_from_checkpoint true" in line


def test_one_that_leaves_before_the_first_step_tells_of_nothing_to_go_on_with(monkeypatch, capsys):
    monkeypatch.setattr("os._exit", lambda _: None)
    for step in (None, 0):
        processes.leave(OSError("no such model"), step)
        assert capsys.readouterr().err.endswith("no such model; the other processes end within 120 s\n")


@pytest.mark.world  # the state and the control of callbacks are of transformers
def test_two_processes_train_as_one_does(tmp_path, monkeypatch):
    """Order, random numbers, losses, metrics and broken images are those of one process; process 0 alone writes."""
    few = {
        "max_steps": 3,
        "eval_steps": 3,
        "save_strategy": "no",
        "on_bad_image": "skip",
        "broken": [77, 119, 125, 140],
    }
    started = start_run(2, tmp_path, "two", **few)
    monkeypatch.chdir(tmp_path)
    one = run_of_processes.main("one", **few)
    first, second = finished(started)
    (rows, losses), (expected_rows, expected) = recorded(tmp_path / "two.jsonl"), recorded(tmp_path / "one.jsonl")
    assert rows == expected_rows
    assert len(rows) == 3
    assert len(losses) == 4
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    loaded = type(one.model).from_pretrained(tmp_path / "two")
    for name in ("kernel", "bias"):
        trained = loaded.params["classifier"][name]
        np.testing.assert_allclose(trained, one.model.params["classifier"][name], atol=2e-4)
    assert {file.name for file in (tmp_path / "two").iterdir()} == {file.name for file in (tmp_path / "one").iterdir()}
    assert len(one.bad_images) == 4
    assert [json.loads(process.stdout.splitlines()[-1]) for process in (first, second)] == [one.bad_images] * 2
    assert "step 3/3" in first.stderr
    assert "step" not in second.stderr
    assert "begun" not in second.stdout
