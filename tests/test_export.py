"""What is exported comes back the same, bit by bit, or is refused by the field that the target cannot express."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import TINY, pixels, tiny_model
from safetensors.numpy import load_file
from test_families import FOLDERS, load
from test_families_faults import no_part_of_the_model
from test_processor_classes import LAYOUT, ON_PILLOW
from transformers import AutoImageProcessor

from hub_scripts.__main__ import main
from modeling_vit_cls import (
    CheckpointError,
    ConfigError,
    FlaxViTClsForImageClassification,
    FlaxViTClsModel,
    ViTClsConfig,
    ViTClsImageProcessor,
    export_pretrained,
)

EPS_OF_TRANSFORMERS = ["vit", "vit_v5_names", "deit", "deit_teacher", "flax_vit", "beit", "beit_pretrained", "data2vec"]
EPS_OF_TRANSFORMERS += ["data2vec_classifier"]
# What a target cannot express: golden checkpoint or config -> field; everything else comes back.
REFUSED = {
    ("transformers", "npz_map"): "readout",
    ("transformers", "timm_siglip"): "readout",
    ("transformers", "timm_deit3"): "readout",
    ("transformers", "timm_registers_gap"): "readout",
    ("transformers", "timm_dinov2_registers"): "position_embedding_tokens",
    ("transformers", "timm_clip"): "num_labels",
    ("transformers", "timm_eva_giant"): "key_bias",
    ("transformers", "timm_flexivit"): "position_embedding_tokens",
    ("transformers", "timm_so150m"): "layer_scale_init_value",
    ("transformers", "timm_virchow"): "intermediate_size",
    ("transformers", "timm_dinov3"): "num_labels",
    ("transformers", "beit_pretrained"): "norm_position",
    ("transformers", "data2vec_classifier"): "key_bias",
    ("transformers", "timm_intern"): "norm_position",
    ("timm", "nvidia_radio"): "readout",
    ("timm", "radio"): "readout",
    ("transformers", "clip_classifier"): "num_labels",
    ("transformers", "metaclip2_classifier"): "num_labels",
    ("timm", "pixio"): "num_cls_tokens",
    ("timm", "metaclip2"): "projection_size",
    ("transformers", "vitpose"): "image_size",
    ("timm", "vitpose"): "patch_padding",
    ("timm", "vit_mae"): "layer_norm_eps",
    ("timm", "ijepa"): "layer_norm_eps",
    ("timm", "clip_model"): "projection_size",
    ("timm", "open_clip"): "projection_size",
    ("timm", "open_clip_late_norm"): "projection_size",
    ("timm", "open_clip_mean"): "projection_size",
    ("transformers", "open_clip_late_norm"): "projection_size",
    ("transformers", "open_clip_mean"): "intermediate_size",
    ("timm", "clip_projection"): "projection_size",
    ("timm", "dinov2"): "readout",
    ("timm", "vit_pooler"): "representation_size",
} | {("timm", name): "layer_norm_eps" for name in EPS_OF_TRANSFORMERS}

# Its registers have positions, which are part of the registers here.
MERGED = ("timm_so150m", "timm_virchow")
# What transformers itself writes for these is what is exported, name by name.
THEIR_OWN = ["vit", "vit_pooler", "deit", "deit_teacher", "dinov2", "dinov2_giant", "dinov2_registers"]
THEIR_OWN += ["dinov3", "dinov3_gated", "clip_projection", "metaclip2", "tipsv2_giant", "beit", "data2vec", "radio"]


@pytest.mark.parametrize("to", ["transformers", "timm"])
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_what_goes_out_comes_back(folder, to, tmp_path):
    model, _ = load(folder)
    field = REFUSED.get((to, folder.name))
    if field is not None:
        with pytest.raises(ConfigError, match=f"^{field}=") as error:
            export_pretrained(model, tmp_path / "out", to)
        assert error.value.field == field
        assert not (tmp_path / "out").exists()
        return
    export_pretrained(model, tmp_path / "out", to)
    again = type(model).from_pretrained(tmp_path / "out")
    assert jax.tree.structure(again.params) == jax.tree.structure(model.params)
    for theirs, ours in zip(jax.tree.leaves(again.params), jax.tree.leaves(model.params)):
        assert theirs.dtype == ours.dtype
        np.testing.assert_array_equal(theirs, ours)
    if folder.name.startswith("timm") and folder.name not in MERGED if to == "timm" else folder.name in THEIR_OWN:
        written, source = load_file(tmp_path / "out" / "model.safetensors"), load_file(folder / "model.safetensors")
        assert set(written) == set(source)
        for name in source:
            if not no_part_of_the_model(folder, name):
                np.testing.assert_array_equal(written[name], source[name])


BACKBONE = {  # config -> the field that transformers' ViT, or the nearest of its models, has not
    "readout": {"readout": "mean"},
    "representation_size": {"representation_size": 8},
    "position_embedding": {"position_embedding": "sincos2d"},
    "patch_bias": {"patch_bias": False},
    "key_bias": {"key_bias": False},
    "position_embedding_tokens": {"position_embedding_tokens": "patches"},
}


@pytest.mark.parametrize("field", BACKBONE)
def test_what_transformers_has_not_is_refused_by_name_and_nothing_is_written(field, tmp_path):
    model = tiny_model(**BACKBONE[field])
    with pytest.raises(ConfigError, match=f"^{field}="):
        export_pretrained(model, tmp_path / "new" / "newer" / "out", "transformers")
    assert list(tmp_path.iterdir()) == []


def test_what_acts_in_training_alone_is_said_and_no_obstacle(tmp_path, caplog):
    model = tiny_model(drop_path_rate=0.1, position_interpolation="bilinear")
    export_pretrained(model, tmp_path / "out", "transformers")
    assert "drop_path_rate=0.1 is not the same there: it acts in training only" in caplog.text
    assert "position_interpolation='bilinear' is not the same there: scores are the same at 8 x 8 pixels" in caplog.text


OTHERWISE = {  # what the target may have otherwise -> the model's config, its processor, what is said to follow
    "drop_path_rate": ({"drop_path_rate": 0.1}, {}, "in training only"),
    "dynamic_image_size": ({"dynamic_image_size": True}, {}, "same at 8 x 8 pixels; .* has interpolate_pos_encoding"),
    "position_interpolation": ({"position_interpolation": "bilinear"}, {}, "same at 8 x 8 pixels; at other image"),
    "crop_rounding": ({}, {"do_center_crop": True, "crop_size": 8, "crop_rounding": "torchvision"}, "one pixel"),
    "image_mean": (
        {"num_channels": 1},
        {"size": 8, "image_mean": 0.4, "image_std": 0.3},
        "grey images alone, as arrays",
    ),
    "size": ({}, {"size": {"max_num_patches": 4, "patch_size": 4}}, "resized to 8 x 8 pixels there, .* scores differ"),
}


@pytest.mark.parametrize("field", OTHERWISE)
def test_what_follows_from_each_difference_is_said_as_it_is(field, tmp_path, caplog):
    fields, processor, follows = OTHERWISE[field]
    model = tiny_model(**fields)
    if processor:
        model.image_processor = ViTClsImageProcessor(**{"size": 10, **processor})
    export_pretrained(model, tmp_path / "out", "transformers")
    (said,) = [record.getMessage() for record in caplog.records if f": {field}=" in record.getMessage()]
    assert re.search(f"is not the same there: .*{follows}", said)
    assert ("changes no prediction" in said) == ("training" in follows)


CROP = {"do_center_crop": True, "crop_size": 8}


@pytest.mark.parametrize("size", [{"size": 8}, {"size": {"height": 8, "width": 9}, **CROP}, {"size": 8, **CROP}])
def test_a_grey_image_has_the_same_pixels_in_transformers(size, tmp_path):
    model = tiny_model(num_channels=1)
    model.image_processor = ViTClsImageProcessor(**size, image_mean=0.4, image_std=0.3, resample=3)
    export_pretrained(model, tmp_path / "out", "transformers")
    grey = np.random.default_rng(0).integers(0, 256, (20, 30, 1), dtype=np.uint8)
    theirs = AutoImageProcessor.from_pretrained(tmp_path / "out", **ON_PILLOW)
    expected = model.image_processor(grey)["pixel_values"]
    again = FlaxViTClsForImageClassification.from_pretrained(tmp_path / "out").image_processor
    np.testing.assert_array_equal(again(grey)["pixel_values"], expected)
    found = theirs(grey, return_tensors="np", **LAYOUT)["pixel_values"]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_every_field_that_acts_in_training_has_its_consequence(tmp_path, caplog):
    fields = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "drop_path_rate": 0.1}
    export_pretrained(tiny_model(**fields, initializer_range=0.1), tmp_path / "out", "timm")
    said = [record.getMessage() for record in caplog.records]
    for name in (*fields, "initializer_range"):
        (text,) = (text for text in said if f": {name}=0.1 is not the same" in text)
        assert text.endswith("changes no prediction")


OTHER_SIZES = {
    "size": {"size": 8},
    "crop_size": {"size": 16, "do_center_crop": True, "crop_size": 8},
    "any": {"size": {"shortest_edge": 16}},
}


@pytest.mark.parametrize("kind", OTHER_SIZES)
def test_a_processor_of_a_size_that_the_exported_model_refuses_is_refused(kind, tmp_path):
    """Ours takes the size of its own processor too; of transformers' models ViT the config's alone, DINOv2 any."""
    for fields in ({}, {"dynamic_image_size": True}):
        model = tiny_model(image_size=16, **fields)
        model.image_processor = ViTClsImageProcessor(**OTHER_SIZES[kind])
        with pytest.raises(
            ConfigError, match="transformers ViT takes only 16 x 16 pixels: set model.image_proc"
        ) as error:
            export_pretrained(model, tmp_path / "vit", "transformers")
        assert error.value.field == ("crop_size" if kind == "crop_size" else "size")
        assert ("image_size=(8, 8)" in str(error.value)) == (kind != "any")
        assert list(tmp_path.iterdir()) == []
    model = tiny_model(image_size=16, layer_scale_init_value=0.5, readout="cls_mean")
    model.image_processor = ViTClsImageProcessor(**OTHER_SIZES[kind])
    export_pretrained(model, tmp_path / "dinov2", "transformers")


def test_labels_and_image_processor_go_along(tmp_path):
    labels = {0: "cat", 1: "dog", 2: "other"}
    model = FlaxViTClsForImageClassification(ViTClsConfig(**{**TINY, "num_labels": None, "id2label": labels}))
    crop = {"size": {"shortest_edge": 10}, "do_center_crop": True, "crop_size": {"height": 8, "width": 8}}
    exact = ViTClsImageProcessor.for_config(model.config)
    for to, rounding in (("transformers", "transformers"), ("timm", "torchvision")):
        for processor in (exact, ViTClsImageProcessor(**crop, crop_rounding=rounding, resample=3)):
            model.image_processor = processor
            shutil.rmtree(tmp_path / to, ignore_errors=True)
            export_pretrained(model, tmp_path / to, to)
            again = FlaxViTClsForImageClassification.from_pretrained(tmp_path / to)
            assert again.config.id2label == labels
            image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
            np.testing.assert_array_equal(
                again.image_processor(image)["pixel_values"], processor(image)["pixel_values"]
            )
    fields = json.loads((tmp_path / "transformers" / "preprocessor_config.json").read_text())
    assert fields["image_processor_type"] == "BitImageProcessor"
    assert "crop_rounding" not in fields
    assert (tmp_path / "timm" / "preprocessor_config.json").exists() is False


def test_labels_changed_after_loading_go_along(tmp_path):
    model = tiny_model()
    model.config.id2label = {i: f"kind {i}" for i in range(5)}
    model.config.label2id = {f"kind {i}": i for i in range(5)}
    for to in ("transformers", "timm", "stablehlo"):
        export_pretrained(model, tmp_path / to, to)
        again = FlaxViTClsForImageClassification.from_pretrained(tmp_path / to)
        assert again.config.id2label == model.config.id2label
    model.config.hidden_act = "relu"
    with pytest.raises(ConfigError, match="hidden_act='relu': was 'gelu' when the model was built"):
        export_pretrained(model, tmp_path / "other", "timm")


IMAGE_PROCESSORS = [  # what the target cannot express: target, fields, the field that is named
    ("transformers", {"size": {"min_height": 9, "min_width": 10}, "do_center_crop": True}, "size"),
    ("timm", {"size": {"shortest_edge": 8}}, "do_center_crop"),
    ("timm", {"size": {"height": 9, "width": 12}, "do_center_crop": True}, "size"),
    ("timm", {"do_resize": False}, "do_resize"),
    ("timm", {"rescale_factor": 1.0}, "rescale_factor"),
    ("timm", {"size": {"height": 16, "width": 16}}, "crop_size"),
]


@pytest.mark.parametrize(("to", "fields", "field"), IMAGE_PROCESSORS)
def test_an_image_processor_that_the_target_has_not_is_refused_by_name(to, fields, field, tmp_path):
    model = tiny_model()
    model.image_processor = ViTClsImageProcessor(**{"size": 8, "crop_size": 8, **fields})
    with pytest.raises(ConfigError) as error:
        export_pretrained(model, tmp_path / "out", to)
    assert error.value.field == field
    assert list(tmp_path.iterdir()) == []


def test_a_crop_that_begins_elsewhere_in_the_target_is_said(tmp_path, caplog):
    model = tiny_model()
    for to, other in (("transformers", "torchvision"), ("timm", "transformers")):
        crop = {"size": {"shortest_edge": 10}, "crop_size": 8, "do_center_crop": True}
        model.image_processor = ViTClsImageProcessor(**crop, crop_rounding=other)
        export_pretrained(model, tmp_path / to, to)
        assert f"crop_rounding='{other}' is not the same there" in caplog.text


def test_a_checkpoint_of_ours_is_not_replaced_and_other_files_stay(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path / "ours")
    with pytest.raises(CheckpointError, match="holds config.json, which would be replaced; give another folder"):
        export_pretrained(model, tmp_path / "ours", "timm")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    export_pretrained(model, tmp_path / "out", "timm")
    with pytest.raises(CheckpointError, match="give another folder"):
        export_pretrained(model, tmp_path / "out", "stablehlo")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "config.json",
        "model.safetensors",
        "notes.txt",
    ]
    with pytest.raises(ConfigError, match="to='tensorflow': must be one of"):
        export_pretrained(model, tmp_path / "out", "tensorflow")


def test_the_backbone_alone_is_exported_too(tmp_path):
    model = FlaxViTClsModel(ViTClsConfig(**TINY))
    export_pretrained(model, tmp_path / "out", "transformers")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["ViTModel"]


@pytest.mark.parametrize("head", [None, True, False])
def test_a_backbone_with_a_distillation_token_goes_out_whatever_head_it_might_get(head, tmp_path):
    model = tiny_model(FlaxViTClsModel, use_distillation_token=True, use_distillation_head=head, layer_norm_eps=1e-12)
    export_pretrained(model, tmp_path / "out", "transformers")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["DeiTModel"]
    again = FlaxViTClsModel.from_pretrained(tmp_path / "out")
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)


def test_a_distillation_token_goes_to_timm_with_its_own_readout_alone(tmp_path):
    with pytest.raises(ConfigError, match="readout='mean': must be 'cls' with a distillation token in timm"):
        export_pretrained(tiny_model(use_distillation_token=True, readout="mean"), tmp_path / "out", "timm")


BORDERED = {"image_size": (9, 11), "patch_size": 2, "ignore_border": True}
BORDERS = {  # SigLIP's 384 pixels in patches of 14, and others of timm's classes
    "siglip": BORDERED | {"readout": "map", "use_cls_token": False},
    "vit": BORDERED,
    "flexivit": BORDERED | {"position_interpolation": "bilinear", "position_embedding_tokens": "patches"},
    "eva": BORDERED | {"key_bias": False},
    "dinov3": BORDERED | {"position_embedding": "rope", "key_bias": False, "layer_norm_eps": 1e-5},
    "beit": BORDERED | {"position_embedding": "relative", "key_bias": False},
}


@pytest.mark.parametrize("fields", BORDERS.values(), ids=BORDERS)
def test_timm_is_told_to_take_the_size_alone_that_is_no_multiple_of_the_patch(fields, tmp_path):
    model = tiny_model(**fields)
    export_pretrained(model, tmp_path, "timm")
    arguments = json.loads((tmp_path / "config.json").read_text())["model_args"]
    if model.config.position_embedding != "relative":
        assert arguments["dynamic_img_size"] is False  # else it refuses the size
    else:
        assert "dynamic_img_size" not in arguments  # timm's class has no such argument
    again = FlaxViTClsForImageClassification.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again(pixels(size=(9, 11))).logits, model(pixels(size=(9, 11))).logits)


def test_half_precision_stays_half(tmp_path):
    model = tiny_model()
    model.params = model.to_bf16(model.params)
    export_pretrained(model, tmp_path / "out", "transformers")
    again = type(model).from_pretrained(tmp_path / "out")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(again.params)} == {"bfloat16"}


def test_the_verbs(tmp_path, capsys):
    golden = next(folder for folder in FOLDERS if folder.name == "torchvision")
    assert main(["import", str(golden / "model.safetensors"), str(tmp_path / "ours"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["family"], said["class"]) == ("torchvision", "FlaxViTClsForImageClassification")
    for to in ("transformers", "timm", "stablehlo"):
        assert main(["export", str(tmp_path / "ours"), str(tmp_path / to), "--to", to]) == 0
        assert f"to: {to}" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "ours")
    assert main(["export", str(tmp_path / "ours"), str(tmp_path / "x"), "--to", "timm"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["export", "a", "b", "--to", "keras"])


def test_pixels_that_are_not_normalised_go_to_timm_with_mean_0_and_deviation_1(tmp_path):
    model = tiny_model()
    model.image_processor = ViTClsImageProcessor(size=8, crop_size=8, do_center_crop=True, do_normalize=False)
    export_pretrained(model, tmp_path / "out", "timm")
    back = FlaxViTClsForImageClassification.from_pretrained(tmp_path / "out").image_processor
    image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    np.testing.assert_allclose(back(image)["pixel_values"], model.image_processor(image)["pixel_values"], atol=1e-7)


def test_an_import_does_not_replace_its_source(tmp_path, capsys):
    golden = next(folder for folder in FOLDERS if folder.name == "torchvision")
    source = Path(shutil.copy(golden / "model.safetensors", tmp_path))
    before = source.read_bytes()
    for words in ([str(source), str(tmp_path)], [str(source), f"{tmp_path}/."]):
        assert main(["import", *words]) == 1
        assert "holds the source itself" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == [source.name]
    assert source.read_bytes() == before
