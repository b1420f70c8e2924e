"""Families close to ViT, DINOv2 and CLIP: what they have otherwise, in whole models and in files of either version."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import read_npz
from safetensors.numpy import load_file, save_file
from test_families import compare, golden, load
from transformers import AutoConfig

from modeling_vit_cls import CheckpointError, FlaxViTClsForImageClassification, FlaxViTClsModel, export_pretrained
from modeling_vit_cls.families.open import open_checkpoint

pytestmark = pytest.mark.world


def changed(name: str, folder: Path, rename: tuple[tuple[str, str], ...] = (), **fields: Any) -> Path:
    """A golden folder with other fields, and with parts of tensor names replaced."""
    told = json.loads((golden(name) / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, **fields}))
    tensors = {}
    for key, tensor in load_file(golden(name) / "model.safetensors").items():
        for old, new in rename:
            key = key.replace(old, new)
        tensors[key] = tensor
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def assert_same_numbers(folder: Path, name: str) -> None:
    model, expected = FlaxViTClsModel.from_pretrained(folder), read_npz(golden(name) / "expected.npz")
    outputs = model(expected["native.pixels"], output_hidden_states=True)
    compare(outputs.hidden_states[1], expected["native.block"], 1e-5, "block")


IN_MEMORY_OF_5 = (
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
    ("encoder.layer.", "layers."),
)
WHERE_ELSE = {
    "vit_msn": IN_MEMORY_OF_5,
    "ijepa": IN_MEMORY_OF_5,
    "vit_mae": (*IN_MEMORY_OF_5, ("vit.", "")),
    "pixio": (*IN_MEMORY_OF_5, ("norm1", "layernorm_before"), ("norm2", "layernorm_after")),
    "metaclip2": (("vision_model.", ""),),
    "tipsv2_giant": (("blocks.", "vision_encoder.blocks."), ("cls_token", "vision_encoder.cls_token")),
}


@pytest.mark.parametrize("name", WHERE_ELSE)
def test_each_spelling_of_the_names_gives_the_same_numbers(name, tmp_path):
    assert_same_numbers(changed(name, tmp_path, WHERE_ELSE[name]), name)


def test_pixios_checkpoints_have_the_names_of_dinov2(tmp_path):
    names = (
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
        ("attention.mlp.fc2", "attention.output.dense"),
    )
    assert_same_numbers(changed("pixio", tmp_path, names), "pixio")


def test_what_each_family_reads_out():
    assert load(golden("pixio"))[0].config.num_cls_tokens == 3
    for name, cls, readout in (("vit_mae", True, "cls"), ("ijepa", False, "mean"), ("vitpose", False, "mean")):
        config = load(golden(name))[0].config
        assert (config.use_cls_token, config.readout) == (cls, readout)


def test_a_whole_vitpose_is_its_backbone_and_the_head_is_left_over(tmp_path, caplog):
    backbone = json.loads((golden("vitpose") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vitpose", "backbone_config": backbone}))
    tensors = load_file(golden("vitpose") / "model.safetensors")
    whole = {f"backbone.{name}": tensor for name, tensor in tensors.items()}
    whole["head.conv.weight"] = np.zeros((2, 24, 3, 3), np.float32)
    save_file(whole, tmp_path / "model.safetensors", {"format": "pt"})
    assert_same_numbers(tmp_path, "vitpose")
    assert "head.conv.weight" in caplog.text
    for other in (None, {}, {"model_type": "resnet"}):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "vitpose", "backbone_config": other}))
        with pytest.raises(CheckpointError, match="backbone_config is not that of a vitpose_backbone"):
            open_checkpoint(tmp_path)


def test_vitposes_experts_are_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match="num_experts=6 cannot be loaded"):
        open_checkpoint(changed("vitpose", tmp_path, num_experts=6))


def test_the_position_of_vitposes_cls_is_in_that_of_each_patch():
    table = load_file(golden("vitpose") / "model.safetensors")["embeddings.position_embeddings"]
    ours = load(golden("vitpose"))[0].params["embeddings"]["position_embedding"]["embedding"]
    np.testing.assert_array_equal(ours, table[0, 1:] + table[0, :1])


OTHERS = {"hidden_act": "gelu", "layer_norm_eps": 1e-3}


@pytest.mark.parametrize(
    ("whole", "read"),
    [
        (lambda tower: {"vision_config": tower | OTHERS, "vision_config_dict": tower}, {}),
        (lambda tower: {"vision_config": tower, "vision_config_dict": tower | OTHERS}, OTHERS),
        (lambda tower: {"vision_config": None, "vision_config_dict": tower | OTHERS}, OTHERS),
        (lambda tower: {"vision_config_dict": tower | OTHERS}, OTHERS),
        (lambda tower: {"vision_config": tower | OTHERS, "vision_config_dict": None}, OTHERS),
    ],
)
@pytest.mark.parametrize(("name", "kind"), [("clip", "clip"), ("metaclip2", "metaclip_2")])
def test_the_vision_config_dict_of_old_clips_counts_as_in_transformers(whole, read, name, kind, tmp_path):
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
    tower = json.loads((golden(name) / "config.json").read_text())
    fields = {"model_type": kind, **whole({size: tower[size] for size in sizes})}
    shutil.copy(golden(name) / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    config, theirs = open_checkpoint(tmp_path).config, AutoConfig.from_pretrained(tmp_path).vision_config
    assert (config.hidden_act, config.layer_norm_eps) == (theirs.hidden_act, theirs.layer_norm_eps)
    assert {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5} | read == {
        "hidden_act": config.hidden_act,
        "layer_norm_eps": config.layer_norm_eps,
    }


@pytest.mark.parametrize("name", ["clip", "siglip", "siglip2", "tipsv2"])
@pytest.mark.parametrize("absent", [{}, {"vision_config": None}, {"vision_config": {}}])
def test_a_whole_model_without_a_vision_config_has_the_defaults_of_its_tower(name, absent, tmp_path):
    shutil.copy(golden(name) / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name, "hidden_size": 24, **absent}))
    assert open_checkpoint(tmp_path).config.hidden_size == 768


def test_tipsv2_scales_pixels_and_does_not_normalise_them(tmp_path):
    processor = load(golden("tipsv2"))[0].image_processor
    image = np.full((20, 30, 3), 51, np.uint8)
    np.testing.assert_allclose(processor(image)["pixel_values"], np.full((1, 3, 16, 16), 0.2), rtol=1e-6)
    assert processor.resample == 2
    for file in ("config.json", "model.safetensors"):
        shutil.copy(golden("tipsv2") / file, tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({"image_processor_type": "Tipsv2ImageProcessor", "size": {"height": 24, "width": 24}}))
    processor = FlaxViTClsModel.from_pretrained(tmp_path).image_processor
    assert (processor.do_normalize, processor.size["height"]) == (False, 24)


def test_an_mlp_of_any_width_goes_out_as_tipsv2(tmp_path):
    model = load(golden("tipsv2"))[0]
    assert model.config.intermediate_size == int(24 * 1.34)
    export_pretrained(model, tmp_path / "out", "transformers")
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    assert int(24 * fields["mlp_ratio"]) == model.config.intermediate_size
    head = FlaxViTClsForImageClassification.from_pretrained(golden("tipsv2"), num_labels=2)
    with pytest.raises(ValueError, match="no classifier on TIPSv2"):
        export_pretrained(head, tmp_path / "head", "transformers")
