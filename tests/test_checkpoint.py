"""What is saved comes back, in this process and another, and as what else it was asked for."""

import json
import os
import shutil
import stat
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same, pixels, rewrite, tiny_config
from safetensors.numpy import load_file
from transformers import AutoImageProcessor

from modeling_vit_cls import (
    CheckpointError,
    FlaxAutoModel,
    FlaxAutoModelForImageClassification,
    FlaxViTClsForImageClassification,
    FlaxViTClsModel,
    ViTClsImageProcessor,
)

pytestmark = pytest.mark.world


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
    with pytest.raises(CheckpointError, match="must be inside"):
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


def test_the_same_weights_computed_otherwise_is_said(folder, caplog):
    loaded, report = FlaxViTClsModel.from_pretrained(folder, num_attention_heads=4, output_loading_info=True)
    assert report.changed_fields == ["num_attention_heads"]
    assert "saved with another value of: num_attention_heads" in caplog.text
    assert loaded.config.num_attention_heads == 4
    assert "missing_keys" in report
    assert dict(report)["new_keys"] == []
    _, report = FlaxViTClsModel.from_pretrained(folder, readout="mean", output_loading_info=True)
    assert report.changed_fields == ["readout"]


def test_the_old_name_of_dtype_is_understood(folder):
    assert FlaxViTClsModel.from_pretrained(folder, torch_dtype="bfloat16").dtype == jnp.bfloat16


def test_another_process_reads_what_this_one_wrote(folder, tmp_path):
    program = (
        "import sys, numpy as np, modeling_vit_cls as v\n"
        "m = v.FlaxAutoModelForImageClassification.from_pretrained(sys.argv[1])\n"
        "np.save(sys.argv[2], m(np.ones((1, 3, 8, 8), np.float32)).logits)\n"
    )
    subprocess.run([sys.executable, "-c", program, folder, tmp_path / "logits.npy"], check=True)
    expected = FlaxViTClsForImageClassification.from_pretrained(folder)(np.ones((1, 3, 8, 8), np.float32)).logits
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-6)


def test_the_config_can_be_given(folder, model):
    loaded = FlaxViTClsForImageClassification.from_pretrained(folder, config=tiny_config(readout="mean"))
    assert loaded.config.readout == "mean"
    again = FlaxViTClsForImageClassification.from_pretrained(folder, config=str(folder))
    assert_same(again.params, model.params)


def test_float64_files_are_read_as_float32(folder, model):
    rewrite(folder, lambda t: t.update({name: tensor.astype(np.float64) for name, tensor in t.items()}))
    assert_same(FlaxViTClsForImageClassification.from_pretrained(folder).params, model.params)
