"""`vit-cls launch` before its processes start: their environments, and what it refuses."""

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
