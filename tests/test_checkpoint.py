"""What is saved comes back, what does not fit is refused by name, and nothing is lost on the way."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import pixels, tiny_config, tiny_model
from safetensors.numpy import load_file, save_file
from transformers import AutoImageProcessor

from modeling_vit_cls import (
    CheckpointError,
    ConfigError,
    FlaxAutoModel,
    FlaxAutoModelForImageClassification,
    FlaxViTClsForImageClassification,
    FlaxViTClsModel,
    ViTClsImageProcessor,
    export_pretrained,
)


def assert_same(first, second) -> None:
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second)):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def rewrite(folder, change) -> None:
    """Save the folder's tensors again, changed."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "flax"})


@pytest.mark.parametrize(("size", "limit"), [("5GB", 5 * 10**9), ("4KB", 4000), ("10kiB", 10 * 2**10), (3000, 3000)])
def test_one_file_or_shards_come_back_bit_for_bit(model, tmp_path, size, limit):
    model.save_pretrained(tmp_path, max_shard_size=size)
    shards = {path.name: load_file(path) for path in tmp_path.glob("*.safetensors")}
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
    assert (set(shards) == {"model.safetensors"}) == (whole <= limit)
    assert (tmp_path / "model.safetensors.index.json").exists() == (whole > limit)
    assert all(len(t) == 1 or sum(a.nbytes for a in t.values()) <= limit for t in shards.values())
    for kind in (FlaxAutoModelForImageClassification, FlaxViTClsForImageClassification):
        loaded = kind.from_pretrained(tmp_path)
        assert isinstance(loaded, FlaxViTClsForImageClassification)
        assert_same(loaded.params, model.params)
    np.testing.assert_array_equal(loaded(pixels()).logits, model(pixels()).logits)


def test_files_are_the_ecosystems(folder, model):
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "preprocessor_config.json"}
    config = json.loads((folder / "config.json").read_text())
    assert (config["architectures"], config["model_type"]) == (["ViTClsForImageClassification"], "vit_cls")
    tensors = load_file(folder / "model.safetensors")
    assert tensors["vit_cls.embeddings.cls_token"].shape == (1, 16)
    assert set(tensors) == {".".join(path) for path in model.required_params}
    processor = AutoImageProcessor.from_pretrained(folder)
    assert isinstance(processor, ViTClsImageProcessor)
    assert processor.size == {"height": 8, "width": 8}
    mode = stat.S_IMODE((folder / "model.safetensors").stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    assert mode == 0o666 & ~umask


def test_head_to_base_and_base_to_head(folder, model, tmp_path, caplog):
    base, report = FlaxAutoModel.from_pretrained(folder, output_loading_info=True)
    assert isinstance(base, FlaxViTClsModel)
    assert_same(base.params, model.params["vit_cls"])
    assert report["dropped_keys"] == ["classifier.bias", "classifier.kernel"]
    assert not caplog.records
    base.save_pretrained(tmp_path / "base")
    head, report = FlaxViTClsForImageClassification.from_pretrained(tmp_path / "base", output_loading_info=True)
    assert_same(head.params["vit_cls"], base.params)
    assert report.new_keys == ["classifier.bias", "classifier.kernel"]
    assert "newly drawn, to be trained: classifier.bias, classifier.kernel" in caplog.text


def test_without_init_gives_model_and_params(folder, model):
    loaded, params = FlaxAutoModelForImageClassification.from_pretrained(folder, _do_init=False)
    assert_same(params, model.params)
    with pytest.raises(ValueError, match="_do_init=False"):
        _ = loaded.params
    np.testing.assert_array_equal(loaded(pixels(), params=params).logits, model(pixels()).logits)


@pytest.mark.parametrize("cast", ["to_bf16", "to_fp16"])
def test_half_precision_files_keep_their_type(model, tmp_path, cast):
    params = getattr(model, cast)(model.params)
    model.save_pretrained(tmp_path, params=params)
    assert_same(FlaxViTClsForImageClassification.from_pretrained(tmp_path).params, params)


def test_compute_dtype_is_no_matter_of_the_file(folder, model):
    loaded = FlaxAutoModelForImageClassification.from_pretrained(folder, dtype=jnp.bfloat16)
    assert loaded.dtype == jnp.bfloat16
    assert_same(loaded.params, model.params)
    loaded.save_pretrained(folder)
    assert "dtype" not in json.loads((folder / "config.json").read_text())


def test_loading_draws_no_random_number(folder, monkeypatch):
    def load():
        FlaxViTClsForImageClassification.from_pretrained(folder)
        FlaxViTClsModel.from_pretrained(folder, image_size=16)

    def refuse(*_, **__):
        raise AssertionError("a random number was drawn")

    load()  # shapes are traced once, which names the draws without making them
    module = jax.nn.initializers.truncated_normal.__globals__["random"]  # where the initialisers look the draws up
    for name in ("normal", "truncated_normal", "uniform"):
        monkeypatch.setattr(module, name, refuse)
    load()
    with pytest.raises(AssertionError, match="a random number was drawn"):
        FlaxViTClsForImageClassification(tiny_config())  # the proof that a draw would have been seen


def test_subfolder(folder, model, tmp_path):
    shutil.copytree(folder, tmp_path / "outer" / "inner")
    loaded = FlaxAutoModelForImageClassification.from_pretrained(tmp_path / "outer", subfolder="inner")
    assert_same(loaded.params, model.params)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        FlaxViTClsModel.from_pretrained(tmp_path / "outer")
    with pytest.raises(CheckpointError, match="must lie inside"):
        FlaxViTClsModel.from_pretrained(tmp_path / "outer", subfolder="../checkpoint")


@pytest.mark.parametrize("kind", [FlaxViTClsForImageClassification, FlaxAutoModelForImageClassification])
def test_new_number_of_labels_is_a_new_head_and_nothing_else(folder, model, kind, caplog):
    loaded = kind.from_pretrained(folder, num_labels=3)
    assert_same(loaded.params["vit_cls"], model.params["vit_cls"])
    assert loaded.params["classifier"]["kernel"].shape == (16, 3)
    assert "newly drawn" in caplog.text
    labelled = kind.from_pretrained(folder, id2label={0: "cat", 1: "dog"})
    assert (labelled.config.num_labels, labelled.config.label2id) == (2, {"cat": 0, "dog": 1})


def test_other_readouts_of_one_checkpoint(folder, model):
    mean = FlaxViTClsForImageClassification.from_pretrained(folder, readout="mean")
    assert_same(mean.params, model.params)
    both, report = FlaxViTClsForImageClassification.from_pretrained(
        folder, readout="cls_mean", output_loading_info=True
    )
    assert_same(both.params["vit_cls"], model.params["vit_cls"])
    assert (report.mismatched_keys, report.new_keys) == (
        ["classifier.kernel"],
        ["classifier.bias", "classifier.kernel"],
    )
    assert not (both.params["classifier"]["bias"] == model.params["classifier"]["bias"]).any()
    pooled, report = FlaxViTClsForImageClassification.from_pretrained(folder, readout="map", output_loading_info=True)
    assert all(name.startswith("readout.attention_pooling.") for name in report.new_keys)
    assert_same(pooled.params["classifier"], model.params["classifier"])


def test_other_image_size_interpolates_and_says_so(folder, model, caplog):
    loaded, report = FlaxViTClsForImageClassification.from_pretrained(
        folder, image_size=(12, 16), output_loading_info=True
    )
    assert report.interpolated_keys == ["embeddings.position_embedding.embedding"]
    assert "interpolated to another image or patch size: embeddings.position_embedding.embedding" in caplog.text
    images = pixels(size=(12, 16))
    np.testing.assert_allclose(
        loaded(images).logits, model(images, interpolate_pos_encoding=True).logits, atol=1e-5, rtol=1e-5
    )
    assert loaded.image_processor.size == {"height": 12, "width": 16}


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


def test_pickles_are_never_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: pickled weights are never read"):
        FlaxViTClsModel.from_pretrained(folder)


def test_a_path_that_is_nowhere(tmp_path):
    with pytest.raises(CheckpointError, match="neither a folder here"):
        FlaxViTClsModel.from_pretrained(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is no weight file"):
        FlaxViTClsModel.from_pretrained(tmp_path / "file")
    with pytest.raises(CheckpointError, match="is a file"):
        tiny_model().save_pretrained(tmp_path / "file")


def test_saving_again_replaces_the_weights_and_keeps_the_rest(folder, model):
    (folder / "notes.md").write_text("mine")
    (folder / "modeling_mine.py").write_text("mine")
    (folder / "runs").mkdir()
    (folder / "runs" / "log").write_text("mine")
    model.save_pretrained(folder, max_shard_size="4KB")
    assert not (folder / "model.safetensors").exists()
    model.save_pretrained(folder)
    names = {path.name for path in folder.iterdir()}
    ours = {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert names == ours | {"notes.md", "modeling_mine.py", "runs"}
    assert (folder / "runs" / "log").read_text() == "mine"
    assert {path.name for path in folder.parent.iterdir()} == {"checkpoint"}, "nothing is left beside it"


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


def test_programs_of_the_old_weights_go_with_them(folder, model):
    export_pretrained(model, folder.parent / "program", "stablehlo")
    (folder.parent / "program" / "model.onnx").write_bytes(b"")
    (folder.parent / "program" / "mine.onnx").write_bytes(b"")
    tiny_model(num_labels=3).save_pretrained(folder.parent / "program")
    names = {path.name for path in (folder.parent / "program").iterdir()}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json", "mine.onnx"}


def test_an_image_processor_of_ones_own_is_kept(folder, model):
    ViTClsImageProcessor(size={"height": 8, "width": 8}, image_mean=[0.1, 0.2, 0.3]).save_pretrained(folder)
    model.save_pretrained(folder)
    loaded = FlaxViTClsForImageClassification.from_pretrained(folder)
    assert loaded.image_processor.image_mean == [0.1, 0.2, 0.3]
    loaded.image_processor = ViTClsImageProcessor(size={"height": 8, "width": 8}, image_mean=[0.3, 0.2, 0.1])
    loaded.save_pretrained(folder)
    assert AutoImageProcessor.from_pretrained(folder).image_mean == [0.3, 0.2, 0.1]


def test_a_model_saved_at_another_size_has_a_processor_of_that_size(folder):
    FlaxViTClsForImageClassification.from_pretrained(folder, image_size=16).save_pretrained(folder)
    assert AutoImageProcessor.from_pretrained(folder).size == {"height": 16, "width": 16}
    tiny_model(image_size=12).save_pretrained(folder)
    assert AutoImageProcessor.from_pretrained(folder).size == {"height": 12, "width": 12}
    tiny_model(num_channels=4).save_pretrained(folder)
    assert not (folder / "preprocessor_config.json").exists()


def test_the_same_weights_computed_otherwise_is_said(folder, caplog):
    loaded, report = FlaxViTClsModel.from_pretrained(folder, num_attention_heads=4, output_loading_info=True)
    assert report.changed_fields == ["num_attention_heads"]
    assert "saved with another value of: num_attention_heads" in caplog.text
    assert loaded.config.num_attention_heads == 4
    assert "missing_keys" in report
    assert dict(report)["new_keys"] == []


def test_the_old_name_of_dtype_is_understood(folder):
    assert FlaxViTClsModel.from_pretrained(folder, torch_dtype="bfloat16").dtype == jnp.bfloat16


def test_a_save_that_fails_leaves_the_old_checkpoint(folder, model, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("modeling_vit_cls.checkpoints.writing.save_file", full)
    with pytest.raises(CheckpointError, match="what it held is unchanged"):
        model.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert {path.name for path in folder.parent.iterdir()} == {"checkpoint"}


def test_through_a_symbolic_link_the_link_stays(folder, model):
    link = folder.parent / "link"
    link.symlink_to(folder)
    model.save_pretrained(link)
    assert link.is_symlink()
    assert_same(FlaxViTClsForImageClassification.from_pretrained(link).params, model.params)


def test_parameters_that_are_not_the_models_are_not_saved(model, tmp_path):
    with pytest.raises(ValueError, match="'classifier.bias' is missing"):
        model.save_pretrained(tmp_path, params={**model.params, "classifier": {"kernel": np.zeros((16, 5))}})
    with pytest.raises(ValueError, match=r"has shape \(16, 6\)"):
        model.save_pretrained(tmp_path, params={**model.params, "classifier": {"kernel": np.zeros((16, 6))}})
    with pytest.raises(ValueError, match="is not a parameter"):
        model.save_pretrained(tmp_path, params={**model.params, "more": np.zeros(3)})
    assert not list(tmp_path.iterdir())


def test_a_config_changed_behind_the_model_is_not_saved(tmp_path):
    model = tiny_model()
    model.config.layer_norm_eps = 1e-5
    with pytest.raises(ConfigError, match="when the model was built"):
        model.save_pretrained(tmp_path)


def test_unknown_arguments_are_errors(model, tmp_path):
    with pytest.raises(TypeError, match="repo"):
        model.save_pretrained(tmp_path, repo="x")
    with pytest.raises(ValueError, match="safe_serialization"):
        model.save_pretrained(tmp_path, safe_serialization=False)


def test_another_process_reads_what_this_one_wrote(folder, tmp_path):
    program = (
        "import sys, numpy as np, modeling_vit_cls as v\n"
        "m = v.FlaxAutoModelForImageClassification.from_pretrained(sys.argv[1])\n"
        "np.save(sys.argv[2], m(np.ones((1, 3, 8, 8), np.float32)).logits)\n"
    )
    subprocess.run([sys.executable, "-c", program, folder, tmp_path / "logits.npy"], check=True)
    expected = FlaxViTClsForImageClassification.from_pretrained(folder)(np.ones((1, 3, 8, 8), np.float32)).logits
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-6)


def test_a_config_of_another_kind_is_refused(folder):
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "model_type": "bert"}))
    with pytest.raises(CheckpointError, match="model_type='bert' is no Vision Transformer known here"):
        FlaxViTClsModel.from_pretrained(folder)


def test_the_config_can_be_given(folder, model):
    loaded = FlaxViTClsForImageClassification.from_pretrained(folder, config=tiny_config(readout="mean"))
    assert loaded.config.readout == "mean"
    again = FlaxViTClsForImageClassification.from_pretrained(folder, config=str(folder))
    assert_same(again.params, model.params)


@pytest.mark.parametrize("why", ["working directory", "no exchange", "parent cannot be written"])
def test_where_folders_cannot_be_exchanged_files_are(folder, model, monkeypatch, why):
    (folder / "notes.md").write_text("mine")
    model.save_pretrained(folder, max_shard_size="4KB")
    inode = folder.stat().st_ino
    if why == "working directory":
        monkeypatch.chdir(folder)
        model.save_pretrained(".")
    elif why == "parent cannot be written":
        make = tempfile.mkdtemp

        def refuse(prefix="", dir=None):
            if Path(dir) == folder.parent:
                raise PermissionError(13, "Permission denied")
            return make(prefix=prefix, dir=dir)

        monkeypatch.setattr("tempfile.mkdtemp", refuse)
        model.save_pretrained(folder)
    else:
        monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
        model.save_pretrained(folder)
    assert folder.stat().st_ino == inode
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json", "notes.md"}
    assert_same(FlaxViTClsForImageClassification.from_pretrained(folder).params, model.params)
    assert {path.name for path in folder.parent.iterdir()} == {"checkpoint"}


def test_float64_files_are_read_as_float32(folder, model):
    rewrite(folder, lambda t: t.update({name: tensor.astype(np.float64) for name, tensor in t.items()}))
    assert_same(FlaxViTClsForImageClassification.from_pretrained(folder).params, model.params)


def test_an_error_of_another_backbone_names_the_folder(folder):
    with pytest.raises(CheckpointError, match="differs in the backbone") as error:
        FlaxViTClsModel.from_pretrained(folder, num_register_tokens=1)
    assert str(folder) in str(error.value)
