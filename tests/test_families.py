"""Other libraries' checkpoints give their own library's numbers: golden folders written by tests/golden/make.py."""

import contextlib
import json
import os
import random
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import transformers
from flax.serialization import msgpack_restore, msgpack_serialize
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file, save_file

from modeling_vit_cls import (
    CheckpointError,
    ConfigError,
    FlaxAutoModel,
    FlaxAutoModelForImageClassification,
    FlaxViTClsForImageClassification,
    FlaxViTClsModel,
)

# `make parity` points this at folders that the real libraries have just written.
GOLDEN = Path(os.environ.get("VIT_CLS_GOLDEN", Path(__file__).parent / "golden"))
FOLDERS = sorted(file.parent for file in GOLDEN.glob("*/expected.npz"))


def weights(folder: Path) -> Path:
    """What a user gives: the folder, or the file where the folder holds another npz, that of the expected numbers."""
    return folder / "checkpoint.npz" if (folder / "checkpoint.npz").exists() else folder


def load(folder: Path):
    expected = np.load(folder / "expected.npz")
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
            assert folder.name == "flax_vit"  # which knows no other size
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


def read(folder: Path) -> dict[str, np.ndarray]:
    """All arrays of a golden folder's weight file, by their own names."""
    if (folder / "checkpoint.npz").exists():
        return dict(np.load(folder / "checkpoint.npz"))
    if (folder / "flax_model.msgpack").exists():
        tree = msgpack_restore((folder / "flax_model.msgpack").read_bytes())
        return {str(name): array for name, array in flatten_dict(tree, sep="/").items()}
    return load_file(folder / "model.safetensors")


def write(tensors: dict[str, np.ndarray], like: Path, folder: Path) -> Path:
    """The weight file of a golden folder with other contents, in `folder`."""
    if (like / "checkpoint.npz").exists():
        np.savez(folder / "checkpoint.npz", **tensors)  # pyright: ignore
        return folder / "checkpoint.npz"
    if (like / "flax_model.msgpack").exists():
        (folder / "flax_model.msgpack").write_bytes(msgpack_serialize(unflatten_dict(tensors, sep="/")))
        return folder / "flax_model.msgpack"
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder / "model.safetensors"


def no_part_of_the_model(folder: Path, name: str) -> bool:
    """Tensors that may be missing or anything: of text towers, of training, and a pooling that is not read."""
    if folder.name == "siglip_classifier" and ".head." in name:
        return True
    return name.endswith(("mask_token", "bias_mask", "periods")) or name.startswith(("text_", "logit_"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_each_tensor_removed_renamed_or_reshaped_is_named_and_each_square_one_turned_is_seen(folder, tmp_path):
    model, expected = load(folder)
    pixels, sizes = expected["native.pixels"], {"interpolate_pos_encoding": folder.name.startswith("meta_dinov3")}
    last = "logits" if "native.logits" in expected else "pooler_output"
    right = model(pixels, **sizes)[last]
    if (folder / "config.json").exists():
        shutil.copy(folder / "config.json", tmp_path)
    whole = read(folder)
    for name, tensor in whole.items():
        if no_part_of_the_model(folder, name):
            continue
        rest = {key: value for key, value in whole.items() if key != name}
        faults = {
            "removed": (rest, None),
            "renamed": ({**rest, name + "s": tensor}, name + "s"),
            "reshaped": ({**rest, name: np.append(tensor, tensor.dtype.type(0))}, name),
            "recast": ({**rest, name: tensor.astype(np.int32)}, name),
        }
        if name == "register_tokens":
            del faults["removed"]  # of a file without a config, what is left is a DINOv2 without registers
        for fault, (tensors, words) in faults.items():
            file = write(tensors, folder, tmp_path)
            words = words and re.escape(f"'{words}'").replace("/", "[./]")
            with pytest.raises((CheckpointError, ConfigError), match=words) as error:
                type(model).from_pretrained(file)
            assert str(file) in str(error.value) or "config.json" in str(error.value), fault
        if tensor.ndim == 2 and tensor.shape[0] == tensor.shape[1]:
            file = write({**rest, name: np.ascontiguousarray(tensor.T)}, folder, tmp_path)
            _, params = type(model).from_pretrained(file, _do_init=False)
            wrong = model(pixels, params=params, **sizes)[last]
            assert abs(wrong - right).max() > 1e-3, f"{name} transposed goes unseen"


def golden(name: str) -> Path:
    return GOLDEN / name


@pytest.mark.skipif(
    hasattr(transformers, "FlaxAutoModel"), reason="transformers 4.57 loads these as its own Flax classes"
)
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
    expected = np.load(golden("dinov2") / "expected.npz")
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


def with_channels(name: str, channels: int, folder: Path) -> Path:
    """A golden checkpoint whose patch embedding takes other channels."""
    tensors = load_file(golden(name) / "model.safetensors")
    key = {"timm_vit": "patch_embed.proj.weight", "torchvision": "conv_proj.weight"}[name]
    tensors[key] = np.resize(tensors[key], (len(tensors[key]), channels, *tensors[key].shape[2:]))
    save_file(tensors, folder / "model.safetensors")
    return folder


def timm_config(folder: Path, *, size: tuple[int, int] = (16, 16), said: dict | None = None, **changes) -> Path:
    """The config.json of the golden checkpoint of timm with other fields, in a folder that has its weights."""
    fields = json.loads((golden("timm_vit") / "config.json").read_text())
    fields["model_args"]["img_size"] = size
    fields["pretrained_cfg"] |= said or {}
    (folder / "config.json").write_text(json.dumps(fields | changes))
    if not (folder / "model.safetensors").exists():
        shutil.copy(golden("timm_vit") / "model.safetensors", folder)
    return folder


@pytest.mark.parametrize("name", ["timm_vit", "torchvision"])
def test_models_of_other_than_three_channels_load_and_are_saved(name, tmp_path):
    for channels in (1, 4):
        folder = tmp_path / str(channels)
        folder.mkdir()
        with_channels(name, channels, folder)
        if name == "timm_vit":
            timm_config(folder)
        model = FlaxViTClsForImageClassification.from_pretrained(folder)
        field = "image_mean" if channels == 1 else "num_channels"  # their numbers are those of three channels
        with pytest.raises(ConfigError) as error:
            _ = model.image_processor
        assert error.value.field == field
        model.save_pretrained(folder / "ours")
        assert (folder / "ours" / "preprocessor_config.json").exists() == (channels == 1)
        again = FlaxViTClsForImageClassification.from_pretrained(folder / "ours")
        with pytest.raises(ConfigError):
            _ = again.image_processor


def test_one_number_in_timms_config_is_that_of_each_channel(tmp_path):
    for channels in (1, 3):
        folder = tmp_path / str(channels)
        folder.mkdir()
        timm_config(with_channels("timm_vit", channels, folder), said={"mean": [0.25], "std": [0.5]})
        processor = FlaxViTClsForImageClassification.from_pretrained(folder).image_processor
        assert (processor.image_mean, processor.image_std) == ([0.25] * channels, [0.5] * channels)


def test_torchvisions_processor_is_that_of_the_models_size():
    model, _ = load(golden("torchvision"))
    processor, (height, width) = model.image_processor, model.config.image_hw
    assert (height, width) != (224, 224)
    assert processor.emits(model.config)
    assert (processor.size, processor.resample) == ({"shortest_edge": height}, 3)


def test_timms_ways_to_prepare_images_are_read_or_refused(tmp_path):
    name, crop = "bicubic", {"height": 16, "width": 16}
    for mode, share, size, cropped in (
        ("center", 0.9, {"shortest_edge": 17}, True),
        (None, None, {"shortest_edge": 18}, True),
        ("squash", 0.9, {"height": 17, "width": 17}, True),
        ("squash", 1.0, {"height": 16, "width": 16}, False),
    ):
        timm_config(tmp_path, said={"crop_mode": mode, "crop_pct": share, "interpolation": name})
        processor = FlaxViTClsForImageClassification.from_pretrained(tmp_path).image_processor
        assert (processor.size, processor.do_center_crop, processor.crop_size) == (size, cropped, crop)
        assert processor.crop_rounding == "torchvision"
    for name, number in (("box", 4), ("hamming", 5), ("lanczos", 1), ("nearest", 0), ("", 3)):
        timm_config(tmp_path, said={"interpolation": name})
        assert FlaxViTClsForImageClassification.from_pretrained(tmp_path).image_processor.resample == number
    for field, values in {
        "crop_mode": ["border", "middle", 3],
        "interpolation": ["random", "area", 3],
        "crop_pct": ["0.9", True, -1, float("nan")],
        "mean": [[0.5, float("nan"), 0.5], [0.5, 0.5], ["0.5"] * 3],
        "std": [[0.5, 0.0, 0.5], [True] * 3],
    }.items():
        for value in values:
            timm_config(tmp_path, said={field: value})
            with pytest.raises(CheckpointError, match=rf"config\.json.*{field}") as error:
                FlaxViTClsForImageClassification.from_pretrained(tmp_path)
            assert str(tmp_path / "config.json") in str(error.value)


def test_label_names_are_read_as_timm_does(tmp_path):
    names = ["cat", "dog", "owl", "crane", "crane"]
    old = json.loads((golden("timm_vit") / "config.json").read_text())
    old = {"architecture": old["architecture"], "model_args": old["model_args"], **old["pretrained_cfg"]}

    def labels_of(folder: Path) -> list[str]:
        return [*FlaxViTClsForImageClassification.from_pretrained(folder).config.id2label.values()]

    by_number = {str(i): name for i, name in enumerate(names)}
    for given in (names, by_number, dict(reversed(by_number.items()))):
        assert labels_of(timm_config(tmp_path, label_names=given)) == names
        assert labels_of(timm_config(tmp_path, said={"label_names": given})) == names
    assert labels_of(timm_config(tmp_path, said={"label_names": names}, label_names=names[::-1])) == names[::-1]
    (tmp_path / "config.json").write_text(json.dumps({**old, "labels": names}))
    assert labels_of(tmp_path) == names
    sparse = timm_config(tmp_path, label_names={"1": "dog", "3": "crane"})
    assert labels_of(sparse) == ["LABEL_0", "dog", "LABEL_2", "crane", "LABEL_4"]
    for wrong in (
        "abcde",
        names[:4],
        {"5": "cat"},
        {"cat": 1},
        {"-1": "cat"},
        {"1": "a", "01": "b"},
        [1, 2, 3, 4, 5],
        3,
    ):
        with pytest.raises(CheckpointError, match="label_names="):
            labels_of(timm_config(tmp_path, label_names=wrong))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_mean", [float("nan"), 0.5, 0.5]),
        ("image_std", [float("inf"), 0.5, 0.5]),
        ("do_resize", "false"),
        ("size", True),
        ("size", {"height": True, "width": 16}),
        ("crop_pct", 0.875),
        ("do_pad", True),
        ("rescale_factor", "1/255"),
    ],
)
def test_an_image_processor_that_cannot_be_is_named_by_file_and_field(field, value, tmp_path):
    for file in ("config.json", "model.safetensors"):
        shutil.copy(golden("vit") / file, tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({field: value}))
    with pytest.raises(CheckpointError, match=f"{field}=") as error:
        FlaxViTClsForImageClassification.from_pretrained(tmp_path)
    assert str(error.value).startswith(f"{file}: ")


def test_an_architecture_of_timm_with_another_block_is_refused(tmp_path):
    fields = json.loads((golden("timm_vit") / "config.json").read_text())
    shutil.copy(golden("timm_vit") / "model.safetensors", tmp_path)
    for name in ("vit_base_patch16_rpn_224", "vit_small_patch16_18x2_224", "resnet50"):
        (tmp_path / "config.json").write_text(json.dumps({**fields, "architecture": name}))
        with pytest.raises(CheckpointError, match=f"architecture='{name}' is none of timm's plain"):
            FlaxViTClsModel.from_pretrained(tmp_path)


def test_arguments_of_timm_are_read_or_refused(tmp_path):
    fields = json.loads((golden("timm_vit") / "config.json").read_text())
    shutil.copy(golden("timm_vit") / "model.safetensors", tmp_path)
    for given, act in (("gelu_tanh", "gelu_pytorch_tanh"), (None, "gelu")):
        arguments = {**fields["model_args"], "act_layer": given}
        (tmp_path / "config.json").write_text(json.dumps({**fields, "model_args": arguments}))
        assert FlaxViTClsModel.from_pretrained(tmp_path).config.hidden_act == act
    for name, value in (("norm_layer", "rmsnorm"), ("mlp_layer", "swiglu"), ("final_norm", False)):
        arguments = {**fields["model_args"], name: value}
        (tmp_path / "config.json").write_text(json.dumps({**fields, "model_args": arguments}))
        with pytest.raises(CheckpointError, match=f"model_args: {name}={value!r} is not known"):
            FlaxViTClsModel.from_pretrained(tmp_path)


def test_what_our_model_cannot_express_is_refused_by_name(tmp_path):
    shutil.copy(golden("vit_pooler") / "model.safetensors", tmp_path)
    fields = json.loads((golden("vit_pooler") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**fields, "pooler_act": "relu"}))
    with pytest.raises(CheckpointError, match="pooler_act='relu'"):
        FlaxViTClsModel.from_pretrained(tmp_path)


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


VALUES = [None, [], {}, "x", "", -1, 0, 3, 1.5, 10**30, 1e308, float("nan"), True, [1, 2], {"a": 1}, [[]]]


@pytest.mark.parametrize(
    "folder", [folder for folder in FOLDERS if (folder / "config.json").exists()], ids=lambda folder: folder.name
)
def test_a_foreign_config_with_anything_in_it_loads_or_is_refused_in_a_line(folder, tmp_path):
    fields, chance = json.loads((folder / "config.json").read_text()), random.Random(folder.name)
    for file in ("model.safetensors", "flax_model.msgpack"):
        if (folder / file).exists():
            shutil.copy(folder / file, tmp_path)
    for _ in range(12):
        changed = json.loads(json.dumps(fields))
        place = changed
        nested = [name for name, value in fields.items() if isinstance(value, dict) and value]
        if nested and chance.random() < 0.6:
            place = changed[chance.choice(nested)]
        place[chance.choice(sorted(place))] = chance.choice(VALUES)
        (tmp_path / "config.json").write_text(json.dumps(changed))
        with contextlib.suppress(CheckpointError, ConfigError):
            params = FlaxViTClsModel.from_pretrained(tmp_path).params
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_a_text_may_stand_for_two_classes_as_in_imagenet(tmp_path):
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
    with pytest.raises((ConfigError, CheckpointError), match="label2id"):
        FlaxViTClsForImageClassification.from_pretrained(tmp_path)
