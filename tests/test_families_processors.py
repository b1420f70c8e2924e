"""Image processors and labels of other libraries' checkpoints: read as the source does, or refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_families import golden, load

from modeling_vit_cls import CheckpointError, ConfigError, FlaxViTClsForImageClassification

pytestmark = pytest.mark.world


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
            model = FlaxViTClsForImageClassification.from_pretrained(tmp_path)
            with pytest.raises(CheckpointError, match=rf"config\.json.*{field}") as error:
                _ = model.image_processor
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
def test_an_image_processor_that_cannot_be_is_named_by_file_and_field(field, value, tmp_path, caplog):
    for file in ("config.json", "model.safetensors"):
        shutil.copy(golden("vit") / file, tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({field: value}))
    model = FlaxViTClsForImageClassification.from_pretrained(tmp_path)
    assert f"{field}=" in caplog.text
    with pytest.raises(CheckpointError, match=f"{field}=") as error:
        _ = model.image_processor
    assert str(error.value).startswith(f"{file}: ")
    model.save_pretrained(tmp_path / "ours")  # which means no other processor either
    again = FlaxViTClsForImageClassification.from_pretrained(tmp_path / "ours")
    with pytest.raises(CheckpointError):
        _ = again.image_processor
