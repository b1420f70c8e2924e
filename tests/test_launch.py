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


# In place of Python. With WRONG=0, process 0 fails, and JAX then ends process 1, as its runtime says. With WRONG=1 it
# ends process 1 alone.
ONE_FAILS = """#!/bin/sh
if [ "$JAX_PROCESS_ID" = 0 ]; then
    [ "$WRONG" = 1 ] && exit 0
    echo "vit-cls: process 0 of 2: wrong" >&2
    echo $$ > "$NOTES/number" && mv "$NOTES/number" "$NOTES/zero"
    exit 1
fi
echo "a warning" >&2
if [ "$WRONG" = 0 ]; then
    until [ -e "$NOTES/zero" ]; do sleep 0.05; done
    while kill -0 "$(cat "$NOTES/zero")" 2>/dev/null; do sleep 0.05; done
fi
echo "E1127 23:42:39.224685 31632 agent.cc:289] Polled an error from coordination service (this can be" >&2
echo "F1127 23:42:39.224736 31632 client.h:80] Terminating process because the JAX distributed service" >&2
echo "    @     0x7f472d840634  absl::lts_20260107::log_internal::LogMessage::SendToLog()" >&2
kill -ABRT $$
"""


def failed_launch(tmp_path, wrong: int) -> str:
    """What `vit-cls launch` writes on stderr when this process fails."""
    program = tmp_path / "program"
    program.write_text(ONE_FAILS)
    program.chmod(0o755)
    environment = {**os.environ, "WRONG": str(wrong), "NOTES": str(tmp_path)}
    command = [sys.executable, "-c", LAUNCH, program]
    return subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False).stderr


def test_how_jax_ends_a_process_is_told_only_of_the_one_that_failed_first(tmp_path):
    said = failed_launch(tmp_path, 0).splitlines()
    assert sorted(said[:2]) == ["[1] a warning", "vit-cls: process 0 of 2: wrong"]
    assert [line.partition(";")[0] for line in said[2:]] == ["vit-cls: process 0 of 2 ended with status 1"]
    said = failed_launch(tmp_path, 1)
    assert "process 1 of 2 was ended by SIGABRT" in said
    assert "[1] F1127" in said
    assert "[1]     @     0x7f472d840634" in said
