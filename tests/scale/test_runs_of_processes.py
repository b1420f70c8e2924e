"""Training runs of four real processes: they are killed, stopped, go on on other numbers of processes, or disagree."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from children import ended, finished, recorded, start, start_run

from modeling_vit_cls.results import Results


def bytes_of(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def wait_for(file: Path, text: str, started) -> None:
    """Wait until a file has a text; fails if a process ends before."""
    while not (file.exists() and text in file.read_text()):
        assert all(process.poll() is None for process in started), [
            process.stderr.read()[-2000:] for process in started
        ]
        time.sleep(0.1)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    """A run of 8 steps of four processes."""
    folder = tmp_path_factory.mktemp("unbroken")
    finished(start_run(4, folder, "run"))
    return folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> tuple[Path, list[subprocess.CompletedProcess[str]], float]:
    """The same run, of which process 2 is killed after step 6, two steps after a checkpoint."""
    folder = tmp_path_factory.mktemp("killed")
    started = start_run(4, folder, "run", hold=6)
    wait_for(folder / "run.jsonl", '"step": 6, "rows"', started)
    started[2].kill()
    killed_at = time.monotonic()
    (folder / "go").touch()
    processes = ended(started)
    return folder, processes, time.monotonic() - killed_at


def test_one_process_has_the_rows_and_losses_of_four(unbroken, tmp_path):
    finished(start_run(1, tmp_path, "run"))
    (rows, losses), (expected_rows, expected) = recorded(tmp_path / "run.jsonl"), recorded(unbroken / "run.jsonl")
    assert rows == expected_rows
    assert len(losses) == 8 + 2
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize(("mesh", "devices"), [("fsdp=2", 1), ("data=2,fsdp=2", 2)])
def test_parameters_divided_over_two_processes_give_the_same_losses(unbroken, tmp_path, monkeypatch, mesh, devices):
    monkeypatch.setenv("XLA_FLAGS", f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}")
    finished(start_run(2, tmp_path, "run", mesh=mesh, per_device_train_batch_size=8 // devices))
    (rows, losses), (expected_rows, expected) = recorded(tmp_path / "run.jsonl"), recorded(unbroken / "run.jsonl")
    assert rows == expected_rows
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_a_killed_process_ends_all_with_a_line_and_the_last_checkpoint_stays(unbroken, killed):
    folder, processes, seconds = killed
    print(f"all processes had ended {seconds:.1f} s after one was killed; the heartbeat was 10 s")
    assert processes[2].returncode == -signal.SIGKILL
    survivors = [process for process in processes if process is not processes[2]]
    assert all(process.returncode != 0 for process in survivors)
    lines = [line for process in survivors for line in process.stderr.splitlines() if line.startswith("vit-cls: ")]
    assert lines
    form = (
        r"vit-cls: process \d of 4, step [67]: .*the other processes end within 20 s; .*--resume_from_checkpoint true"
    )
    assert all(re.fullmatch(form, line) for line in lines)
    assert bytes_of(folder / "run" / "checkpoint-4") == bytes_of(unbroken / "run" / "checkpoint-4")
    assert not (folder / "run" / "checkpoint-8").exists()


def test_a_killed_run_goes_on_with_the_bytes_of_the_unbroken_one(unbroken, killed, tmp_path):
    shutil.copytree(killed[0], tmp_path, dirs_exist_ok=True)
    finished(start_run(4, tmp_path, "run"))
    assert recorded(tmp_path / "run.jsonl") == recorded(unbroken / "run.jsonl")
    assert bytes_of(tmp_path / "run") == bytes_of(unbroken / "run")


@pytest.mark.parametrize("count", [2, 1])
def test_a_killed_run_goes_on_with_other_numbers_of_processes(unbroken, killed, tmp_path, count):
    shutil.copytree(killed[0], tmp_path, dirs_exist_ok=True)
    finished(start_run(count, tmp_path, "run"))
    (rows, losses), (expected_rows, expected) = recorded(tmp_path / "run.jsonl"), recorded(unbroken / "run.jsonl")
    assert rows == expected_rows
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_a_signal_to_one_process_stops_all_after_a_checkpoint(unbroken, tmp_path):
    started = start_run(2, tmp_path, "run", hold=2)
    wait_for(tmp_path / "run.jsonl", '"step": 2, "rows"', started)
    started[1].send_signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    first, second = ended(started)
    assert (first.returncode, second.returncode) == (143, 143), (first.stderr, second.stderr)
    (checkpoint,) = (path.name for path in (tmp_path / "run").glob("checkpoint-*"))
    assert f"stopped by SIGTERM after step {checkpoint[-1]}, kept in run/{checkpoint}" in first.stderr
    assert "stopped" not in second.stderr
    finished(start_run(2, tmp_path, "run"))
    np.testing.assert_allclose(recorded(tmp_path / "run.jsonl")[1], recorded(unbroken / "run.jsonl")[1], rtol=1e-5)


def test_what_a_callback_of_process_0_decides_counts_for_all(tmp_path):
    finished(start_run(2, tmp_path, "run", stop=3))
    assert (tmp_path / "run" / "checkpoint-3").is_dir()
    assert len(recorded(tmp_path / "run.jsonl")[0]) == 3


@pytest.mark.parametrize(
    ("changed", "name"), [({"learning_rate": 2e-3}, "learning_rate"), ({"images": 119}, "train_dataset.examples")]
)
def test_processes_that_differ_are_told_so_at_the_start(tmp_path, changed, name):
    program = "import run_of_processes as run; run.processes.join(); "
    program += f"run.main('run', **{{}} if run.processes.is_first() else {changed})"
    check_told(program, name, tmp_path)


def test_processes_with_other_versions_of_a_package_are_told_so_at_the_start(tmp_path):
    installed = tmp_path / "other" / "optax-0.0.1.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: optax\nVersion: 0.0.1\n")
    program = "import sys, run_of_processes as run; run.processes.join(); "
    program += "run.processes.is_first() or sys.path.insert(0, 'other'); run.main('run')"
    check_told(program, "version of optax", tmp_path)


def check_told(program: str, name: str, folder: Path) -> None:
    """Two processes of a program end at once, each with a line on the fact that differs."""
    for number, process in enumerate(ended(start("-c", program, processes=2, cwd=folder))):
        assert process.returncode == 1
        line = process.stderr.splitlines()[-1]
        assert line.startswith(f"vit-cls: process {number} of 2, step 0: {name}=")
        assert "is that of process 0, but process 1 of 2 has" in line
    assert not (folder / "run").exists()


def test_processes_without_a_shared_folder_are_told_so(tmp_path):
    program = "import os, run_of_processes as run; run.processes.join(); "
    program += "os.makedirs(f'{run.processes.index()}'); os.chdir(f'{run.processes.index()}'); run.main('run')"
    for process in ended(start("-c", program, processes=2, cwd=tmp_path)):
        assert process.returncode == 1
        assert "output_dir='run': must be one folder for all processes, but process 1 of 2" in process.stderr


def test_launch_trains_and_goes_on_by_the_command_that_it_printed(tmp_path):
    tiny = "{hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32, image_size: 8, "
    words = [
        "vit_cls_digits_cls",
        "--output_dir",
        "run",
        "--config_overrides",
        tiny + "patch_size: 4, num_channels: 1}",
    ]
    words += ["--max_steps", "60", "--eval_steps", "30", "--save_strategy", "steps", "--save_steps", "20", "--json"]
    command = [sys.executable, "-m", "hub_scripts", "launch", "-n", "2", "--", "train", *words]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "ignore"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path, "env": environment}
    launched = subprocess.Popen(command, **options)
    while not (tmp_path / "run" / "checkpoint-20").exists():
        assert launched.poll() is None, launched.communicate()
        time.sleep(0.02)
    children = Path(f"/proc/{launched.pid}/task/{launched.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    _, errors = launched.communicate()
    assert launched.returncode == 128 + signal.SIGKILL, errors
    (line,) = (line for line in errors.splitlines() if line.startswith("vit-cls: process 1 of 2 was ended by SIGKILL"))
    go_on = shlex.split(line.partition("to go on: ")[2])
    assert go_on == ["vit-cls", *command[3:], "--resume_from_checkpoint", "true"]

    again = subprocess.run([*command[:3], *go_on[1:]], **options, check=False)
    assert again.returncode == 0, again.stderr
    assert Results.read(tmp_path / "run" / "results.json").to_json() == again.stdout.rstrip("\n")
    assert (tmp_path / "run" / "README.md").is_file()


def test_the_best_checkpoint_is_loaded_by_all_and_saved_by_the_first(tmp_path):
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": True}
    finished(start_run(2, tmp_path, "run", max_steps=4, eval_steps=2, save_steps=2, **best))
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    losses = {entry["step"]: entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry}
    checkpoint = tmp_path / "run" / f"checkpoint-{max(losses, key=losses.__getitem__)}"
    assert state["best_model_checkpoint"] == checkpoint.name
    weights = "model.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (checkpoint / weights).read_bytes()
