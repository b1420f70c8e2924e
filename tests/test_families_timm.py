"""timm's config.json: the architecture's name and model_args say what is built; what is not known is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file
from test_families import golden

from modeling_vit_cls import CheckpointError, FlaxViTClsForImageClassification, FlaxViTClsModel


def with_config(name: str, folder: Path, arguments: dict[str, Any] | None = None, **fields: Any) -> Path:
    """A golden folder's weights beside its config.json with other fields, or other `model_args`."""
    told = json.loads((golden(name) / "config.json").read_text())
    told |= {**fields, "model_args": {**told["model_args"], **(arguments or {})}}
    shutil.copy(golden(name) / "model.safetensors", folder)
    (folder / "config.json").write_text(json.dumps(told))
    return folder


def test_an_architecture_of_timm_with_another_block_is_refused(tmp_path):
    fields = json.loads((golden("timm_vit") / "config.json").read_text())
    shutil.copy(golden("timm_vit") / "model.safetensors", tmp_path)
    for name in ("vit_base_patch16_rpn_224", "vit_small_patch16_18x2_224", "resnet50"):
        (tmp_path / "config.json").write_text(json.dumps({**fields, "architecture": name}))
        with pytest.raises(CheckpointError, match=f"architecture='{name}' is not one of timm's plain"):
            FlaxViTClsModel.from_pretrained(tmp_path)


def test_arguments_of_timm_are_read_or_refused(tmp_path):
    fields = json.loads((golden("timm_vit") / "config.json").read_text())
    shutil.copy(golden("timm_vit") / "model.safetensors", tmp_path)
    for given, act in (("gelu_tanh", "gelu_pytorch_tanh"), (None, "gelu")):
        arguments = {**fields["model_args"], "act_layer": given}
        (tmp_path / "config.json").write_text(json.dumps({**fields, "model_args": arguments}))
        assert FlaxViTClsModel.from_pretrained(tmp_path).config.hidden_act == act
    for name, value in (("norm_layer", "rmsnorm"), ("mlp_layer", "swiglu"), ("qk_norm", True)):
        arguments = {**fields["model_args"], name: value}
        (tmp_path / "config.json").write_text(json.dumps({**fields, "model_args": arguments}))
        with pytest.raises(CheckpointError, match=f"model_args: {name}={value!r} is not supported"):
            FlaxViTClsModel.from_pretrained(tmp_path)


CONTRADICTED = [  # golden checkpoint, model_args that build another model -> the tensor that shows it
    ("timm_vit", {"depth": 3}, "encoder.layer_02"),
    ("timm_vit", {"init_values": 1e-5}, "layer_scale1"),
    ("timm_vit", {"pre_norm": True}, "patch_embed.proj.bias"),
    ("timm_vit", {"qkv_bias": False}, "blocks.0.attn.qkv.bias"),
    ("timm_vit", {"reg_tokens": 4}, "register_tokens"),
    ("timm_vit", {"no_embed_class": True}, "pos_embed"),
    ("timm_vit", {"class_token": False}, "cls_token"),
    ("timm_vit", {"global_pool": "avg"}, "norm.weight', but timm builds fc_norm"),
    ("timm_vit", {"global_pool": "max"}, "global_pool='max' is not supported, only 'token', 'avg', 'map', ''"),
    ("timm_deit_distilled", {"global_pool": "avg"}, "global_pool='avg': timm's distilled models have 'token' alone"),
    ("timm_registers_gap", {"fc_norm": False}, "fc_norm.weight', but timm builds norm"),
    ("timm_deit3", {"init_values": None}, "blocks.0.ls1.gamma"),
    ("timm_clip", {"pre_norm": False}, "norm_pre"),
    ("timm_dinov3", {"qkv_bias": False}, "blocks.0.attn.q_bias"),
    ("timm_dinov3", {"num_reg_tokens": 3}, "reg_token"),
    ("timm_dinov3_gated", {"swiglu_mlp": False}, "mlp.fc1_g"),
]


@pytest.mark.parametrize(("name", "arguments", "tensor"), CONTRADICTED)
def test_tensors_are_held_to_what_model_args_build(name, arguments, tensor, tmp_path):
    with pytest.raises(CheckpointError, match=f"{tmp_path}.*{tensor}"):
        FlaxViTClsModel.from_pretrained(with_config(name, tmp_path, arguments))


def test_depth_and_layer_scale_come_from_the_name_where_model_args_do_not_say(tmp_path):
    fields = json.loads((golden("timm_deit3") / "config.json").read_text())
    shutil.copy(golden("timm_deit3") / "model.safetensors", tmp_path)
    for argument in ("depth", "num_heads"):
        del fields["model_args"][argument]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match="layer_02.* and .* more missing"):  # of 12 blocks the file has two
        FlaxViTClsModel.from_pretrained(tmp_path)


def test_the_pooling_is_the_one_that_timm_builds_whatever_stands_beside_it_for_information(tmp_path):
    folder = with_config("timm_dinov3", tmp_path, {"global_pool": "token"}, global_pool="avg")
    assert FlaxViTClsModel.from_pretrained(folder).config.readout == "cls"
    folder = with_config("timm_vit", tmp_path, global_pool="avg")
    assert FlaxViTClsModel.from_pretrained(folder).config.readout == "cls"


def test_a_head_is_there_or_not_as_num_classes_says(tmp_path):
    tensors = load_file(golden("timm_vit") / "model.safetensors")
    headless = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
    folder = with_config("timm_vit", tmp_path)
    save_file(headless, folder / "model.safetensors")
    for kind in (FlaxViTClsModel, FlaxViTClsForImageClassification):
        with pytest.raises(CheckpointError, match="model.safetensors: tensor 'classifier.bias' and 1 more missing"):
            kind.from_pretrained(folder)
    folder = with_config("timm_vit", tmp_path, {"num_classes": 0}, num_classes=0)
    with pytest.raises(
        CheckpointError, match="tensor 'head.(weight|bias)' does not belong to the model of config.json"
    ):
        FlaxViTClsModel.from_pretrained(folder)
    save_file(headless, folder / "model.safetensors")
    FlaxViTClsModel.from_pretrained(folder)
    _, report = FlaxViTClsForImageClassification.from_pretrained(folder, num_labels=3, output_loading_info=True)
    assert report.new_keys == ["classifier.bias", "classifier.kernel"]  # of a backbone that says it is one


def test_where_timm_would_draw_a_new_head_nothing_is_loaded(tmp_path):
    with pytest.raises(CheckpointError, match="num_classes=7, but model_args has 5: timm would draw a new head"):
        FlaxViTClsModel.from_pretrained(with_config("timm_vit", tmp_path, num_classes=7))
    for wrong in (-1, None, "5"):
        folder = with_config("timm_vit", tmp_path, {"num_classes": wrong}, num_classes=wrong)
        with pytest.raises(CheckpointError, match="num_classes"):
            FlaxViTClsModel.from_pretrained(folder)


@pytest.mark.parametrize("name", ["timm_vit", "timm_dinov2", "timm_siglip", "timm_registers_gap", "timm_clip"])
def test_without_a_config_timm_is_taken_for_no_other_library_in_silence(name, tmp_path, caplog):
    tensors = load_file(golden(name) / "model.safetensors")
    file = tmp_path / "m.safetensors"
    save_file({key: tensor for key, tensor in tensors.items() if not key.startswith("head")}, file)
    if name in ("timm_vit", "timm_dinov2"):  # the same names, and the same numbers at the size of the file
        FlaxViTClsModel.from_pretrained(file)
        assert "without a config.json, read as Meta's DINO" in caplog.text
        assert '{"architecture": "vit_...", "num_classes": 0}' in caplog.text
    else:
        with pytest.raises(CheckpointError):
            FlaxViTClsModel.from_pretrained(file)


@pytest.mark.parametrize("name", ["meta_dinov2", "meta_dinov2_giant", "meta_dinov2_registers", "meta_dinov3"])
def test_metas_own_names_are_taken_without_a_warning(name, caplog):
    FlaxViTClsModel.from_pretrained(golden(name))
    assert "without a config.json" not in caplog.text
