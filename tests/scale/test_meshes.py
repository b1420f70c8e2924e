"""Every mesh beside one device: losses with all that training has, compilations, memory."""

import json
from pathlib import Path

import pytest
from children import on_devices

TESTS = Path(__file__).parents[1]
MESHES = {"data=8": 8, "fsdp=8": 8, "data=2,fsdp=2,tensor=2": 4}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="everything"),
        pytest.param({"freeze_backbone": True, "gradient_accumulation_steps": 1}, id="frozen"),
        pytest.param({"gradient_checkpointing": True, "scan_layers": False}, id="recomputed, without a scan"),
        pytest.param({"bf16": True}, id="bfloat16"),
    ],
)
def test_ten_steps_on_a_mesh_are_those_on_one_device(tmp_path, changes):
    (results,) = on_devices(
        8, TESTS / "mesh_runs.py", tmp_path, json.dumps([{"meshes": MESHES, "steps": 10, **changes}])
    )
    assert set(results) == set(MESHES)
    for mesh, difference in results.items():
        print(mesh, changes, difference)
        assert difference["compilations"] == [1], mesh
        assert difference["losses"] < (5e-3 if "bf16" in changes else 1e-5), (mesh, difference)
        if "bf16" not in changes:  # AdamW divides noise by noise where the gradient is zero: the biases of keys
            assert difference["params"] < 2e-4, (mesh, difference)


def test_calls_of_a_model_on_a_mesh_are_those_on_one_device():
    for mesh, differences in on_devices(8, TESTS / "mesh_calls.py", *MESHES).items():
        assert max(differences.values()) < 2e-6, (mesh, differences)


def test_fsdp_takes_less_memory_than_data():
    memory = on_devices(8, TESTS / "mesh_memory.py", "data=8", "fsdp=8")
    print(memory)
    assert memory["fsdp=8"]["temporaries"] < memory["data=8"]["temporaries"]
    assert memory["fsdp=8"]["arguments"] <= 1.05 / 8 * memory["data=8"]["arguments"] + 8 * 224 * 224 * 3
