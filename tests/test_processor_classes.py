"""Fields of a preprocessor_config.json: the pixels of transformers' own class, whatever the file leaves out."""

import itertools
import json
import logging

import numpy as np
import pytest
import transformers
from conftest import tiny_config
from PIL import Image
from transformers import AutoImageProcessor

from modeling_vit_cls import ConfigError, FlaxViTClsForImageClassification, ViTClsImageProcessor, export_pretrained
from modeling_vit_cls.images.processor import whole_patches
from modeling_vit_cls.images.processor_classes import CLASSES

pytestmark = pytest.mark.world

IS_4 = transformers.__version__.startswith("4.")
ON_PILLOW: dict = {"use_fast": False} if IS_4 else {"backend": "pil"}  # whether torchvision is there or not
LAYOUT = {"input_data_format": "channels_last"} if IS_4 else {}  # which 4.57 would guess, wrong for one row of pixels
# Photographs, and what rounding goes wrong on: odd, narrow, one pixel high, smaller than the crop, saturated noise.
SIZES = [(211, 317), (317, 211), (224, 224), (97, 260), (31, 17), (1, 40), (256, 255)]
NOISE = np.random.default_rng(0).choice([0, 255, 3, 90, 201], (*np.max(SIZES, axis=0), 3)).astype(np.uint8)
IMAGES = [Image.fromarray(NOISE[:height, :width]) for height, width in SIZES]
LEFT_OUT = ("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor")
LEFT_OUT += ("do_normalize", "image_mean", "image_std")
# DINOv3's and TIPSv2's are of torchvision alone, SigLIP 2's gives patches and has a test of its own, ViT hybrid's is
# not in 5, and Chinese CLIP's of 4.57 fails on its own default size.
NOT_COMPARED = {"DINOv3ViTImageProcessor", "Tipsv2ImageProcessor", "Siglip2ImageProcessor", "ViTHybridImageProcessor"}
COMPARED = sorted(set(CLASSES) - NOT_COMPARED - ({"ChineseCLIPImageProcessor"} if IS_4 else set()))


@pytest.fixture(autouse=True, scope="module")
def quiet():
    """Not a line for each processor that torchvision is missing."""
    level = logging.getLogger("transformers").level
    transformers.utils.logging.set_verbosity_error()
    yield
    logging.getLogger("transformers").setLevel(level)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A ViT's config.json, which says what a file without a class means."""
    folder = tmp_path_factory.mktemp("vit")
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    return folder


def theirs(folder, fields):
    (folder / "preprocessor_config.json").write_text(json.dumps(fields))
    return AutoImageProcessor.from_pretrained(folder, **ON_PILLOW)


def assert_same_pixels(folder, fields, unnamed="ViTImageProcessor", images=IMAGES):
    """Ours and transformers' processor of a file give the same pixels, image by image."""
    other, ours = theirs(folder, fields), ViTClsImageProcessor.from_fields(fields, unnamed)
    for image in images:
        expected = np.asarray(other(image, return_tensors="np", **LAYOUT)["pixel_values"])
        np.testing.assert_allclose(
            ours(image)["pixel_values"], expected, rtol=1e-6, atol=2e-6, err_msg=str((fields, image.size))
        )


def full(name: str) -> dict:
    """All fields of a class, none of them its default, at a small size."""
    edge = name in ("ConvNextImageProcessor", "PoolFormerImageProcessor", "LevitImageProcessor")
    fields = {"do_resize": True, "size": {"shortest_edge": 40} if edge else {"height": 40, "width": 40}, "resample": 1}
    fields |= {"do_rescale": True, "rescale_factor": 1 / 127, "do_normalize": True}
    fields |= {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.9, 0.8, 0.7], "image_processor_type": name}
    crops = CLASSES[name].defaults.get("do_center_crop")
    return fields | ({"do_center_crop": True, "crop_size": {"height": 32, "width": 32}} if crops else {})


@pytest.mark.parametrize("name", COMPARED)
def test_a_field_left_out_is_the_default_of_the_class_that_is_named(name, folder):
    whole = full(name)
    assert_same_pixels(folder, whole)
    for field in [field for field in LEFT_OUT if field in whole]:
        assert_same_pixels(folder, {key: value for key, value in whole.items() if key != field}, images=IMAGES[:2])
        if field.startswith("do_"):  # null is false
            assert_same_pixels(folder, whole | {field: None}, images=IMAGES[:1])
    assert_same_pixels(folder, {"image_processor_type": name}, images=IMAGES[:3])
    assert_same_pixels(folder, {"image_processor_type": name, "do_resize": False, "do_normalize": False})


@pytest.mark.parametrize("name", COMPARED)
def test_each_spelling_of_a_class_and_each_form_of_a_size(name, folder):
    small = {key: value for key, value in full(name).items() if key not in ("size", "crop_size")}
    crop = {"do_center_crop": True, "crop_size": 24} if small.pop("do_center_crop", False) else {}
    sizes: list = [40, {"shortest_edge": 40}]
    if name not in ("ConvNextImageProcessor", "LevitImageProcessor"):
        sizes += [[40, 30], {"height": 30, "width": 40}]
    if IS_4:  # where some classes take a dict alone
        sizes = [size for size in sizes if name != "SiglipImageProcessor" or isinstance(size, dict)]
        squares = {"ViT", "DeiT", "Siglip", "Blip", "Beit", "Flava", "Pvt", "EfficientNet"}
        is_square = name.removesuffix("ImageProcessor") in squares
        sizes = [size for size in sizes if not (is_square and size == {"shortest_edge": 40})]
        sizes = [size for size in sizes if name != "PoolFormerImageProcessor" or size != [40, 30]]
    for size in sizes:
        assert_same_pixels(folder, {**small, **crop, "size": size}, images=IMAGES[:2])
    if crop:
        assert_same_pixels(folder, {**small, "do_center_crop": True, "size": 40, "crop_size": [24, 30]}, images=IMAGES)
    for spelling in ("FeatureExtractor", "ImageProcessorFast"):
        other = {**small, **crop, "size": 40 if not IS_4 or name != "SiglipImageProcessor" else sizes[0]}
        key = "feature_extractor_type" if "Feature" in spelling else "image_processor_type"
        other.pop("image_processor_type")
        assert_same_pixels(folder, {**other, key: name.replace("ImageProcessor", spelling)}, images=IMAGES[:2])


@pytest.mark.filterwarnings("ignore:The following named arguments are not valid for `Beit:UserWarning")  # by 4.57
@pytest.mark.parametrize("name", COMPARED)
def test_a_size_of_one_number_is_what_default_to_square_says(name, folder):
    crop = {"do_center_crop": True, "crop_size": 24} if CLASSES[name].defaults.get("do_center_crop") else {}
    if IS_4 and name == "SiglipImageProcessor":
        pytest.skip("4.57's class takes no size of one number")
    for square in (True, False, None):
        fields = {"image_processor_type": name, "size": 40, "default_to_square": square, **crop}
        if name == "ConvNextImageProcessor" and square and not IS_4:
            with pytest.raises(ConfigError, match="size"):  # a square is no shortest edge, which transformers needs
                ViTClsImageProcessor.from_fields(fields)
            continue
        assert_same_pixels(folder, fields, images=IMAGES[:2])
        del fields["image_processor_type"]
        fields["feature_extractor_type"] = name.replace("ImageProcessor", "FeatureExtractor")
        assert_same_pixels(folder, fields, images=IMAGES[:2])
        assert_same_pixels(folder, {key: fields[key] for key in ("size", "default_to_square")}, images=IMAGES[:2])


@pytest.mark.parametrize(("square", "size"), [(True, {"height": 40, "width": 40}), (False, {"shortest_edge": 40})])
def test_a_class_whose_name_ends_in_fast_follows_default_to_square_in_each_version(square, size):
    for name in ("ViTImageProcessorFast", "CLIPImageProcessorFast", "SiglipImageProcessorFast"):
        fields = {"image_processor_type": name, "size": 40, "default_to_square": square}
        assert ViTClsImageProcessor.from_fields(fields).size == size


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("ConvNextImageProcessor", {"size": 48, "crop_pct": 0.75}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 400}, "crop_pct": 0.75}),
        ("PoolFormerImageProcessor", {"size": 48, "crop_pct": 0.75, "crop_size": 40}),
        ("LevitImageProcessor", {"size": {"height": 40, "width": 50}, "do_center_crop": False}),
        ("EfficientNetImageProcessor", {"size": 40, "rescale_factor": 1 / 127.5, "rescale_offset": True}),
        ("EfficientNetImageProcessor", {"size": 40, "include_top": False, "image_std": [0.4, 0.3, 0.2]}),
        ("EfficientNetImageProcessor", {"size": 40, "do_normalize": False, "image_std": [0.4, 0.3, 0.2]}),
        ("EfficientNetImageProcessor", {"size": 40, "do_center_crop": True, "crop_size": 33}),
        ("ViTImageProcessor", {"size": 40, "do_center_crop": True, "crop_size": 32}),
        ("SiglipImageProcessor", {"do_center_crop": True, "crop_size": 32}),
        ("ViTImageProcessor", {"image_mean": 0.25, "image_std": 0.5}),
    ],
)
def test_what_one_class_alone_does_is_done(name, fields, folder):
    assert_same_pixels(folder, {"image_processor_type": name, **fields})


def test_a_file_without_a_class_means_its_familys(folder):
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    for kind, name in (("vit", "ViT"), ("deit", "DeiT"), ("clip", "CLIP"), ("dinov2", "Bit"), ("siglip", "Siglip")):
        (folder / "config.json").write_text(json.dumps({"model_type": kind}))
        for fields in ({}, half, {"resample": 0}, {"crop_size": 30, "do_center_crop": True}):
            if fields or not IS_4:
                assert_same_pixels(folder, fields, f"{name}ImageProcessor", IMAGES[:2])
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))


@pytest.mark.parametrize("patches", [256, 64, 1, 1024])
def test_naflex_keeps_the_aspect_ratio_within_its_patches(patches):
    name = "Siglip2ImageProcessor"
    fields = {"image_processor_type": name, "max_num_patches": patches, "patch_size": 16, "size": {"height": 8}}
    other = (getattr(transformers, f"{name}Pil", None) or getattr(transformers, name))(max_num_patches=patches)
    ours = ViTClsImageProcessor.from_fields(fields)
    for image in IMAGES:
        expected, found = other(image, return_tensors="np", **LAYOUT), ours(image)["pixel_values"][0]
        rows, columns = expected["spatial_shapes"][0]
        assert found.shape == (3, 16 * rows, 16 * columns)
        cut = found.reshape(3, rows, 16, columns, 16).transpose(1, 3, 2, 4, 0).reshape(rows * columns, -1)
        np.testing.assert_allclose(cut, np.asarray(expected["pixel_values"])[0][: rows * columns], rtol=1e-6, atol=2e-6)


def test_naflex_never_has_more_patches_than_it_may():
    sides = np.random.default_rng(0).integers(1, 3000, (300, 2)).tolist()
    for (height, width), patches in itertools.product(sides, (1, 49, 256)):
        rows, columns = (side // 14 for side in whole_patches((height, width), patches, 14))
        assert 1 <= rows * columns <= patches


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"image_processor_type": "SamImageProcessor"}, "image_processor_type"),
        ({"image_processor_type": ["ViTImageProcessor"]}, "image_processor_type"),
        ({"auto_map": {"AutoImageProcessor": "code.Processor"}}, "auto_map"),
        ({"image_processor_type": "ViTImageProcessor", "crop_pct": 0.9}, "crop_pct"),
        ({"image_processor_type": "ViTImageProcessor", "rescale_offset": True}, "rescale_offset"),
        ({"image_processor_type": "ConvNextImageProcessor", "crop_pct": "0.9", "size": 9}, "crop_pct"),
        ({"image_processor_type": "ConvNextImageProcessor", "crop_pct": 0, "size": 9}, "crop_pct"),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"height": 9, "width": 9}}, "size"),
        ({"image_processor_type": "CLIPImageProcessor", "size": {"longest_edge": 9}}, "size"),
        ({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 9, "longest_edge": 20}}, "size"),
        ({"image_processor_type": "LevitImageProcessor", "size": {"shortest_edge": "9"}}, "size"),
        ({"image_processor_type": "PoolFormerImageProcessor", "size": [1, 2, 3]}, "size"),
        ({"image_processor_type": "EfficientNetImageProcessor", "image_std": "half"}, "image_std"),
        ({"image_processor_type": "EfficientNetImageProcessor", "image_mean": [None] * 3}, "image_mean"),
        ({"image_processor_type": "Siglip2ImageProcessor", "patch_size": 0}, "size"),
        ({"image_processor_type": "Siglip2ImageProcessor", "max_num_patches": "256"}, "size"),
        ({"image_processor_type": "BlipImageProcessor", "do_pad": True}, "do_pad"),
        ({"image_processor_type": "CLIPImageProcessor", "use_square_size": True}, "use_square_size"),
        ({"image_processor_type": "MobileViTImageProcessor", "do_flip_channel_order": True}, "do_flip_channel_order"),
    ],
)
def test_what_is_not_done_is_refused_by_field(fields, named):
    with pytest.raises(ConfigError) as error:
        ViTClsImageProcessor.from_fields(fields)
    assert error.value.field == named


def test_a_nested_processor_is_read_and_does_not_survive_a_save(tmp_path):
    model = FlaxViTClsForImageClassification(tiny_config(layer_norm_eps=1e-12))
    export_pretrained(model, tmp_path / "vit", to="transformers")
    nested = {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}, "image_mean": [0.1] * 3}
    (tmp_path / "vit" / "processor_config.json").write_text(json.dumps({"image_processor": nested}))
    for both in (True, False):
        if not both:
            (tmp_path / "vit" / "preprocessor_config.json").unlink()
        loaded = FlaxViTClsForImageClassification.from_pretrained(tmp_path / "vit")
        other = AutoImageProcessor.from_pretrained(tmp_path / "vit")
        assert list(loaded.image_processor.image_mean) == list(other.image_mean)
    loaded.image_processor = ViTClsImageProcessor(size={"height": 8, "width": 8}, image_mean=[0.3] * 3)
    loaded.save_pretrained(tmp_path / "vit")
    again = FlaxViTClsForImageClassification.from_pretrained(tmp_path / "vit")
    assert (
        again.image_processor.image_mean == AutoImageProcessor.from_pretrained(tmp_path / "vit").image_mean == [0.3] * 3
    )
    (tmp_path / "vit" / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    loaded.save_pretrained(tmp_path / "vit")  # which is of a tokenizer: the user's own
    assert (tmp_path / "vit" / "processor_config.json").exists()
