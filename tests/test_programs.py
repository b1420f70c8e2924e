"""A model written as a program: the same outputs, at any batch size, from a runtime that knows nothing of us."""

import logging
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import get_args

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import pixels, tiny_config, tiny_model
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file

from modeling_vit_cls import FlaxViTClsForImageClassification, FlaxViTClsModel, ViTClsImageProcessor, export_pretrained
from modeling_vit_cls.config_rules import (
    Activation,
    ClassifierInput,
    MlpKind,
    NormPosition,
    Positions,
    PositionTokens,
    Readout,
)
from modeling_vit_cls.errors import CheckpointError
from modeling_vit_cls.export import programs
from modeling_vit_cls.install import how_to_install

# Every field that changes what is computed, in several of its values; the rest keeps its default.
CONFIGS = {
    "plain": {},
    "mean": {"readout": "mean", "use_cls_token": False, "norm_position": "after_readout"},
    "cls_mean": {"readout": "cls_mean", "pre_norm": True, "representation_size": 6},
    "map": {"readout": "map", "use_cls_token": False, "position_embedding": "none", "projection_size": 7},
    "zero-shot": {"projection_size": 7, "classifier_input": "unit_embedding", "norm_position": "after_readout"},
    "cls_tokens": {"num_cls_tokens": 3, "patch_padding": 1},
    "cls_concat": {"num_cls_tokens": 2, "readout": "cls_concat", "norm_position": "none"},
    "registers": {"num_register_tokens": 3, "position_embedding_tokens": "patches", "layer_scale_init_value": 0.5},
    "rope": {"position_embedding": "rope", "num_register_tokens": 2, "qkv_bias": False, "hidden_act": "quick_gelu"},
    "swiglu": {"mlp": "swiglu", "hidden_act": "silu", "key_bias": False, "patch_bias": False},
    "relative": {"position_embedding": "relative", "norm_position": "none", "readout": "mean"},
    "sincos2d": {"position_embedding": "sincos2d", "hidden_act": "gelu_pytorch_tanh", "image_size": (12, 8)},
    "distillation": {"use_distillation_token": True, "num_register_tokens": 1, "hidden_act": "relu"},
    "one head": {"use_distillation_token": True, "use_distillation_head": False, "num_channels": 1},
    "dropout": {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5, "drop_path_rate": 0.5},
}


def run_onnx(folder: Path, model, params, *batches: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Outputs for each batch of the model written to `folder` as model.onnx."""
    programs.write_onnx(folder / "model.onnx", model.module, params, model.config)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(None, {"pixel_values": images}))) for images in batches]


def run_stablehlo(folder: Path, model, params, *batches: np.ndarray) -> list[dict[str, jax.Array]]:
    """Outputs for each batch of the model written to `folder` as model.stablehlo."""
    file = folder / "model.stablehlo"
    programs.write_stablehlo(file, model.module, params, model.config)
    program = jax.export.deserialize(bytearray(file.read_bytes()))
    return [program.call(flatten_dict(params, sep="."), images) for images in batches]


def difference(found, expected) -> float:
    """The largest one, as a share of the output's scale."""
    assert found.shape == expected.shape
    found, expected = np.asarray(found, np.float32), np.asarray(expected, np.float32)
    return float(abs(found - expected).max() / abs(expected).max())


def test_configs_hold_every_choice():
    configs = [tiny_config(**config) for config in CONFIGS.values()]
    choices = {"readout": Readout, "hidden_act": Activation, "mlp": MlpKind, "position_embedding": Positions}
    choices |= {
        "position_embedding_tokens": PositionTokens,
        "norm_position": NormPosition,
        "classifier_input": ClassifierInput,
    }
    for name, literal in choices.items():
        assert {getattr(config, name) for config in configs} == set(get_args(literal))


@cache
def classifier(name: str) -> FlaxViTClsForImageClassification:
    return tiny_model(num_hidden_layers=1, **CONFIGS[name])


@pytest.mark.parametrize("name", CONFIGS)
def test_programs_give_what_the_classifier_gives(tmp_path, name):
    model = classifier(name)
    check_programs(tmp_path, model, model.params, {"logits"})


@pytest.mark.parametrize("name", ["plain", "cls_mean", "map"])
def test_programs_give_what_the_backbone_gives(tmp_path, name):
    model = FlaxViTClsModel(classifier(name).config, _do_init=False)
    names = {"last_hidden_state", "pooler_output"} | ({"image_embeds"} if name == "map" else set())
    check_programs(tmp_path, model, classifier(name).params["vit_cls"], names)


def check_programs(folder: Path, model, params, names: set[str]) -> None:
    """ONNX to 1e-5 of the output's scale, for one image and for three; StableHLO bit by bit."""
    images = pixels(3, model.config.image_hw, model.config.num_channels)
    expected = model(images, params=params)
    one, three = run_onnx(folder, model, params, images[:1], images)
    (by_stablehlo,) = run_stablehlo(folder, model, params, images)
    assert set(one) == set(three) == set(by_stablehlo) == names
    for name in names:
        assert difference(one[name], expected[name][:1]) < 1e-5
        assert difference(three[name], expected[name]) < 1e-5
        np.testing.assert_array_equal(by_stablehlo[name], expected[name])
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
    graph = onnx.load(folder / "model.onnx").graph
    free = {value.name: value.type.tensor_type.shape.dim[0].dim_param for value in (*graph.input, *graph.output)}
    assert free == dict.fromkeys(["pixel_values", *names], "batch")
    assert len(list(folder.iterdir())) == 2


def test_stablehlo_leaves_the_batch_free(tmp_path, model):
    batches = [pixels(size) for size in (1, 4)]
    for images, found in zip(batches, run_stablehlo(tmp_path, model, model.params, *batches)):
        np.testing.assert_array_equal(found["logits"], model(images).logits)


def test_onnx_leaves_the_batch_free_and_can_be_read(tmp_path, model):
    run_onnx(tmp_path, model, model.params)
    graph = onnx.load(tmp_path / "model.onnx").graph
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {"pixel_values": ["batch", 3, 8, 8], "logits": ["batch", 5]}
    operations = [node.op_type for node in graph.node]
    assert len(operations) < 20 + 40 * model.config.num_hidden_layers
    counts = {name: operations.count(name) for name in ("LayerNormalization", "Gemm", "Softmax", "Shape", "Dropout")}
    assert counts == {"LayerNormalization": 5, "Gemm": 13, "Softmax": 2, "Shape": 1, "Dropout": 0}


@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_half_precision_is_exact_in_onnx_and_itself_in_stablehlo(tmp_path, stored, model):
    """Parameters and products in half precision: ONNX computes with the same parameters in float32."""
    half, images = type(model)(model.config, dtype=stored, _do_init=False), pixels(3)
    params = half.to_bf16(model.params) if stored == "bfloat16" else half.to_fp16(model.params)
    (found,) = run_onnx(tmp_path, half, params, images)
    assert difference(found["logits"], model(images, params=half.to_fp32(params)).logits) < 1e-5
    (found,) = run_stablehlo(tmp_path, half, params, images)
    np.testing.assert_array_equal(found["logits"], half(images, params=params).logits)


def test_a_large_mean_costs_onnx_no_digits(tmp_path):
    """LayerNorm is one node there, whose way to the variance is the runtime's."""
    model, params = classifier("mean"), dict(classifier("mean").params)
    head = params["classifier"]
    params["classifier"] = {**head, "bias": head["bias"] * 0}
    images = pixels() + 100
    (found,) = run_onnx(tmp_path, model, params, images)
    assert difference(found["logits"], model(images, params=params).logits) < 1e-5


def test_writing_changes_no_model_and_logs_nothing(tmp_path, caplog):
    model, images = tiny_model(mlp="swiglu"), pixels()
    model.enable_gradient_checkpointing()
    module, expected = model.module, model(images).logits
    (by_onnx,) = run_onnx(tmp_path, model, model.params, images)
    (by_stablehlo,) = run_stablehlo(tmp_path, model, model.params, images)
    assert difference(by_onnx["logits"], expected) < 1e-5
    np.testing.assert_array_equal(by_stablehlo["logits"], expected)
    assert model.module is module
    again = type(model)(model.config, _do_init=False)  # traced anew, after jax2onnx has patched flax and put it back
    np.testing.assert_array_equal(again(images, params=model.params).logits, expected)
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_weights_that_one_onnx_file_cannot_hold_lie_beside_it(tmp_path, monkeypatch, model):
    monkeypatch.setattr(programs, "_PROTOBUF_LIMIT", 1000)
    (found,) = run_onnx(tmp_path, model, model.params, pixels())
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    assert difference(found["logits"], model(pixels()).logits) < 1e-5


def test_a_missing_jax2onnx_is_an_error_that_says_what_to_install(tmp_path, monkeypatch, model):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(CheckpointError, match=rf"^model.onnx: .*{re.escape(how_to_install('onnx'))}"):
        run_onnx(tmp_path, model, model.params)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("to", "package"), [("onnx", "jax2onnx"), ("onnx", "onnx_ir"), ("stablehlo", "flatbuffers")])
def test_a_missing_package_is_named_with_its_extra_and_no_hidden_folder(to, package, tmp_path, monkeypatch, model):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(CheckpointError, match=rf"^model\.{to}: .*{re.escape(how_to_install(to))}") as error:
        export_pretrained(model, tmp_path / "out", to)
    assert str(tmp_path) not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "softmax makes probabilities of them"),
        ({"problem_type": "multi_label_classification"}, "sigmoid makes a probability of each"),
        ({"problem_type": "regression"}, "`config.json`\n"),
    ],
)
def test_the_text_beside_a_program_names_the_function_of_its_scores(changes, words, tmp_path):
    export_pretrained(tiny_model(**changes), tmp_path / "out", "stablehlo")
    assert words in (tmp_path / "out" / "model.stablehlo.md").read_text()


def test_the_text_beside_a_program_has_the_width_of_a_pooler(tmp_path):
    model = tiny_model(FlaxViTClsModel, representation_size=24)
    export_pretrained(model, tmp_path / "out", "stablehlo")
    assert "`pooler_output`: (B, 24)" in (tmp_path / "out" / "model.stablehlo.md").read_text()
    assert model(pixels(1)).pooler_output.shape == (1, 24)


@pytest.mark.parametrize("kind", ["classifier", "backbone"])
@pytest.mark.parametrize("to", ["onnx", "stablehlo"])
def test_the_text_beside_a_program_says_how_it_is_called(to, kind, tmp_path, model, monkeypatch):
    """Its code runs as it stands, in its folder, and gives what the model gives, in the shapes that it says."""
    params = model.params if kind == "classifier" else model.params["vit_cls"]
    exported = model if kind == "classifier" else FlaxViTClsModel(model.config)
    exported.params = params
    export_pretrained(exported, tmp_path / "out", to)
    text = (tmp_path / "out" / f"model.{to}.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    images = pixels(3)
    monkeypatch.chdir(tmp_path / "out")
    given: dict = {"pixel_values": images}
    exec(code, given)
    expected = exported(images)
    shapes = dict(re.findall(r"- `(\w+)`: \(B, ([\d, ]+)\)", text))
    assert set(shapes) == set(given["outputs"])
    for name, found in given["outputs"].items():
        assert difference(found, expected[name]) < 1e-5
        assert ", ".join(map(str, found.shape[1:])) == shapes[name]
    with pytest.raises(CheckpointError, match="which would be replaced"):
        export_pretrained(exported, tmp_path / "out", to)


@pytest.mark.parametrize("kind", ["own size", "no processor"])
def test_the_text_says_the_size_that_the_program_takes(kind, tmp_path):
    """That of the image processor where the config has another; no processor is named where there is none."""
    if kind == "own size":
        model, size = tiny_model(FlaxViTClsModel, image_size=16), (8, 12)
        model.image_processor = ViTClsImageProcessor(size={"height": 8, "width": 12})
    else:
        model, size = tiny_model(FlaxViTClsModel, num_channels=4), (8, 8)
    export_pretrained(model, tmp_path / "out", "stablehlo")
    program = jax.export.deserialize(bytearray((tmp_path / "out" / "model.stablehlo").read_bytes()))
    text = (tmp_path / "out" / "model.stablehlo.md").read_text()
    tokens = 1 + size[0] // 4 * size[1] // 4
    assert f"`pixel_values`, (B, {model.config.num_channels}, {size[0]}, {size[1]}) float32" in text
    assert f"`last_hidden_state`: (B, {tokens}, {model.config.hidden_size})" in text
    assert program.in_avals[-1].shape[2:] == size
    assert tokens in [leaf.shape[1] for leaf in program.out_avals if len(leaf.shape) == 3]
    file = tmp_path / "out" / "preprocessor_config.json"
    assert (file.name in text) == file.exists() == (kind == "own size")


SERVE = """
import sys
for name in ("flax", "transformers", "modeling_vit_cls", "huggingface_hub", "PIL"):
    sys.modules[name] = None  # as if it were not installed
import jax, numpy, safetensors.numpy
params = safetensors.numpy.load_file("model.safetensors")
program = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
assert program.platforms == ("cpu", "cuda", "tpu")
numpy.save("logits.npy", program.call(params, numpy.load("images.npy"))["logits"])
"""


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_stablehlo_is_served_by_jax_numpy_and_safetensors_alone(tmp_path, stored, model):
    params, images = jax.tree.map(lambda leaf: leaf.astype(stored), model.params), pixels(3)
    model.save_pretrained(tmp_path, params=params)
    run_stablehlo(tmp_path, model, params)
    assert set(load_file(tmp_path / "model.safetensors")) == set(flatten_dict(params, sep="."))
    np.save(tmp_path / "images.npy", images)
    subprocess.run([sys.executable, "-c", SERVE], cwd=tmp_path, check=True)
    assert difference(np.load(tmp_path / "logits.npy"), model(images, params=params).logits) < 1e-6
