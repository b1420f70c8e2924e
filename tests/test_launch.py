"""`vit-cls launch` before its processes start: their environments, and what it refuses."""

import os
import signal
import subprocess
import sys
import time

import pytest

from hub_scripts.__main__ import main
from hub_scripts.launch import environments_of
from modeling_vit_cls.errors import ConfigError


def test_each_process_gets_its_number_one_address_and_one_gpu():
    environments = environments_of(3, {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "4,6,7"})
    assert [one["JAX_PROCESS_ID"] for one in environments] == ["0", "1", "2"]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in environments] == ["4", "6", "7"]
    assert {one["JAX_NUM_PROCESSES"] for one in environments} == {"3"}
    assert {one["PATH"] for one in environments} == {"/bin"}
    assert {one["VIT_CLS_LAUNCHER"] for one in environments} == {"vit-cls launch -n 3 --"}
    (address,) = {one["JAX_COORDINATOR_ADDRESS"] for one in environments}
    assert address.startswith("127.0.0.1:")
    assert [one["CUDA_VISIBLE_DEVICES"] for one in environments_of(2, {})] == ["0", "1"]


def test_on_a_cpu_the_variable_of_gpus_stays():
    own = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "0"}
    assert [one["CUDA_VISIBLE_DEVICES"] for one in environments_of(2, own)] == ["0", "0"]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in environments_of(2, {"CUDA_VISIBLE_DEVICES": ""})] == ["", ""]


@pytest.mark.parametrize(("count", "own"), [(0, {}), (3, {"CUDA_VISIBLE_DEVICES": "0,1"})])
def test_a_number_of_processes_that_cannot_be_is_refused(count, own):
    with pytest.raises(ConfigError, match=f"processes={count}"):
        environments_of(count, own)


def test_other_verbs_than_train_are_refused(capsys):
    assert main(["launch", "-n", "2", "--", "predict", "model", "x.jpg"]) == 1
    assert "launch='predict model x.jpg': starts training only" in capsys.readouterr().err


# In place of Python: a program that notes when it runs and which signal ends it.
NOTES_ITS_SIGNAL = """#!/bin/sh
trap 'touch "$NOTES/SIGINT-$JAX_PROCESS_ID"; exit 1' INT
trap 'touch "$NOTES/SIGTERM-$JAX_PROCESS_ID"; exit 1' TERM
touch "$NOTES/ready-$JAX_PROCESS_ID"
while :; do sleep 0.05; done
"""
LAUNCH = """
import sys
from hub_scripts.__main__ import main
sys.executable = sys.argv[1]
main(["launch", "-n", "2", "--", "train"])
"""


@pytest.mark.parametrize(("sent", "got"), [("SIGHUP", "SIGTERM"), ("SIGTERM", "SIGTERM"), ("SIGINT", "SIGINT")])
def test_a_signal_goes_to_all_processes_also_that_of_a_closed_terminal(sent, got, tmp_path):
    program = tmp_path / "program"
    program.write_text(NOTES_ITS_SIGNAL)
    program.chmod(0o755)
    environment = {**os.environ, "NOTES": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", LAUNCH, program], env=environment, stderr=subprocess.PIPE) as launched:
        while len(list(tmp_path.glob("ready-*"))) < 2:
            assert launched.poll() is None, launched.stderr and launched.stderr.read()
            time.sleep(0.05)
        launched.send_signal(getattr(signal, sent))
    assert {entry.name for entry in tmp_path.glob("SIG*")} == {f"{got}-0", f"{got}-1"}
