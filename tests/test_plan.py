"""`vit-cls plan`: what training needs on each device, by formula, against XLA's own figures and by its properties."""

import json
import math

import pytest
from conftest import tiny_config
from local_hub import Repository
from scale.plan_memory import step_memory
from test_families import GOLDEN

from hub_scripts.__main__ import main
from modeling_vit_cls import ConfigError, ViTClsConfig
from modeling_vit_cls.nn.mesh import axis_sizes
from modeling_vit_cls.training.arguments import TrainingArguments
from modeling_vit_cls.training.plan import USABLE, make_plan
from modeling_vit_cls.variants import VARIANTS

NAME = "vit_cls_base_patch16_224"
STATE = ("parameters", "optimizer", "moving average")


def plan(mesh: str = "data=1", images: int = 64, overrides=None, **arguments):
    config = ViTClsConfig.from_variant(NAME, **{"num_labels": 1000, **(overrides or {})})
    arguments = TrainingArguments(per_device_train_batch_size=images, **arguments)
    return make_plan(config, axis_sizes(mesh), arguments)


def printed(capsys, *words: str) -> tuple[int, str, str]:
    status = main(["plan", *words])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_one_device_holds_the_whole_state():
    count = VARIANTS[NAME].parameters
    adamw, sgd = plan(ema_decay=0.99), plan(optim="sgd")
    assert adamw.parameters == count
    assert [adamw.memory[name] for name in ("parameters", "gradient", "moving average")] == [4 * count] * 3
    assert 0 <= adamw.memory["optimizer"] - 8 * count < 100, "two moments, and counters"
    assert 0 <= sgd.memory["optimizer"] - 4 * count < 100
    assert sgd.memory["moving average"] == 0
    assert plan(optim="sgd", adam_beta1=0.0).memory["optimizer"] < 100, "without momentum"


def test_fsdp_divides_the_state_and_data_does_not():
    one = plan(ema_decay=0.99)
    for name in STATE:
        assert plan("data=8", ema_decay=0.99).memory[name] == one.memory[name]
        assert one.memory[name] / 8 < plan("fsdp=8", ema_decay=0.99).memory[name] < one.memory[name] / 8 * 1.05
        assert one.memory[name] / 4 < plan("fsdp=2,tensor=2", ema_decay=0.99).memory[name] < one.memory[name] / 4 * 1.05


def test_activations_are_of_the_images_of_a_device():
    one = plan()
    for mesh in ("data=8", "fsdp=8", "data=2,fsdp=4"):
        assert plan(mesh).memory["activations kept"] == one.memory["activations kept"]
        assert plan(mesh).batch == 8 * one.batch == 512
    assert plan(images=128).memory["activations kept"] == 2 * one.memory["activations kept"]
    tensor = plan("tensor=4")
    assert tensor.batch == one.batch
    assert one.memory["activations kept"] / 4 < tensor.memory["activations kept"] < one.memory["activations kept"]


def test_what_needs_less_memory_allows_larger_batches():
    memory = 80 * 2**30
    by_need = [
        plan(),
        plan(bf16=True),
        plan(bf16=True, gradient_checkpointing=True),
        plan("fsdp=8", bf16=True, gradient_checkpointing=True),
    ]
    needs, largest = [p.total for p in by_need], [p.largest(memory) for p in by_need]
    assert needs == sorted(needs, reverse=True)
    assert largest == sorted(largest)
    assert len(set(needs)) == len(set(largest)) == 4


@pytest.mark.parametrize("bf16", [False, True])
def test_the_largest_batch_fits_and_one_image_more_does_not(bf16):
    memory = 16 * 2**30
    images = plan("fsdp=2", bf16=bf16).largest(memory)
    assert plan("fsdp=2", images, bf16=bf16).fits(memory)
    assert not plan("fsdp=2", images + 1, bf16=bf16).fits(memory)
    assert plan().largest(2**30) == 0, "not even the state fits"


def test_traffic_by_the_axes():
    """By hand, of a ring: 2 (n - 1) / n of the bytes of a sum, (n - 1) / n of those of a gather."""
    whole = 4 * VARIANTS[NAME].parameters
    assert set(plan().traffic.values()) == {0}
    data, fsdp, both = (plan(mesh).traffic for mesh in ("data=8", "fsdp=8", "data=4,fsdp=8"))
    assert data["all-reduce gradient"] == pytest.approx(2 * whole * 7 / 8)
    assert sum(data.values()) == data["all-reduce gradient"]
    assert fsdp["gather parameters"] == pytest.approx(2 * whole * 7 / 8, rel=0.01)
    assert fsdp["reduce-scatter gradient"] == pytest.approx(whole * 7 / 8, rel=0.01)
    assert fsdp["all-reduce gradient"] < whole / 100, "of norms and biases, which are whole on each device"
    assert both["gather parameters"] == fsdp["gather parameters"]
    assert both["all-reduce gradient"] == pytest.approx(2 * whole / 8 * 3 / 4, rel=0.05)
    tensor, half = plan("tensor=2").traffic, plan("tensor=2", bf16=True).traffic
    assert tensor["all-reduce tokens"] == 6 * 12 * 64 * 197 * 768 * 4
    assert half["all-reduce tokens"] == tensor["all-reduce tokens"] / 2
    assert plan("tensor=2", gradient_checkpointing=True).traffic["all-reduce tokens"] == 7 * 12 * 64 * 197 * 768 * 4


def test_work_is_that_of_three_forward_passes():
    assert plan(images=1).tflops == pytest.approx(3 * 2 * 17.6 / 1000, rel=0.01), "17.6 GMACs a forward pass"
    assert plan(images=1, gradient_checkpointing=True).tflops == pytest.approx(plan(images=1).tflops * 4 / 3)
    assert plan("tensor=2").tflops == plan().tflops / 2


@pytest.mark.parametrize("recomputes", [False, True])
def test_xla_counts_the_same(recomputes):
    """On one device; tests/scale has the meshes."""
    sizes = {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 512}
    config = tiny_config(**sizes, image_size=64, patch_size=8)
    arguments = TrainingArguments(
        per_device_train_batch_size=64, gradient_checkpointing=recomputes, mesh="data=1", optim="sgd", ema_decay=0.9
    )
    needs = make_plan(config, axis_sizes("data=1"), arguments)
    held, temporaries = step_memory(config, arguments)
    assert sum(needs.memory[name] for name in (*STATE, "images")) == pytest.approx(held, rel=0.001)
    assert needs.total == pytest.approx(held + temporaries, rel=0.15)


def test_the_table_and_the_exit_status(capsys):
    words = [NAME, "--mesh", "data=-1,fsdp=8", "--devices", "256", "--batch", "64", "--bf16"]
    status, out, err = printed(capsys, *words)
    assert (status, err) == (0, "")
    lines = {line[:32].strip(): line[32:].split() for line in out.splitlines()}
    assert "devices: 256 (data=32, fsdp=8, tensor=1); images: 64 on each, 16,384 in a step" in out
    needs = plan("data=32,fsdp=8", bf16=True)
    assert float(lines["all"][0]) == pytest.approx(needs.total / 2**30, abs=0.01)
    assert lines["activations kept"][-1] == f"{needs.largest(80 * 2**30):,}"
    assert len(lines["activations recomputed"]) == 2
    status, out, err = printed(capsys, *words, "--memory", "3")
    assert status == 1
    assert err.startswith("vit-cls: per_device_train_batch_size=64: needs ")
    assert err.count("\n") == 1
    assert "more than 90% of 3 GiB" in err
    assert printed(capsys, *words, "--memory", "3", "--gradient_checkpointing")[0] == 0
    assert "no image fits: divide the state by a larger fsdp" in printed(capsys, NAME, "--memory", "1")[2]


def test_json_has_the_same(capsys):
    status, out, _ = printed(capsys, NAME, "--mesh", "fsdp=8", "--per_device_train_batch_size", "9999", "--json")
    record = json.loads(out)
    needs = plan("fsdp=8", 9999)
    assert (status, record["fits"]) == (1, False)
    assert {name: record[name] for name in needs.to_dict()} == needs.to_dict()
    assert record["total"] == sum(record["memory"].values())
    assert record["largest_per_device_train_batch_size"]["kept"] == math.floor(needs.largest(80 * 2**30))
    assert record["total"] > USABLE * 80 * 2**30


@pytest.mark.world
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mesh", "data=-1,fsdp=8"], "mesh='data=-1,fsdp=8': has size -1, for the rest of the devices: give"),
        (["--mesh", "data=-1,fsdp=8", "--devices", "12"], "needs a multiple of 8 devices, but there are 12"),
        (["--mesh", "fsdp=8", "--devices", "16"], "gives 8 devices, but there are 16"),
        (["--mesh", "data=-1,fsdp=-1", "--devices", "16"], "only one axis may have size -1"),
        (["--mesh", "dta=8"], "did you mean 'data'?"),
        (["--mesh", "tensor=5"], "mesh='tensor=5': must divide num_attention_heads=12"),
        (["--mesh", "data=-1", "--devices", "0"], "devices=0: must be positive"),
        (["--memory", "nan"], "memory=nan: must be positive"),
        (["--batch", "0"], "per_device_train_batch_size=0: must be positive"),
        (["--ema_decay", "2"], "ema_decay=2.0: must be at least 0 and below 1"),
        (["--config_overrides", "{patch_sise: 8}"], "patch_sise"),
    ],
)
def test_wrong_words_are_one_line(words, message, capsys):
    status, out, err = printed(capsys, NAME, *words)
    assert (status, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.world
def test_a_model_is_a_variant_a_folder_or_an_id(folder, hub, capsys):
    def record(*words: str) -> dict:
        status, out, err = printed(capsys, *words, "--json")
        assert (status, err) == (0, "")
        return json.loads(out)

    expected = make_plan(tiny_config(), axis_sizes("data=1"), TrainingArguments(per_device_train_batch_size=32))
    assert record(str(folder))["memory"] == expected.memory
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    hub.repositories["me/planned"] = Repository()
    hub.repositories["me/planned"].commit(files, "ours", "main")
    assert record("me/planned")["memory"] == expected.memory
    assert record(str(GOLDEN / "timm_vit"))["parameters"] > 0, "another library's"
    (folder / "model.safetensors").unlink()
    assert record(str(folder))["memory"] == expected.memory, "config.json is enough"
    larger = record(str(folder), "--config_overrides", "{image_size: 16}")
    assert larger["memory"]["activations kept"] > expected.memory["activations kept"]
    assert record(NAME, "--config_overrides", "{num_labels: 10}")["parameters"] < VARIANTS[NAME].parameters
    assert "did you mean 'vit_cls_base_patch16_224'" in printed(capsys, "vit_cls_bas_patch16_224")[2]
    assert "no/such" in printed(capsys, "no/such")[2]


def test_a_mesh_without_devices():
    assert axis_sizes("fsdp=4") == {"data": 1, "fsdp": 4, "tensor": 1}
    with pytest.raises(ConfigError, match="give their number"):
        axis_sizes("data=-1")
