"""Other libraries' checkpoints give their own library's numbers: golden folders written by tests/golden/make.py."""

import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import read_npz
from safetensors.numpy import load_file, save_file

from modeling_vit_cls import (
    ConfigError,
    FlaxAutoModel,
    FlaxAutoModelForImageClassification,
    FlaxViTClsForImageClassification,
    FlaxViTClsModel,
)

pytestmark = pytest.mark.world

# `make parity` points this at folders that the real libraries have just written.
GOLDEN = Path(os.environ.get("VIT_CLS_GOLDEN", Path(__file__).parent / "golden"))
FOLDERS = sorted(file.parent for file in GOLDEN.glob("*/expected.npz"))


def weights(folder: Path) -> Path:
    """What a user gives: the folder, or the file where the folder holds another npz, that of the expected numbers."""
    return folder / "checkpoint.npz" if (folder / "checkpoint.npz").exists() else folder


def load(folder: Path):
    expected = read_npz(folder / "expected.npz")
    kind = FlaxViTClsForImageClassification if "native.logits" in expected else FlaxViTClsModel
    model, report = kind.from_pretrained(weights(folder), output_loading_info=True)
    assert report.missing_keys + report.new_keys + report.mismatched_keys == []
    return model, expected


def compare(got, want, tolerance: float, what: str) -> None:
    difference = distance(got, want)
    assert difference < tolerance, f"{what}: {difference:.1e} of the output's scale"


def distance(got, want) -> float:
    """Largest difference, as a share of the output's scale."""
    return abs(np.asarray(got) - want).max() / abs(want).max()


def differences(folder: Path) -> dict[str, float]:
    """How far each output, in order of depth, is from the source library's: "native.block" -> distance."""
    model, expected = load(folder)
    found = {}
    for kind in ("native", "other"):
        if f"{kind}.pixels" not in expected:
            assert folder.name in ("flax_vit", "flax_dinov2_giant", "vitpose")  # which know no other size
            continue
        pixels = expected[f"{kind}.pixels"]
        outputs = model(
            pixels, output_hidden_states=True, interpolate_pos_encoding=pixels.shape[2:] != model.config.image_hw
        )
        embeddings, block, *_ = outputs.hidden_states
        for name, array in ({"embeddings": embeddings, "block": block} | dict(outputs)).items():
            if f"{kind}.{name}" in expected:
                found[f"{kind}.{name}"] = distance(array, expected[f"{kind}.{name}"])
    return found


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_numbers_are_those_of_the_source(folder):
    found = differences(folder)
    for name, difference in found.items():
        tolerance = 1e-5 if name.startswith("native") else 1e-4
        assert difference < tolerance, f"{name}: {difference:.1e} of the output's scale"
    names = {name.partition(".")[2] for name in found}
    assert names & {"logits", "pooler_output", "image_embeds"}
    # a tower inside a whole model gives no hidden states on transformers 4.57, see tests/golden/make.py
    assert names >= {"embeddings", "block"} or folder.name.endswith("_model")


def golden(name: str) -> Path:
    return GOLDEN / name


def test_auto_classes_load_them_too():
    model = FlaxAutoModelForImageClassification.from_pretrained(golden("vit"))
    assert isinstance(model, FlaxViTClsForImageClassification)
    assert isinstance(FlaxAutoModel.from_pretrained(golden("dinov3")), FlaxViTClsModel)


@pytest.mark.parametrize(
    "name", ["vit", "deit_teacher", "dinov2_giant", "dinov3", "siglip", "clip_projection", "timm_vit"]
)
def test_saved_as_ours_and_loaded_again_nothing_changes(name, tmp_path):
    model, expected = load(golden(name))
    model.save_pretrained(tmp_path)
    again = FlaxAutoModelForImageClassification if "native.logits" in expected else FlaxAutoModel
    again = again.from_pretrained(tmp_path)
    for ours, theirs in zip(jax.tree.leaves(again.params), jax.tree.leaves(model.params), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert again.image_processor.image_mean == model.image_processor.image_mean


def test_other_sizes_heads_and_readouts_keep_the_backbone():
    model, _ = load(golden("vit"))
    for overrides in ({"num_labels": 3}, {"readout": "mean"}, {"readout": "cls_mean"}, {"readout": "map"}):
        other = FlaxViTClsForImageClassification.from_pretrained(golden("vit"), **overrides)
        np.testing.assert_array_equal(
            other.params["vit_cls"]["encoder"]["layer_01"]["mlp"]["fc2"]["kernel"],
            model.params["vit_cls"]["encoder"]["layer_01"]["mlp"]["fc2"]["kernel"],
        )
    larger, report = FlaxViTClsModel.from_pretrained(golden("dinov2"), image_size=(12, 24), output_loading_info=True)
    expected = read_npz(golden("dinov2") / "expected.npz")
    assert report.interpolated_keys == ["embeddings.position_embedding.embedding"]
    outputs = larger(expected["other.pixels"], output_hidden_states=True)
    compare(outputs.hidden_states[0], expected["other.embeddings"], 1e-4, "embeddings at the new size")


def test_labels_come_from_the_source(tmp_path):
    for file in ("config.json", "model.safetensors"):
        shutil.copy(golden("vit") / file, tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    names = {str(i): f"kind {i}" for i in range(5)}
    fields |= {"id2label": names, "label2id": {name: int(i) for i, name in names.items()}}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert FlaxViTClsForImageClassification.from_pretrained(tmp_path).config.id2label[4] == "kind 4"


PROCESSORS = [
    ({"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}, "resample": 2}, (16, 16)),
    ({"feature_extractor_type": "ViTFeatureExtractor", "size": 16, "resample": 2, "do_normalize": True}, (16, 16)),
    (
        {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": 20},
            "crop_size": {"height": 16, "width": 16},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "resample": 3,
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
        },
        (16, 16),
    ),
    ({"feature_extractor_type": "CLIPFeatureExtractor", "size": 20, "crop_size": 16, "do_center_crop": True}, (16, 16)),
]


@pytest.mark.parametrize(("fields", "size"), PROCESSORS)
def test_image_processors_of_every_age_are_understood(fields, size, tmp_path):
    for file in ("config.json", "model.safetensors"):
        shutil.copy(golden("vit") / file, tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
    processor = FlaxViTClsForImageClassification.from_pretrained(tmp_path).image_processor
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    assert processor(image)["pixel_values"].shape == (1, 3, *size)
    for name in ("resample", "image_mean", "do_center_crop"):
        assert getattr(processor, name) == fields.get(name, getattr(processor, name))


def test_without_a_processor_of_its_own_a_family_has_its_known_one():
    assert load(golden("dinov2"))[0].image_processor.image_mean == [0.485, 0.456, 0.406]
    assert load(golden("vit"))[0].image_processor.image_mean == [0.5, 0.5, 0.5]
    assert load(golden("siglip"))[0].image_processor.resample == 3
    timm = load(golden("timm_vit"))[0].image_processor  # its config.json says crop_pct 0.9, bicubic, mean 0.5
    assert (timm.size, timm.crop_size) == ({"shortest_edge": 17}, {"height": 16, "width": 16})
    assert (timm.resample, timm.image_mean) == (3, [0.5, 0.5, 0.5])


def test_pixels_that_fill_no_patch_are_ignored_as_the_source_does(tmp_path):
    fields = json.loads((golden("siglip") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**fields, "image_size": 18}))  # SigLIP's 384 in patches of 14
    shutil.copy(golden("siglip") / "model.safetensors", tmp_path)
    model = FlaxViTClsModel.from_pretrained(tmp_path)
    assert (model.config.image_size, model.config.grid) == (18, (4, 4))
    pixels = np.random.default_rng(0).normal(size=(1, 3, 18, 18)).astype(np.float32)
    smaller = FlaxViTClsModel.from_pretrained(golden("siglip"))
    np.testing.assert_array_equal(model(pixels).pooler_output, smaller(pixels[:, :, :16, :16]).pooler_output)
    with pytest.raises(ConfigError, match="image_size=18: each side must be a multiple"):
        FlaxViTClsModel.from_pretrained(golden("siglip"), image_size=18)


def test_shards_of_another_library_are_read(tmp_path):
    shutil.copy(golden("vit") / "config.json", tmp_path)
    tensors = load_file(golden("vit") / "model.safetensors")
    shards = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for file in set(shards.values()):
        save_file({name: tensors[name] for name in tensors if shards[name] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    sharded, whole = (FlaxViTClsForImageClassification.from_pretrained(path) for path in (tmp_path, golden("vit")))
    jax.tree.map(np.testing.assert_array_equal, sharded.params, whole.params)


def test_a_text_may_stand_for_two_classes_as_in_imagenet(tmp_path, caplog):
    shutil.copy(golden("vit") / "model.safetensors", tmp_path)
    fields = json.loads((golden("vit") / "config.json").read_text())
    names = {"0": "crane", "1": "dog", "2": "cat", "3": "crane", "4": "owl"}
    fields |= {"id2label": names, "label2id": {name: int(i) for i, name in names.items()}}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    model = FlaxViTClsForImageClassification.from_pretrained(tmp_path)
    assert (model.config.id2label[0], model.config.id2label[3], model.config.label2id["crane"]) == ("crane", "crane", 3)
    model.save_pretrained(tmp_path / "ours")
    again = FlaxViTClsForImageClassification.from_pretrained(tmp_path / "ours")
    assert again.config.id2label == model.config.id2label
    fields["label2id"]["crane"] = 1
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert FlaxViTClsForImageClassification.from_pretrained(tmp_path).config.label2id["crane"] == 3
    assert "is not the inverse of id2label" in caplog.text
