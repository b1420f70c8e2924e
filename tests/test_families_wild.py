"""Other libraries' checkpoints as people have them: other class names, spare tensors, poolers, names of long ago."""

import builtins
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import arrays, assert_same, read_npz
from safetensors.numpy import load_file, save_file
from test_families import golden

from modeling_vit_cls import (
    CheckpointError,
    FlaxAutoModelForImageClassification,
    FlaxViTClsForImageClassification,
    FlaxViTClsModel,
    export_pretrained,
)
from modeling_vit_cls.families import family_of

pytestmark = pytest.mark.world


def changed(
    name: str, folder: Path, more: dict[str, np.ndarray] | None = None, without: str = "", **fields: Any
) -> Path:
    """A golden folder with more tensors, without those that begin with a word, and with other fields."""
    told = json.loads((golden(name) / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, **fields}))
    tensors = load_file(golden(name) / "model.safetensors")
    tensors = {key: tensor for key, tensor in tensors.items() if not without or not key.startswith(without)}
    save_file({**tensors, **(more or {})}, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_pooler_is_the_backbones_and_no_classifiers(tmp_path):
    backbone = FlaxViTClsModel.from_pretrained(golden("vit_pooler"))
    model, report = FlaxViTClsForImageClassification.from_pretrained(
        golden("vit_pooler"), num_labels=3, output_loading_info=True
    )
    assert backbone.config.representation_size is not None
    assert model.config.representation_size is None
    assert sorted(report.dropped_keys) == ["representation.bias", "representation.kernel"]
    pixels = read_npz(golden("vit_pooler") / "expected.npz")["native.pixels"]
    head, token = arrays(model.params["classifier"]), np.asarray(backbone(pixels).last_hidden_state[:, 0])
    np.testing.assert_allclose(model(pixels).logits, token @ head["kernel"] + head["bias"], atol=1e-5)
    for kind in (FlaxAutoModelForImageClassification, FlaxViTClsForImageClassification):
        assert kind.from_pretrained(golden("vit_pooler")).config.representation_size is None
    export_pretrained(model, tmp_path / "theirs", "transformers")
    again = FlaxViTClsForImageClassification.from_pretrained(tmp_path / "theirs")
    np.testing.assert_array_equal(again(pixels).logits, model(pixels).logits)


def test_a_pooler_that_lies_beside_a_classifier_is_not_computed(tmp_path):
    pooler = {
        "vit.pooler.dense.weight": np.ones((24, 24), np.float32),
        "vit.pooler.dense.bias": np.ones(24, np.float32),
    }
    folder = changed("vit", tmp_path, pooler)
    model, report = FlaxViTClsForImageClassification.from_pretrained(folder, output_loading_info=True)
    plain = FlaxViTClsForImageClassification.from_pretrained(golden("vit"))
    pixels = read_npz(golden("vit") / "expected.npz")["native.pixels"]
    np.testing.assert_array_equal(model(pixels).logits, plain(pixels).logits)
    assert sorted(report.dropped_keys) == ["representation.bias", "representation.kernel"]


def test_a_pooler_can_be_left_out_and_can_be_asked_for():
    without = FlaxViTClsModel.from_pretrained(golden("vit_pooler"), add_pooling_layer=False)
    assert without.config.representation_size is None
    width = FlaxViTClsModel.from_pretrained(golden("vit_pooler")).config.representation_size
    model, report = FlaxViTClsForImageClassification.from_pretrained(
        golden("vit_pooler"), representation_size=width, output_loading_info=True
    )
    assert model.config.representation_size == width
    assert report.dropped_keys == []


def test_a_pooler_can_be_left_out_of_a_backbone_that_was_saved_here(tmp_path):
    FlaxViTClsModel.from_pretrained(golden("vit_pooler")).save_pretrained(tmp_path)
    saved = FlaxViTClsModel.from_pretrained(tmp_path, add_pooling_layer=False)
    without = FlaxViTClsModel.from_pretrained(golden("vit_pooler"), add_pooling_layer=False)
    assert saved.config.representation_size is None
    pixels = read_npz(golden("vit") / "expected.npz")["native.pixels"]
    np.testing.assert_array_equal(saved(pixels).last_hidden_state, without(pixels).last_hidden_state)
    np.testing.assert_array_equal(saved(pixels).pooler_output, without(pixels).pooler_output)


SPARE = {
    "decoder.0.weight": np.zeros((192, 24, 1, 1), np.float32),
    "decoder.0.bias": np.zeros(192, np.float32),
    "loss_fct.weight": np.ones(5, np.float32),
    "criterion.weight": np.ones(5, np.float32),
    "num_batches": np.ones((), np.int64),
}


@pytest.mark.parametrize(
    "name", ["vit", "deit", "dinov2", "dinov3", "siglip", "clip", "siglip_classifier", "vit_msn", "tipsv2"]
)
@pytest.mark.parametrize("architecture", [None, "MyOwnModel"])
def test_spare_tensors_and_other_class_names_change_nothing_and_are_said(name, architecture, tmp_path, caplog):
    fields = {} if architecture is None else {"architectures": [architecture]}
    folder = changed(name, tmp_path, SPARE, **fields)
    expected = read_npz(golden(name) / "expected.npz")
    kind = FlaxViTClsForImageClassification if "native.logits" in expected else FlaxViTClsModel
    model, report = kind.from_pretrained(folder, output_loading_info=True)
    assert sorted(report.unexpected_keys) == sorted(SPARE)
    assert report.new_keys == report.missing_keys == []
    assert "no part of the model" in caplog.text
    plain, pixels = kind.from_pretrained(golden(name)), expected["native.pixels"]
    for output in ("logits", "pooler_output"):
        if f"native.{output}" in expected:
            np.testing.assert_array_equal(model(pixels)[output], plain(pixels)[output])


@pytest.mark.parametrize(
    "extra",
    [
        "vit.layernorm.extra",
        "vit.encoder.layer.2.output.dense.weight",
        "vit.encoder.layer.0.attention.attention.query.lora_A.weight",
        "vit.prompts.weight",
        "classifier.extra",
        "embeddings.extra",
        "layernorm.extra",
    ],
)
def test_what_would_be_of_the_backbone_is_never_left_out(extra, tmp_path):
    folder = changed("vit", tmp_path, {extra: np.zeros((24, 24), np.float32)})
    with pytest.raises(CheckpointError, match=f"'{extra}'"):
        FlaxViTClsForImageClassification.from_pretrained(folder)


def test_where_one_file_and_an_index_lie_the_file_is_read_as_by_transformers(tmp_path, caplog):
    folder = changed("vit", tmp_path)
    index = folder / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": dict.fromkeys(load_file(folder / "model.safetensors"), "model.safetensors")})
    )
    assert FlaxViTClsForImageClassification.from_pretrained(folder).config.hidden_size == 24
    assert "has both" not in caplog.text
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    assert FlaxViTClsForImageClassification.from_pretrained(folder).config.hidden_size == 24
    assert "has both" in caplog.text


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        *(("gelu_python", "gelu"), ("swish", "silu"), ("quick_gelu", "quick_gelu")),
        *((name, "gelu_pytorch_tanh") for name in ("gelu_new", "gelu_fast", "gelu_accurate", "gelu_python_tanh")),
    ],
)
def test_activations_by_transformers_names(theirs, ours, tmp_path):
    assert FlaxViTClsModel.from_pretrained(changed("vit", tmp_path, hidden_act=theirs)).config.hidden_act == ours


@pytest.mark.parametrize("name", ["gelu_10", "mish", "relu6", "tanh", "nonsense"])
def test_another_function_is_refused_by_name(name, tmp_path):
    with pytest.raises(CheckpointError, match=f"hidden_act='{name}': must be one of"):
        FlaxViTClsModel.from_pretrained(changed("vit", tmp_path, hidden_act=name))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("swin", "Swin Transformer"),
        ("sam", "SAM"),
        ("hiera", "Hiera"),
        ("timm_wrapper", "timm inside transformers.*without the name of an architecture"),
    ],
)
def test_a_family_that_is_known_and_not_read_is_called_by_its_name(kind, words, tmp_path):
    with pytest.raises(CheckpointError, match=f"model_type='{kind}'.*{words}"):
        FlaxViTClsModel.from_pretrained(changed("vit", tmp_path, model_type=kind))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"quantization_config": {"load_in_8bit": True}}, "quantization_config: quantised weights are not supported"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"quantization_config: quantised weights \(gptq\) are not"),
        ({"quantization_config": {}}, "quantization_config: quantised weights are not supported"),
        ({"compression_config": {"quant_method": "sparseml"}}, r"compression_config: quantised weights \(sparseml\)"),
    ],
)
def test_a_config_of_quantised_weights_is_refused_by_its_field(fields, words, tmp_path):
    with pytest.raises(CheckpointError, match=words):
        FlaxViTClsModel.from_pretrained(changed("vit", tmp_path, **fields))


@pytest.mark.parametrize(
    ("end", "library"),
    [
        *((end, "bitsandbytes") for end in (".SCB", ".weight.absmax", ".weight.quant_state.bitsandbytes__nf4")),
        *((end, "GPTQ or AWQ") for end in (".qweight", ".qzeros", ".g_idx")),
        *((end, "compressed-tensors") for end in (".weight_packed", ".weight_scale")),
        (".weight._data", "quanto"),
    ],
)
def test_quantised_tensors_are_refused_by_name_and_library(end, library, tmp_path):
    name = f"vit.encoder.layer.0.intermediate.dense{end}"
    folder = changed("vit", tmp_path, {name: np.zeros(3, np.uint8)})
    with pytest.raises(CheckpointError, match=rf"tensor '{name}' belongs to quantised weights \({library}\)"):
        FlaxViTClsModel.from_pretrained(folder)


def inside(prefix: str, name: str, folder: Path, bare: int = 0) -> Path:
    """A golden folder whose tensors, but for the first `bare` ones, have a prefix."""
    tensors = load_file(golden(name) / "model.safetensors")
    renamed = {key if number < bare else prefix + key: tensor for number, (key, tensor) in enumerate(tensors.items())}
    if (golden(name) / "config.json").exists():
        shutil.copy(golden(name) / "config.json", folder)
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    "name",
    ["vit", "dinov2", "siglip", "clip", "timm_vit", "timm_registers_gap", "torchvision", "meta_dinov2_registers"],
)
@pytest.mark.parametrize("prefix", ["_orig_mod.", "ema_model._orig_mod.", "state_dict.model.", "net.", "encoder."])
def test_a_wrapper_that_all_tensors_share_is_taken_off_and_reported(name, prefix, tmp_path, caplog):
    model, report = FlaxViTClsModel.from_pretrained(inside(prefix, name, tmp_path), output_loading_info=True)
    assert report.file_notes == [f"all tensors are inside {prefix!r}, which was left out of their names"]
    assert report.file_notes[0] in caplog.text
    plain = FlaxViTClsModel.from_pretrained(golden(name))
    assert model.config.to_dict() == plain.config.to_dict()
    assert_same(model.params, plain.params)


@pytest.mark.parametrize("name", ["vit", "timm_vit", "meta_dinov2_registers"])
def test_a_prefix_that_some_tensors_share_is_an_error(name, tmp_path):
    with pytest.raises(
        CheckpointError, match="tensor 'model.*' does not belong to a|tensor .* and .* more missing|match none"
    ):
        FlaxViTClsModel.from_pretrained(inside("model.", name, tmp_path, bare=1))


def test_tensors_under_an_unknown_prefix_beside_others_are_named(tmp_path):
    folder = inside("net.", "vit", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "criterion.weight": np.ones(5, np.float32)}, folder / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"missing; .* its tensor '(net|criterion)\..*' to no module of the model"
    ):
        FlaxViTClsModel.from_pretrained(folder)


def test_an_image_tower_of_openclip_alone_is_in_no_wrapper(tmp_path):
    tensors = load_file(golden("open_clip") / "open_clip_model.safetensors")
    tower = {name: tensor for name, tensor in tensors.items() if name.startswith("visual.")}
    for prefix, notes in (("", []), ("clip.", ["all tensors are inside 'clip.', which was left out of their names"])):
        folder = tmp_path / f"{prefix}x"
        folder.mkdir()
        shutil.copy(golden("open_clip") / "open_clip_config.json", folder)
        save_file({prefix + name: tensor for name, tensor in tower.items()}, folder / "open_clip_model.safetensors")
        model, report = FlaxViTClsModel.from_pretrained(folder, output_loading_info=True)
        assert report.file_notes == notes
        assert_same(model.params, FlaxViTClsModel.from_pretrained(golden("open_clip")).params)


def test_a_wrapper_may_have_the_name_of_a_prefix_of_the_family(tmp_path):
    """`self.vit = ViTForImageClassification(...)` names `vit.vit.embeddings...` and `vit.classifier...`."""
    tensors = load_file(golden("vit") / "model.safetensors")
    assert {name.partition(".")[0] for name in tensors} == {"vit", "classifier"}
    model, report = FlaxViTClsForImageClassification.from_pretrained(
        inside("vit.", "vit", tmp_path), output_loading_info=True
    )
    assert report.file_notes == ["all tensors are inside 'vit.', which was left out of their names"]
    assert_same(model.params, FlaxViTClsForImageClassification.from_pretrained(golden("vit")).params)


def test_prefixes_of_a_family_are_no_wrapper(tmp_path):
    for number, (name, prefix) in enumerate(
        (("dinov3", "model."), ("meta_dino", "module."), ("torchvision", "module."))
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        _, report = FlaxViTClsModel.from_pretrained(inside(prefix, name, folder), output_loading_info=True)
        assert report.file_notes == []


@pytest.mark.parametrize(
    "name",
    [
        "vit_base_patch16_224_in21k",
        "vit_large_patch32_224_in21k",
        "vit_base_patch16_224_dino",
        "vit_base_patch32_224_sam",
        "vit_base_patch16_224.augreg_in21k_ft_in1k",
        "vit_huge_patch14_224_clip_laion2b",
        "deit3_base_patch16_384_in21ft1k",
        "vit_base_patch14_reg4_dinov2.lvd142m",
    ],
)
def test_timms_former_names_and_tags_are_known(name):
    assert family_of({"architecture": name}, "config.json").name == "timm ViT"


def test_a_former_name_builds_what_the_present_one_does(tmp_path):
    fields = json.loads((golden("timm_vit") / "config.json").read_text())
    shutil.copy(golden("timm_vit") / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**fields, "architecture": "vit_base_patch16_224_in21k"}))
    former = FlaxViTClsModel.from_pretrained(tmp_path).config
    (tmp_path / "config.json").write_text(json.dumps({**fields, "architecture": "vit_base_patch16_224"}))
    assert former.to_dict() == FlaxViTClsModel.from_pretrained(tmp_path).config.to_dict()


@pytest.mark.parametrize("kind", ["evil_type", None, "bert", "vit_cls", "vit"])
def test_code_of_a_repository_is_neither_run_nor_asked_about(kind, tmp_path, monkeypatch):
    folder = changed("vit", tmp_path, model_type=kind, auto_map={"AutoConfig": "evil.C", "FlaxAutoModel": "evil.C"})
    (folder / "evil.py").write_text(f"open({str(folder / 'RAN')!r}, 'w')\nclass C: pass\n")
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("asked"))
    for trust in ({}, {"trust_remote_code": True}, {"trust_remote_code": None}):
        try:
            FlaxAutoModelForImageClassification.from_pretrained(folder, **trust)
        except (CheckpointError, ValueError):
            assert kind != "vit"
    assert not (folder / "RAN").exists()


@pytest.mark.parametrize("name", ["meta_dino", "meta_dinov2_registers", "meta_dinov3"])
def test_the_teacher_is_read_from_a_training_of_meta(name, tmp_path):
    tensors = load_file(golden(name) / "model.safetensors")
    bare = {key.removeprefix("module.").removeprefix("backbone."): tensor for key, tensor in tensors.items()}
    heads = [f"{head}.{part}.weight" for head in ("head", "dino_head", "ibot_head") for part in ("mlp.0", "last_layer")]
    network = {f"backbone.{key}": tensor for key, tensor in bare.items()} | {key: np.ones((8, 8)) for key in heads}
    training = {f"{role}.{key}": tensor for role in ("student", "teacher") for key, tensor in network.items()}
    training |= {key: np.zeros_like(tensor) for key, tensor in training.items() if key.startswith("student")}
    save_file(training, tmp_path / "model.safetensors")
    model = FlaxViTClsModel.from_pretrained(tmp_path)
    assert_same(model.params, FlaxViTClsModel.from_pretrained(golden(name)).params)


EXTREMES = [("vit", "initializer_range", 0), ("vit", "hidden_dropout_prob", 1.0), ("dinov2", "layerscale_value", 0.0)]


@pytest.mark.parametrize(("name", "field", "value"), [*EXTREMES, ("dinov3", "layerscale_value", 0.0)])
def test_a_field_of_training_alone_stops_no_checkpoint_of_another_library(name, field, value, tmp_path, caplog):
    model = FlaxViTClsModel.from_pretrained(changed(name, tmp_path, **{field: value}))
    assert_same(model.params, FlaxViTClsModel.from_pretrained(golden(name)).params)
    assert f"={value!r} acts in training alone" in caplog.text
    with pytest.raises(CheckpointError, match="-0.5"):
        FlaxViTClsModel.from_pretrained(changed(name, tmp_path, **{field: -0.5}))


def test_a_guess_of_the_family_that_fails_tells_what_to_add(tmp_path):
    shutil.copy(golden("timm_vit") / "model.safetensors", tmp_path)  # with a head, which Meta's DINO has not
    words = r"'head\..*' does not belong to .*, which is a guess .* add a config.json, \{\"architecture\": \"vit_...\""
    with pytest.raises(CheckpointError, match=words):
        FlaxViTClsModel.from_pretrained(tmp_path)


def test_a_config_without_a_model_type_is_said_to_be_one(tmp_path):
    folder = changed("vit", tmp_path, model_type=None)
    with pytest.raises(CheckpointError, match="where config.json has no model_type .*; add one, as in the source's"):
        FlaxViTClsModel.from_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "preprocessor_config.json"])
def test_a_git_lfs_pointer_in_place_of_json_is_told_with_the_remedy(name, tmp_path, caplog):
    folder = changed("vit", tmp_path)
    if "index" in name:
        (folder / "model.safetensors").unlink()
    (folder / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n")
    words = f"{name}: is a git-lfs pointer, not the file; run `git lfs install && git lfs pull`"
    if name == "preprocessor_config.json":
        FlaxViTClsModel.from_pretrained(folder)
        assert words in caplog.text
    else:
        with pytest.raises(CheckpointError, match=words):
            FlaxViTClsModel.from_pretrained(folder)
