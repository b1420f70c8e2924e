"""What does not fit is refused by the name of its file, tensor or field."""

import json
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors
from conftest import rewrite, tiny_model
from safetensors.numpy import load_file, save_file

from modeling_vit_cls import (
    CheckpointError,
    ConfigError,
    FlaxViTClsForImageClassification,
    FlaxViTClsModel,
    export_pretrained,
)
from modeling_vit_cls.cards import render_card
from modeling_vit_cls.training.recipe import read_recipe

pytestmark = pytest.mark.world

BACKBONE = [{"hidden_size": 32}, {"num_hidden_layers": 1}, {"num_hidden_layers": 3}, {"num_register_tokens": 1}]


@pytest.mark.parametrize("overrides", [*BACKBONE, {"mlp": "swiglu"}, {"use_distillation_token": True}])
@pytest.mark.parametrize("ignore", [False, True])
def test_another_backbone_is_refused_and_never_drawn(folder, overrides, ignore):
    with pytest.raises(CheckpointError, match="differs in the backbone"):
        FlaxViTClsForImageClassification.from_pretrained(folder, **overrides, ignore_mismatched_sizes=ignore)


def test_unknown_override_is_refused(folder):
    with pytest.raises(ConfigError, match="did you mean 'num_labels'"):
        FlaxViTClsForImageClassification.from_pretrained(folder, num_label=3)


def every_tensor() -> list[str]:
    return sorted(".".join(path) for path in tiny_model().required_params)


@pytest.mark.parametrize("name", every_tensor())
def test_each_tensor_missing_renamed_reshaped_or_recast_is_named(folder, name):
    whole = load_file(folder / "model.safetensors")
    flat = whole[name].reshape(-1)
    faults = {
        "missing": lambda t: t.pop(name),
        "renamed": lambda t: t.update({name + "s": t.pop(name)}),
        "reshaped": lambda t: t.update({name: np.ascontiguousarray(np.append(flat, 0))}),
        "int8": lambda t: t.update({name: whole[name].astype(np.int8)}),
        "bool": lambda t: t.update({name: whole[name] > 0}),
    }
    for fault, change in faults.items():
        rewrite(folder, change)
        with pytest.raises(CheckpointError) as error:
            FlaxViTClsForImageClassification.from_pretrained(folder)
        assert name in str(error.value), fault
        assert str(folder / "model.safetensors") in str(error.value), fault
        save_file(whole, folder / "model.safetensors", metadata={"format": "flax"})


def test_a_classifier_that_config_json_promises_must_be_there(folder):
    rewrite(folder, lambda t: [t.pop(name) for name in ("classifier.bias", "classifier.kernel")])
    with pytest.raises(CheckpointError, match=r"classifier\.bias"):
        FlaxViTClsForImageClassification.from_pretrained(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\x00" * 7, "not a whole safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "git-lfs pointer"),
        (b"<html>404</html>" * 9, "not a whole safetensors file"),
    ],
)
def test_a_file_that_is_no_safetensors_is_named(folder, content, words):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as error:
        FlaxViTClsModel.from_pretrained(folder)
    assert str(folder / "model.safetensors") in str(error.value)


def test_truncated_files_are_refused(folder):
    whole = (folder / "model.safetensors").read_bytes()
    for cut in (1, 10, 1000, len(whole) // 2, len(whole) - 9):
        (folder / "model.safetensors").write_bytes(whole[:-cut])
        with pytest.raises(CheckpointError, match="not a whole safetensors file"):
            FlaxViTClsModel.from_pretrained(folder)


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd", "model.bin", "", ".", 5, None, "a/b.safetensors"]
)
def test_shards_that_leave_the_folder_are_refused(model, tmp_path, name):
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    index["weight_map"]["classifier.bias"] = name
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"index\.json: shard name"):
        FlaxViTClsModel.from_pretrained(tmp_path)


def test_a_missing_shard_and_a_lying_index_are_named(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    index = tmp_path / "model.safetensors.index.json"
    good = index.read_text()
    fields = json.loads(good)
    del fields["weight_map"]["classifier.bias"]
    index.write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match=r"'classifier\.bias' is not named by the index"):
        FlaxViTClsModel.from_pretrained(tmp_path)
    index.write_text("[]")
    with pytest.raises(CheckpointError, match="must hold one JSON object"):
        FlaxViTClsModel.from_pretrained(tmp_path)
    index.write_text(good)
    (tmp_path / "model-00002-of-00005.safetensors").unlink(missing_ok=True)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    shards[0].unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        FlaxViTClsModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", ["", "[1]", "null", '"x"', "{", '{"a":' * 5000])
def test_a_config_that_is_no_json_object_is_refused(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        FlaxViTClsModel.from_pretrained(folder)


def remedy(folder) -> str:
    """The lines that the error for a folder of pickled weights prints."""
    with pytest.raises(CheckpointError, match="pickled weights are never read") as error:
        FlaxViTClsModel.from_pretrained(folder)
    return textwrap.dedent(str(error.value).partition("\n")[2])


PICKLED = {  # files of a folder: what is read, and what is written
    ("pytorch_model.bin",): (["pytorch_model.bin"], "model.safetensors"),
    ("checkpoint.pth.tar", "optimizer.pt"): (["checkpoint.pth.tar"], "model.safetensors"),
    ('a "quoted" {i} name.pth',): (['a "quoted" {i} name.pth'], "model.safetensors"),
    ("pytorch_model-00002-of-00003.bin", "pytorch_model.bin.index.json"): (
        [f"pytorch_model-0000{i}-of-00003.bin" for i in (1, 2, 3)],
        "model.safetensors",
    ),
    ("open_clip_pytorch_model.bin", "open_clip_config.json"): (
        ["open_clip_pytorch_model.bin"],
        "open_clip_pytorch_model.safetensors",
    ),
    ("open_clip_pytorch_model.bin", "open_clip_config.json", "pytorch_model.bin", "config.json"): (
        ["pytorch_model.bin"],
        "model.safetensors",
    ),
}


@pytest.mark.parametrize("names", PICKLED)
def test_pickles_are_never_read_and_the_error_has_the_lines_that_convert_all_of_them(names, tmp_path, monkeypatch):
    """The lines run here with a torch that records what is asked of it; tests/parity.py has the real one."""
    for name in names:
        (tmp_path / name).write_text("{}")
    lines, loaded, saved = remedy(tmp_path), [], []

    def load(file, map_location, weights_only):
        assert weights_only is True
        loaded.append(file)
        return {}

    torch = SimpleNamespace(load=load, serialization=SimpleNamespace(add_safe_globals=lambda _: None))
    monkeypatch.setitem(sys.modules, "torch", torch)
    saver = SimpleNamespace(save_file=lambda _, file: saved.append(file))
    monkeypatch.setitem(sys.modules, "safetensors.torch", saver)
    monkeypatch.setattr(safetensors, "torch", saver, raising=False)
    exec(lines, {})
    assert (loaded, *saved) == PICKLED[names]


OTHER_FORMATS = {
    "model.onnx": "is ONNX",
    "tf_model.h5": "is HDF5 of Keras or TensorFlow",
    "model.gguf": "is GGUF",
    "model.keras": "is Keras's format",
    "saved_model.pb": "is a program of TensorFlow",
    "pytorch_model.bin.index.json": "is an index of pickled shards, which are missing",
}


@pytest.mark.parametrize("has_config", [True, False])
@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_weights_of_another_format_are_named(name, has_config, folder):
    (folder / "model.safetensors").rename(folder / name)
    if not has_config:
        (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=f"/{name}: {OTHER_FORMATS[name]}.*; expected model.safetensors"):
        FlaxViTClsModel.from_pretrained(folder)


def test_a_path_that_is_nowhere(tmp_path):
    with pytest.raises(CheckpointError, match="neither a local folder"):
        FlaxViTClsModel.from_pretrained(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is no weight file"):
        FlaxViTClsModel.from_pretrained(tmp_path / "file")
    with pytest.raises(CheckpointError, match="is a file"):
        tiny_model().save_pretrained(tmp_path / "file")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "/".join(["x" * 200] * 40)], ids=["long", "nul", "deep"])
def test_what_can_be_no_path_is_said_in_a_line(name, folder, model, tmp_path):
    for act in (
        FlaxViTClsModel.from_pretrained,
        lambda path: FlaxViTClsModel.from_pretrained(folder, subfolder=name),
        lambda path: FlaxViTClsModel.from_pretrained(folder, config=path),
        model.save_pretrained,
        lambda path: export_pretrained(model, path, "timm"),
    ):
        for path in (tmp_path / name, Path(name)):
            with pytest.raises(CheckpointError, match="path") as error:
                act(path)
            assert "\n" not in str(error.value)
            assert len(str(error.value)) < 200


def test_a_config_of_another_kind_is_refused(folder):
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "model_type": "bert"}))
    with pytest.raises(CheckpointError, match="model_type='bert' is not supported"):
        FlaxViTClsModel.from_pretrained(folder)


def test_an_error_of_another_backbone_names_the_folder(folder):
    with pytest.raises(CheckpointError, match="differs in the backbone") as error:
        FlaxViTClsModel.from_pretrained(folder, num_register_tokens=1)
    assert str(folder) in str(error.value)


def test_text_that_is_nested_too_deeply_is_one_clear_error(folder, tmp_path):
    deep = "[" * 600 + "]" * 600
    recipe = tmp_path / "deep.yaml"
    recipe.write_text(f"output_dir: o\ndataset_name: digits\nmetrics: {deep}")
    with pytest.raises(ConfigError, match=r"nested too deeply"):
        read_recipe(recipe)
    recipe.write_text(f"output_dir: o\ndataset_name: digits\nconfig_overrides: '{deep}'")
    with pytest.raises(ConfigError, match="config_overrides"):
        read_recipe(recipe).model.overrides  # noqa: B018
    (folder / "recipe.yaml").write_text(f"metrics: {deep}")
    with pytest.raises(CheckpointError, match=r"recipe\.yaml: cannot be read as YAML .*nested too deeply"):
        render_card(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors, folder / "model.safetensors", metadata={"xxh3_128": deep, "stamp": "x"})
    with pytest.raises(CheckpointError, match=r"model\.safetensors: its digests cannot be read"):
        FlaxViTClsForImageClassification.from_pretrained(folder)
