"""A checkpoint and the image processor that it ships with fit together: in calls, verbs, training and exports."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_config, tiny_model
from PIL import Image
from safetensors.numpy import load_file
from test_families import golden
from test_pictures import pixels_of

from modeling_vit_cls import (
    BadImageError,
    CheckpointError,
    ConfigError,
    FlaxViTClsForImageClassification,
    FlaxViTClsModel,
    ImageClassificationPipeline,
    ViTClsConfig,
    ViTClsImageProcessor,
    export_pretrained,
)
from modeling_vit_cls.cards.pictures import attention_maps
from modeling_vit_cls.evaluation.benchmark import benchmark
from modeling_vit_cls.files.digests import architecture_digest
from modeling_vit_cls.images.sources import load_images
from modeling_vit_cls.training import FlaxTrainer, TrainingArguments

ROWS = load_images("digits", "train").select(range(6))
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
SQUARE = {"image_processor_type": "ViTImageProcessor", "size": {"height": 12, "width": 12}}
CROP = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 14}, "crop_size": 12}
NAFLEX = {"image_processor_type": "Siglip2ImageProcessor", "max_num_patches": 6, "patch_size": 4}
POSITIONS = "embeddings.position_embedding.embedding"
KINDS = {
    "ViT": ({}, SQUARE),
    "DINOv2": ({"layer_scale_init_value": 1.0, "readout": "cls_mean"}, CROP),
}


def checkpoint(folder: Path, kind: str) -> Path:
    """A checkpoint of transformers for images of 16 pixels, whose processor emits 12."""
    fields, processor = KINDS[kind]
    config = {"image_size": 16, "num_labels": 10, "num_hidden_layers": 1, "intermediate_size": 64, **fields}
    export_pretrained(tiny_model(**config), folder, to="transformers")
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_every_verb_takes_what_the_processor_of_a_checkpoint_emits(kind, tmp_path, caplog):
    folder = checkpoint(tmp_path / "theirs", kind)
    model, report = FlaxViTClsForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert report.interpolated_keys == [POSITIONS]
    assert "interpolated" in caplog.text
    images = [PHOTO, PHOTO.rotate(90)]
    pixels = model.image_processor(images)["pixel_values"]
    assert pixels.shape == (2, 3, 12, 12)
    logits = model(pixels, interpolate_pos_encoding=True).logits
    assert model.config.dynamic_image_size == kind.startswith("DINOv2")
    if model.config.dynamic_image_size:  # as in transformers, unasked
        np.testing.assert_array_equal(model(**model.image_processor(images)).logits, logits)
    else:
        with pytest.raises(BadImageError, match="pass interpolate_pos_encoding=True"):
            model(pixels)
    best = ImageClassificationPipeline(model, batch_size=2)(images)[0][0]
    assert best["label"] == model.config.id2label[int(logits[0].argmax())]
    assert benchmark(model, ROWS, batch_size=2, disable_tqdm=True)["examples"] == len(ROWS)
    assert pixels_of(attention_maps(model, [PHOTO])).ndim == 3
    model.save_pretrained(tmp_path / "ours")
    again = FlaxViTClsForImageClassification.from_pretrained(tmp_path / "ours")
    assert again.config.dynamic_image_size == model.config.dynamic_image_size
    assert again.image_processor.output_hw == (12, 12)


def test_training_takes_the_size_of_the_processor(tmp_path):
    model = FlaxViTClsForImageClassification.from_pretrained(checkpoint(tmp_path / "vit", "ViT"))
    arguments = TrainingArguments(str(tmp_path / "run"), max_steps=1, per_device_train_batch_size=4, disable_tqdm=True)
    trainer = FlaxTrainer(model, arguments, ROWS)
    trainer.train()
    trainer.save_model()
    again = FlaxViTClsForImageClassification.from_pretrained(tmp_path / "run")
    assert again.image_processor.output_hw == (12, 12)
    other = ViTClsImageProcessor(size={"height": 20, "width": 20})
    with pytest.raises(ConfigError, match="must give"):  # one that is not the model's own
        FlaxTrainer(model, arguments, ROWS, processing_class=other)
    any_size = FlaxViTClsForImageClassification.from_pretrained(checkpoint(tmp_path / "dinov2", "DINOv2"))
    assert FlaxTrainer(any_size, arguments, ROWS, processing_class=other).processing_class is other


def test_naflex_works_in_every_verb_and_trains_at_one_size(tmp_path, caplog):
    config = tiny_config(image_size=8, num_labels=10, num_hidden_layers=1, dynamic_image_size=True)
    model = FlaxViTClsForImageClassification(config)
    model.image_processor = ViTClsImageProcessor.from_fields(NAFLEX)
    images = [PHOTO, PHOTO.resize((20, 20))]
    shapes = {model.image_processor(image)["pixel_values"].shape for image in images}
    assert len(shapes) == 2
    assert all(model(**model.image_processor(image)).logits.shape == (1, 10) for image in images)
    assert len(ImageClassificationPipeline(model)(images)) == 2
    assert benchmark(model, ROWS, batch_size=8, disable_tqdm=True)["examples"] == len(ROWS)
    assert pixels_of(attention_maps(model, images)).ndim == 3
    model.save_pretrained(tmp_path)
    assert FlaxViTClsForImageClassification.from_pretrained(tmp_path).image_processor.size == model.image_processor.size
    trainer = FlaxTrainer(model, TrainingArguments(str(tmp_path / "run"), max_steps=1, disable_tqdm=True), ROWS)
    assert trainer.processing_class.output_hw == (8, 8)
    assert "images are resized to 8 x 8 for training, without their aspect ratio" in caplog.text


def test_a_size_that_cannot_be_cut_into_patches_is_named(tmp_path):
    model = FlaxViTClsForImageClassification(tiny_config())
    model.image_processor = ViTClsImageProcessor(size={"height": 10, "width": 10})
    with pytest.raises(ConfigError, match="patch_size=4"):
        ImageClassificationPipeline(model)(PHOTO)
    # DINOv2 leaves out what fills no patch, as transformers' Conv2d does
    folder = checkpoint(tmp_path / "dinov2", "DINOv2")
    (folder / "preprocessor_config.json").write_text(json.dumps({**SQUARE, "size": {"height": 14, "width": 15}}))
    model = FlaxViTClsForImageClassification.from_pretrained(folder)
    pixels = model.image_processor(PHOTO)["pixel_values"]
    np.testing.assert_array_equal(model(pixels).logits, model(pixels[:, :, :12, :12]).logits)


def test_a_processor_of_other_channels_or_another_size_is_refused_before_any_image(tmp_path):
    half = {"image_mean": (0.5,), "image_std": (0.5,)}
    grey = ViTClsImageProcessor(size={"height": 8, "width": 8}, **half)
    any_size = FlaxViTClsForImageClassification(tiny_config(num_labels=10, dynamic_image_size=True))
    one_size = FlaxViTClsForImageClassification(tiny_config(num_labels=10))
    for model, processor in (
        (any_size, grey),
        (any_size, grey.at_size((12, 12))),
        (one_size, one_size.image_processor.at_size((12, 12))),
    ):
        for field, meet in (
            ("processor", lambda model, other: ImageClassificationPipeline(model, other)),
            ("processor", lambda model, other: benchmark(model, ROWS, processor=other, on_bad_image="skip")),
            (
                "processing_class",
                lambda model, other: FlaxTrainer(model, TrainingArguments(str(tmp_path)), ROWS, processing_class=other),
            ),
        ):
            with pytest.raises(ConfigError, match="must give .* pixels and 3 channels, as the model takes") as refused:
                meet(model, processor)
            assert refused.value.field == field


def test_a_program_takes_the_size_of_the_processor_beside_it(tmp_path):
    jax_export = pytest.importorskip("jax.export")
    pytest.importorskip("flatbuffers")
    model = FlaxViTClsForImageClassification.from_pretrained(checkpoint(tmp_path / "theirs", "ViT"))
    export_pretrained(model, tmp_path / "program", to="stablehlo")
    program = jax_export.deserialize(bytearray((tmp_path / "program" / "model.stablehlo").read_bytes()))
    pixels = ViTClsImageProcessor.from_pretrained(tmp_path / "program")(PHOTO)["pixel_values"]
    found = program.call(load_file(tmp_path / "program" / "model.safetensors"), pixels)["logits"]
    np.testing.assert_allclose(found, model(pixels, interpolate_pos_encoding=True).logits, atol=1e-5)


def test_exports_keep_the_processor_or_say_what_is_other(tmp_path, caplog):
    model = FlaxViTClsForImageClassification.from_pretrained(checkpoint(tmp_path / "theirs", "DINOv2"))
    export_pretrained(model, tmp_path / "again", to="transformers")
    again = FlaxViTClsForImageClassification.from_pretrained(tmp_path / "again")
    assert (again.image_processor.output_hw, again.config.dynamic_image_size) == ((12, 12), True)
    siglip = {"image_size": 8, "use_cls_token": False, "readout": "map", "hidden_act": "gelu_pytorch_tanh"}
    naflex = FlaxViTClsModel(tiny_config(**siglip, dynamic_image_size=True))
    naflex.image_processor = ViTClsImageProcessor.from_fields(NAFLEX)
    caplog.clear()
    export_pretrained(naflex, tmp_path / "siglip", to="transformers")
    assert "max_num_patches" in caplog.text
    assert "dynamic_image_size=True" in caplog.text
    assert FlaxViTClsModel.from_pretrained(tmp_path / "siglip").image_processor.output_hw == (8, 8)


def test_a_processor_that_is_not_followed_never_stops_a_model(tmp_path, caplog):
    folder = checkpoint(tmp_path / "vit", "ViT")
    for content, words in {
        '{"size": 12, "crop_pct": 0.875}': "crop_pct=0.875",
        '{"image_processor_type": "SamImageProcessor"}': "image_processor_type='SamImageProcessor'",
        "{": "JSON",
        "[]": "JSON",
        '{"image_processor": 3}': "image_processor=3",
    }.items():
        name = "processor_config.json" if "image_processor=3" in words else "preprocessor_config.json"
        (folder / "processor_config.json").unlink(missing_ok=True)
        (folder / name).write_text(content)
        caplog.clear()
        model = FlaxViTClsForImageClassification.from_pretrained(folder)
        assert words in caplog.text
        with pytest.raises(CheckpointError, match=words) as error:
            _ = model.image_processor
        assert str(folder / name) in str(error.value)
        shutil.rmtree(tmp_path / "ours", ignore_errors=True)
        model.save_pretrained(tmp_path / "ours")
        with pytest.raises(CheckpointError):
            _ = model.with_readout("mean").image_processor
        with pytest.raises(CheckpointError):  # the new folder means no other processor
            _ = FlaxViTClsForImageClassification.from_pretrained(tmp_path / "ours").image_processor
        model.image_processor = ViTClsImageProcessor(size={"height": 16, "width": 16})
        assert model.image_processor.output_hw == (16, 16)


def test_a_family_without_a_file_has_the_processor_of_its_papers():
    for name in ("dinov2", "meta_dinov2"):
        config = FlaxViTClsModel.from_pretrained(golden(name)).config
        processor = FlaxViTClsModel.from_pretrained(golden(name)).image_processor
        assert processor.output_hw == config.image_hw
        assert processor.size == {"shortest_edge": round(config.image_hw[0] * 256 / 224)}
    clip = FlaxViTClsModel.from_pretrained(golden("clip"))
    assert clip.image_processor.size == {"shortest_edge": clip.config.image_hw[0]}
    flexible = FlaxViTClsModel.from_pretrained(golden("siglip2")).image_processor
    assert set(flexible.size) == {"max_num_patches", "patch_size"}


def test_dinov2_of_the_usual_size_is_measured_at_224_pixels():
    from modeling_vit_cls.families import FAMILIES

    config = ViTClsConfig.from_variant("vit_cls_small_patch14_224", image_size=518)
    for family in FAMILIES:
        if family.name in ("Meta's DINOv2", "transformers DINOv2", "transformers DINOv2 with registers"):
            fields = family.processor({}, config)
            assert (fields["size"], fields["crop_size"]) == ({"shortest_edge": 256}, {"height": 224, "width": 224})


def test_a_backbone_has_attention_maps_without_labels():
    assert pixels_of(attention_maps(tiny_model(FlaxViTClsModel), [PHOTO])).ndim == 3


def test_checkpoints_that_were_saved_before_still_have_their_stamp():
    assert architecture_digest(ViTClsConfig()) == "39d8346d8c9bba1890093ce941dab785"
    assert architecture_digest(ViTClsConfig(dynamic_image_size=True)) == architecture_digest(ViTClsConfig())
    assert architecture_digest(ViTClsConfig(num_cls_tokens=2)) != architecture_digest(ViTClsConfig())
