"""timm's config.json: the architecture's name and model_args say what is built; what is not known is refused."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import read_npz
from safetensors.numpy import load_file, save_file
from test_families import compare, golden

from modeling_vit_cls import (
    CheckpointError,
    ConfigError,
    FlaxAutoModel,
    FlaxAutoModelForImageClassification,
    FlaxViTClsForImageClassification,
    FlaxViTClsModel,
    check_pretrained,
)
from modeling_vit_cls.families import family_of
from modeling_vit_cls.families.timm_architectures import (
    _DEFAULTS,
    _ROWS,
    ARCHITECTURES,
    _alternatives,
    present_name,
)


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


HARMLESS = {
    "qk_norm": False,
    "scale_attn_norm": False,
    "scale_mlp_norm": False,
    "proj_bias": True,
    "pos_embed": "learn",
}
HARMLESS |= {"dynamic_img_pad": False, "embed_norm_layer": None, "fix_init": True}


def test_arguments_with_the_value_that_they_have_anyway_change_nothing(tmp_path):
    model = FlaxViTClsForImageClassification.from_pretrained(with_config("timm_vit", tmp_path, HARMLESS))
    assert (
        model.config.to_dict() == FlaxViTClsForImageClassification.from_pretrained(golden("timm_vit")).config.to_dict()
    )
    for name, value in (("pos_embed", "none"), ("proj_bias", False), ("dynamic_img_pad", True)):
        with pytest.raises(CheckpointError, match=f"model_args: {name}={value!r} is not supported"):
            FlaxViTClsModel.from_pretrained(with_config("timm_vit", tmp_path, {name: value}))


@pytest.mark.parametrize("name", ["timm_vit", "timm_siglip"])
def test_a_backbone_of_timm_that_pools_nothing_is_read_by_its_token_or_else_their_mean(name, tmp_path):
    tensors = load_file(golden(name) / "model.safetensors")
    folder = with_config(name, tmp_path, {"global_pool": "", "num_classes": 0}, num_classes=0)
    kept = {key: tensor for key, tensor in tensors.items() if not key.startswith(("head", "attn_pool"))}
    save_file(kept, folder / "model.safetensors")
    outputs = FlaxViTClsModel.from_pretrained(folder)(read_npz(golden(name) / "expected.npz")["native.pixels"])
    tokens = np.asarray(outputs.last_hidden_state)
    expected = tokens[:, 0] if name == "timm_vit" else tokens.mean(axis=1)
    np.testing.assert_allclose(outputs.pooler_output, expected, atol=1e-5)


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


PRESENT = {  # a name with a tag, or an old one: the present one without a tag
    "vit_base_patch16_224.augreg_in21k_ft_in1k": "vit_base_patch16_224",
    "vit_base_patch16_224_in21k": "vit_base_patch16_224",
    "vit_small_patch8_224_dino": "vit_small_patch8_224",
    "vit_base_patch16_224_miil_in21k": "vit_base_patch16_224_miil",
    "vit_huge_patch14_224_clip_laion2b": "vit_huge_patch14_clip_224",
    "deit3_base_patch16_384_in21ft1k": "deit3_base_patch16_384",
    "flexivit_base.1200ep_in1k": "flexivit_base",
}


@pytest.mark.parametrize("name", PRESENT)
def test_a_tag_and_an_old_name_mean_the_present_one(name):
    assert present_name(name) == PRESENT[name]
    assert PRESENT[name] in ARCHITECTURES
    assert family_of({"architecture": name}, "config.json").name.startswith("timm")


def test_each_name_means_one_row_of_the_table_and_each_argument_is_one_of_timms():
    names = [name for patterns, _ in _ROWS for pattern in patterns.split() for name in _alternatives(pattern)]
    assert len(names) == len(set(names)) == len(ARCHITECTURES) == 179
    assert {frozenset(built) for built in ARCHITECTURES.values()} == {frozenset([*_DEFAULTS, "depth", "num_heads"])}


@pytest.mark.parametrize("side", [2, 6, 8])
def test_flexivit_takes_patches_of_any_size(side):
    golden_sizes = read_npz(golden("timm_flexivit") / "patch_sizes.npz")
    keywords = {"patch_size": side, "image_size": (24, 48)}
    model = FlaxViTClsForImageClassification.from_pretrained(golden("timm_flexivit"), **keywords)
    outputs = model(golden_sizes["pixels"], output_hidden_states=True)
    compare(outputs.hidden_states[0], golden_sizes[f"{side}.embeddings"], 1e-4, "embeddings")
    compare(outputs.logits, golden_sizes[f"{side}.logits"], 1e-4, "logits")


def named_only(name: str, folder: Path, architecture: str | None = None) -> Path:
    """A golden folder whose config.json names the architecture and the image size, as those of pathology's models."""
    told = json.loads((golden(name) / "config.json").read_text())
    told["pretrained_cfg"]["input_size"] = [3, 16, 16]
    del told["model_args"]
    (folder / "config.json").write_text(json.dumps(told | {"architecture": architecture or told["architecture"]}))
    shutil.copy(golden(name) / "model.safetensors", folder)
    return folder


@pytest.mark.parametrize("architecture", ["vit_huge_patch14_224", "vit_base_patch14_reg4_dinov2"])
def test_keywords_describe_a_checkpoint_where_its_name_does_not(architecture, tmp_path, caplog):
    folder, expected = named_only("timm_virchow", tmp_path, architecture), read_npz(golden("timm_virchow/expected.npz"))
    model, report = FlaxViTClsModel.from_pretrained(folder, num_attention_heads=3, output_loading_info=True)
    outputs = model(expected["native.pixels"])
    compare(outputs.last_hidden_state, expected["native.last_hidden_state"], 1e-5, "last_hidden_state")
    assert (model.config.num_hidden_layers, model.config.num_register_tokens, model.config.mlp) == (2, 4, "swiglu")
    (note,) = [note for note in report.config_notes if note.startswith("num_hidden_layers")]
    assert note.startswith(f"num_hidden_layers=2 by its tensors, where {architecture} has ")
    assert note in caplog.text
    assert report.changed_fields == report.new_keys == report.missing_keys == []
    model.save_pretrained(tmp_path / "ours")
    again = FlaxViTClsModel.from_pretrained(tmp_path / "ours")
    np.testing.assert_array_equal(again(expected["native.pixels"]).pooler_output, outputs.pooler_output)


def test_a_check_with_the_keywords_of_a_load_tells_the_same(tmp_path):
    folder = named_only("timm_virchow", tmp_path, "vit_huge_patch14_224")
    alone, described = check_pretrained(folder), check_pretrained(folder, num_attention_heads=3)
    assert (alone.loads, described.loads) == (False, True)
    assert "num_attention_heads=16" in str(alone.problem)
    assert any("num_hidden_layers=2 by its tensors" in note for note in described.notes)
    with pytest.raises(ConfigError, match="patch_size=8: needs the numbers of the weights"):
        check_pretrained(folder, patch_size=8)


def test_without_keywords_a_name_is_taken_at_its_word_and_the_error_tells_what_the_tensors_show(tmp_path):
    folder = named_only("timm_virchow", tmp_path, "vit_small_patch16_224")  # whose width has so many heads
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, "model_args": {"num_heads": 3}}))
    with pytest.raises(CheckpointError) as error:
        FlaxViTClsModel.from_pretrained(folder)
    assert re.search(
        "by its tensors the model has .*num_register_tokens=4, num_hidden_layers=2: if it", str(error.value)
    )
    assert "give them to from_pretrained" in str(error.value)


CONTRADICTIONS = {  # a keyword -> the tensor that shows another value
    "num_hidden_layers": (3, "blocks.1.norm1.weight"),
    "num_register_tokens": (8, "reg_token"),
    "hidden_size": (48, "patch_embed.proj.weight"),
    "intermediate_size": (96, "blocks.0.mlp.fc1.weight"),
    "num_channels": (1, "patch_embed.proj.weight"),
    "layer_scale_init_value": (None, "blocks.0.ls1.gamma"),
    "use_cls_token": (False, "cls_token"),
    "qkv_bias": (False, "blocks.0.attn.qkv.bias"),
    "patch_bias": (False, "patch_embed.proj.bias"),
    "pre_norm": (True, "pre_norm.scale"),
    "mlp": ("mlp", "blocks.0.mlp.fc1.weight"),
    "use_distillation_token": (True, "embeddings.distillation_token"),
}


@pytest.mark.parametrize("field", CONTRADICTIONS)
def test_a_keyword_that_the_tensors_contradict_is_named_with_the_tensor(field, tmp_path):
    value, tensor = CONTRADICTIONS[field]
    folder = named_only("timm_virchow", tmp_path)
    keywords = {"num_attention_heads": 3, "readout": "mean", field: value}
    with pytest.raises(CheckpointError, match=f"{field}={value!r}: .*'{tensor}'"):
        FlaxViTClsModel.from_pretrained(folder, **keywords)
    with pytest.raises(CheckpointError, match=f"{field}={value!r}: .*'{tensor}'"):  # with a whole config.json too
        FlaxViTClsModel.from_pretrained(golden("timm_virchow"), **keywords)


@pytest.mark.parametrize("change", [{"position_embedding_tokens": "patches"}, {"position_embedding": "none"}])
def test_what_another_table_of_positions_would_need_is_named_too(change, tmp_path):
    with pytest.raises(CheckpointError) as error:
        FlaxViTClsModel.from_pretrained(golden("timm_virchow"), num_attention_heads=3, **change)
    ((field, value),) = change.items()
    assert "tensor 'embeddings.position_embedding.embedding'" in str(error.value)
    assert f"(changed: {field}={value!r})" in str(error.value)


def test_a_wrong_value_of_a_keyword_is_the_keywords_fault(tmp_path):
    folder = named_only("timm_virchow", tmp_path)
    for field, value in (("num_hidden_layers", "many"), ("num_register_tokens", -1), ("num_attention_heads", 0)):
        keywords = {"num_attention_heads": 3, "num_hidden_layers": 2, field: value}
        with pytest.raises(ConfigError, match=f"{field}={value!r}: must be an integer"):
            FlaxViTClsModel.from_pretrained(folder, **keywords)


def test_positions_belong_to_the_image_size_that_a_user_gives_where_they_fit_no_other(tmp_path):
    folder = named_only("timm_virchow", tmp_path)
    told = json.loads((folder / "config.json").read_text())
    told["pretrained_cfg"]["input_size"] = [3, 224, 224]
    (folder / "config.json").write_text(json.dumps(told))
    model = FlaxViTClsModel.from_pretrained(folder, num_attention_heads=3, image_size=16)
    pixels = read_npz(golden("timm_virchow") / "expected.npz")["native.pixels"]
    want = read_npz(golden("timm_virchow") / "expected.npz")["native.last_hidden_state"]
    compare(model(pixels).last_hidden_state, want, 1e-5, "last_hidden_state")
    with pytest.raises(CheckpointError, match="'pos_embed' has shape"):
        FlaxViTClsModel.from_pretrained(folder, num_attention_heads=3, image_size=24)


def test_positions_of_registers_are_added_in_full_precision(tmp_path):
    tensors = load_file(golden("timm_so150m") / "model.safetensors")
    shutil.copy(golden("timm_so150m") / "config.json", tmp_path)
    half = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    save_file(half, tmp_path / "model.safetensors")
    embeddings = FlaxViTClsModel.from_pretrained(tmp_path).params["embeddings"]
    want = half["reg_token"][0].astype(np.float32) + half["pos_embed"][0, :4].astype(np.float32)
    np.testing.assert_array_equal(embeddings["register_tokens"], want)
    np.testing.assert_array_equal(embeddings["position_embedding"]["embedding"], half["pos_embed"][0, 4:])


def wrapped(name: str, folder: Path, kind: str, **fields: Any) -> Path:
    """A golden folder as transformers writes a model of timm: the names have a prefix, and config.json has labels."""
    told = json.loads((golden(name) / "config.json").read_text())
    del told["model_args"]["num_classes"]
    told |= {"model_type": "timm_wrapper", "architectures": [kind], "do_pooling": True, "initializer_range": 0.02}
    (folder / "config.json").write_text(json.dumps(told | fields))
    tensors = load_file(golden(name) / "model.safetensors")
    tensors = {name: tensor for name, tensor in tensors.items() if kind != "TimmWrapperModel" or "head" not in name}
    save_file({f"timm_model.{name}": tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


@pytest.mark.world
@pytest.mark.parametrize("name", ["timm_vit", "timm_dinov3", "timm_deit3"])
def test_timm_inside_transformers_loads(name, tmp_path):
    expected, labels = read_npz(golden(name) / "expected.npz"), ["ant", "bee", "cat", "dog", "eel"]
    told = {"label_names": labels, "problem_type": "multi_label_classification"}
    folder = wrapped(name, tmp_path, "TimmWrapperForImageClassification", **told)
    model = FlaxAutoModelForImageClassification.from_pretrained(folder)
    compare(model(expected["native.pixels"]).logits, expected["native.logits"], 1e-5, "logits")
    assert model.config.id2label == dict(enumerate(labels))
    assert model.config.problem_type == "multi_label_classification"
    folder = wrapped(name, tmp_path, "TimmWrapperModel", num_classes=1000)  # whose num_classes means nothing
    assert isinstance(FlaxAutoModel.from_pretrained(folder), FlaxViTClsModel)
    for architecture in ("resnet50", "vit_base_patch16_rpn_224"):
        folder = wrapped(name, tmp_path, "TimmWrapperModel", architecture=architecture)
        with pytest.raises(CheckpointError, match=f"architecture='{architecture}' is not one of timm's plain"):
            FlaxAutoModel.from_pretrained(folder)
    folder = wrapped(name, tmp_path, "TimmWrapperModel", model_args={"features_only": True})
    with pytest.raises(CheckpointError, match="model_args: features_only=True is not supported"):
        FlaxAutoModel.from_pretrained(folder)


@pytest.mark.parametrize("name", ["meta_dinov2", "meta_dinov2_giant", "meta_dinov2_registers", "meta_dinov3"])
def test_metas_own_names_are_taken_without_a_warning(name, caplog):
    FlaxViTClsModel.from_pretrained(golden(name))
    assert "without a config.json" not in caplog.text
