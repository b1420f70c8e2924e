"""The image processor: transformers' numbers on ordinary images, and right pixels from all the others."""

import collections
import io
import struct
import zlib

import datasets
import numpy as np
import pandas
import pytest
import transformers
from conftest import tiny_config
from PIL import Image
from test_fault_images import png
from transformers import AutoImageProcessor
from transformers.image_utils import ChannelDimension

from modeling_vit_cls import BadImageError, ConfigError, ViTClsImageProcessor
from modeling_vit_cls.images.processor import load_image

pytestmark = pytest.mark.world

RAMP = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).resize((640, 480), 3)
NATIVE = ViTClsImageProcessor(do_resize=False, do_normalize=False, do_rescale=False)


def pixels_of(image) -> np.ndarray:
    """What arrives of an image, 0..255, as (H, W, 3)."""
    return NATIVE(image)["pixel_values"][0].transpose(1, 2, 0)


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("size", [(224, 224), (96, 160)])
def test_bit_identical_to_transformers_own(resample, size):
    size = {"height": size[0], "width": size[1]}
    theirs = getattr(transformers, "ViTImageProcessorPil", None) or transformers.ViTImageProcessor
    expected = theirs(size=size, resample=resample)(PHOTO, return_tensors="np")["pixel_values"]
    found = ViTClsImageProcessor(size=size, resample=resample)(PHOTO, return_tensors="np")["pixel_values"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_shortest_edge_and_crop_as_transformers():
    arguments = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "resample": 3}
    theirs = getattr(transformers, "BitImageProcessorPil", None) or transformers.BitImageProcessor
    for image in (PHOTO, PHOTO.rotate(90, expand=True)):
        mean = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
        expected = theirs(**arguments, **mean)(image, return_tensors="np")["pixel_values"]
        found = ViTClsImageProcessor(**arguments, **mean, do_center_crop=True)(image)["pixel_values"]
        assert found.shape == (1, 3, 224, 224)
        np.testing.assert_allclose(found, expected, atol=1e-6)


# Margin of a central crop -> where it begins in torchvision and timm; tests/parity.py asks torchvision itself.
CROP_STARTS = {-5: -2, -3: -1, -2: -1, -1: 0, 0: 0, 1: 0, 2: 1, 3: 2, 4: 2, 5: 2, 7: 4, 9: 4, 11: 6}


def test_an_odd_margin_is_split_as_the_library_does_that_is_named(tmp_path):
    for margin, start in CROP_STARTS.items():
        columns = np.tile(np.arange(1, 21 + margin, dtype=np.uint8), (4, 1))
        for rounding, expected in (("torchvision", start), ("transformers", margin // 2)):
            crop = {"do_center_crop": True, "crop_size": {"height": 4, "width": 20}, "crop_rounding": rounding}
            processor = ViTClsImageProcessor(do_resize=False, do_normalize=False, do_rescale=False, **crop)
            processor.save_pretrained(tmp_path)
            found = ViTClsImageProcessor.from_pretrained(tmp_path)(columns)["pixel_values"][0, 0, 0]
            whole = np.concatenate([np.zeros(9), columns[0], np.zeros(9)])
            np.testing.assert_array_equal(found, whole[9 + expected :][:20])


def test_the_smallest_size_that_covers_both_sides():
    cover = ViTClsImageProcessor(size={"min_height": 36, "min_width": 54}, do_rescale=False, do_normalize=False)
    for size, expected in {(60, 40): (54, 36), (41, 90): (54, 119), (97, 43): (81, 36), (7, 5): (54, 39)}.items():
        assert cover(PHOTO.resize(size))["pixel_values"].shape[2:] == expected[::-1]  # timm's ResizeKeepRatio, 1.0.31


def test_save_and_load(tmp_path):
    processor = ViTClsImageProcessor(size={"height": 8, "width": 12}, image_mean=[0.1, 0.2, 0.3], resample=3)
    processor.save_pretrained(tmp_path)
    again = ViTClsImageProcessor.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again(PHOTO)["pixel_values"], processor(PHOTO)["pixel_values"])
    tiny_config().save_pretrained(tmp_path)
    assert isinstance(AutoImageProcessor.from_pretrained(tmp_path), ViTClsImageProcessor)


def test_for_config_emits_what_the_model_takes():
    for config in (tiny_config(image_size=(8, 12)), tiny_config(num_channels=1)):
        found = ViTClsImageProcessor.for_config(config)(PHOTO, return_tensors="jax")["pixel_values"]
        assert found.shape == (1, config.num_channels, *config.image_hw)
        assert -1 <= found.min() <= found.max() <= 1


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "RGBX", "PA", "RGBa"])
def test_every_mode_gives_rgb(mode):
    source = PHOTO.convert({"PA": "LA", "RGBa": "RGBA"}.get(mode, "RGB")).convert(mode)
    found = pixels_of(source)
    assert found.shape == (480, 640, 3)
    if mode not in ("1", "P"):
        assert abs(found.mean() - np.asarray(PHOTO).mean()) < 3


def test_grey_in_a_batch_of_colour():
    assert ViTClsImageProcessor()([PHOTO, PHOTO.convert("L"), PHOTO.convert("1")])["pixel_values"].shape[0] == 3


@pytest.mark.parametrize("mode", ["I;16", "I of PPM", "array"])
def test_sixteen_bits_keep_their_order(mode):
    file = io.BytesIO()
    Image.fromarray(RAMP).save(file, "PPM")
    images = {"I;16": Image.fromarray(RAMP), "I of PPM": Image.open(file), "array": RAMP}
    found = pixels_of(images[mode])[..., 0]
    assert (np.diff(found.ravel()) >= 0).all()
    assert (found.min(), found.max()) == (0, 255)
    assert np.corrcoef(found.ravel(), RAMP.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("kind", ["in memory", "bytes of TIFF"])
def test_whole_numbers_of_32_bits_are_pixels_up_to_255(kind):
    """`datasets` keeps arrays of int64 as such images; their range beyond 255 cannot be known."""

    def image(high):
        grey = Image.fromarray(np.linspace(0, high, 16).astype(np.int32).reshape(4, 4))
        if kind == "in memory":
            return grey
        file = io.BytesIO()
        grey.save(file, "TIFF")
        return file.getvalue()

    np.testing.assert_array_equal(pixels_of(image(255))[..., 0], np.arange(0, 256, 17).reshape(4, 4))
    for high in (256, 4095, 65535, 1 << 20, -1):
        with pytest.raises(BadImageError, match=f"32-bit integers from .*{high}.*, expected 0 to 255: make it uint8"):
            pixels_of(image(high))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, tmp_path):
    upright = np.asarray(PHOTO)
    turned = upright.swapaxes(0, 1)
    stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1]}
    stored |= {5: turned, 6: turned[::-1], 7: turned[::-1, ::-1], 8: turned[:, ::-1]}
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored[orientation])).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), upright)


def test_transparency_is_laid_on_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (pixels_of(clear) == 255).all()
    half = pixels_of(Image.new("RGBA", (4, 4), (0, 0, 0, 128)))
    assert abs(half - 127).max() <= 1


def test_a_palette_with_transparent_colours_is_laid_on_white():
    image = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    image.paste((0, 90, 0, 255), (0, 0, 2, 4))
    palette = image.quantize()
    assert palette.palette.mode == "RGBA"
    np.testing.assert_array_equal(pixels_of(palette), pixels_of(image))


@pytest.mark.parametrize(("value", "colours"), [("B", 1), ("H", 1), ("B", 3), ("H", 3)], ids=str)
def test_the_colour_that_a_png_names_as_transparent_is_white(value, colours, tmp_path):
    """Two rows of one pixel, the second of them transparent; "B" are 8 bits, "H" 16."""
    visible, clear = (60000, 1000) if value == "H" else (200, 4)
    rows = b"".join(b"\0" + struct.pack(f">{colours}{value}", *[number] * colours) for number in (visible, clear))
    options = {"bits": 8 * struct.calcsize(value), "colours": colours}
    file = png(1, 2, zlib.compress(rows), clear=struct.pack(f">{colours}H", *[clear] * colours), **options)
    (tmp_path / "a.png").write_bytes(file)
    first, second = pixels_of(tmp_path / "a.png")[:, 0]
    assert (second == 255).all()
    assert (abs(first - (234 if value == "H" else 200)) <= 1).all()


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (pixels_of(tmp_path / "a.gif") == [255, 0, 0]).all()


def test_arrays_of_either_layout():
    upright = np.asarray(PHOTO)
    np.testing.assert_array_equal(pixels_of(upright), upright)
    np.testing.assert_array_equal(pixels_of(upright.transpose(2, 0, 1)), upright)
    assert pixels_of(upright[:, :, :1]).shape == (480, 640, 3)
    assert NATIVE(np.stack([upright, upright]))["pixel_values"].shape == (2, 3, 480, 640)


@pytest.mark.parametrize("number", [1, 3, 4])
def test_a_column_of_grey_images_is_as_many_images(number):
    """Three or four of them, stacked by NumPy, would be the channels of one image."""
    greys = [np.random.default_rng(0).integers(0, 256, (4, 6), dtype=np.uint8) + row for row in range(number)]
    images = [Image.fromarray(grey) for grey in greys]
    column = datasets.Dataset.from_dict({"image": images}).cast_column("image", datasets.Image())["image"]
    expected = NATIVE(images)["pixel_values"]
    assert expected.shape == (number, 3, 4, 6)
    for several in (column, collections.deque(images), pandas.Series(images), iter(images), tuple(greys)):
        np.testing.assert_array_equal(NATIVE(several)["pixel_values"], expected)
    with pytest.raises(BadImageError, match=r"list: expected a path, the bytes of a file .*or an array"):
        NATIVE([images])


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((8, 8, 3), np.float32), "uint8 or uint16, got float32"),
        (np.zeros((8, 8, 3), bool), "got bool"),
        (np.zeros((8, 8, 5), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((0, 8, 3), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((2, 2, 2, 2, 2), np.uint8), "1, 3 or 4 channels"),
        (Image.new("F", (4, 4)), "floating-point"),
        (Image.new("L", (20_000, 20_000)), "over the limit"),
        ("nowhere.png", "nowhere.png: there is no such file"),
        ("https://example.com/cat.png", "download it first"),
        (Image.new("RGB", (0, 5)), "is empty"),
        (None, "NoneType"),
        (3, "int"),
        ([], "empty batch"),
    ],
)
def test_what_is_no_image_is_named(image, words):
    with pytest.raises(BadImageError, match=words):
        ViTClsImageProcessor()(image)


def test_broken_files_are_named(tmp_path):
    PHOTO.save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    for name, content in {"cut.jpg": whole[:2000], "empty.png": b"", "text.png": b"<html>"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadImageError, match=name):
            load_image(tmp_path / name)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of the metadata that this test breaks
def test_mutated_files_raise_one_error_alone(tmp_path):
    generator = np.random.default_rng(0)
    small = PHOTO.resize((40, 30))
    for kind in ("jpg", "png", "webp", "gif", "bmp", "tiff"):
        file = tmp_path / f"a.{kind}"
        small.save(file)
        whole = np.frombuffer(file.read_bytes(), np.uint8)
        for _ in range(50):
            mutated = whole.copy()
            mutated[generator.integers(0, len(whole), 5)] = generator.integers(0, 256, 5)
            file.write_bytes(mutated[: generator.integers(len(whole) // 2, len(whole) + 1)].tobytes())
            try:
                assert pixels_of(file).shape[2] == 3
            except BadImageError as error:
                assert str(file) in str(error)  # noqa: PT017 (either outcome is right)


FOR_A_CALL = [
    {"do_rescale": False},
    {"do_normalize": False},
    {"do_resize": False},
    {"size": {"height": 16, "width": 24}, "resample": 3},
    {"size": 16},
    {"do_center_crop": True, "crop_size": {"height": 6, "width": 6}},
    {"image_mean": [0.1, 0.2, 0.3], "image_std": (0.4, 0.5, 0.6)},
    {"rescale_factor": 1 / 127.5},
]


@pytest.mark.parametrize("fields", FOR_A_CALL, ids=str)
def test_a_call_may_replace_fields_of_the_processor(fields):
    own = {"size": {"height": 8, "width": 12}, "image_mean": [0.4, 0.5, 0.6]}
    processor = ViTClsImageProcessor(**own)
    before = processor.to_dict()
    found = processor([PHOTO], return_tensors="np", **fields)["pixel_values"]
    np.testing.assert_array_equal(found, ViTClsImageProcessor(**{**own, **fields})([PHOTO])["pixel_values"])
    assert processor.to_dict() == before


def test_one_number_of_a_call_holds_for_each_channel_as_in_transformers():
    theirs = getattr(transformers, "ViTImageProcessorPil", None) or transformers.ViTImageProcessor
    given = {"size": {"height": 32, "width": 32}, "image_mean": 0.25, "image_std": 0.5}
    expected = theirs()(PHOTO, return_tensors="np", **given)["pixel_values"]
    np.testing.assert_array_equal(ViTClsImageProcessor()(PHOTO, **given)["pixel_values"], expected)


def test_what_means_nothing_in_a_call_changes_nothing():
    expected = ViTClsImageProcessor()(PHOTO)["pixel_values"]
    nothing = dict.fromkeys(("do_resize", "size", "image_mean", "data_format", "device", "do_pad", "do_convert_rgb"))
    given = {"input_data_format": "channels_last", "data_format": ChannelDimension.FIRST, "do_convert_rgb": True}
    for keywords in (nothing, {**given, "device": "cpu", "disable_grouping": True}):
        np.testing.assert_array_equal(ViTClsImageProcessor()(PHOTO, **keywords)["pixel_values"], expected)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"do_resise": False}, "did you mean 'do_resize'"),
        ({"return_tensor": "np"}, "did you mean 'return_tensors'"),
        ({"return_tensors": "pt"}, "return_tensors='pt': must be 'np', 'jax' or None; `torch.from_numpy`"),
        ({"data_format": "channels_last"}, "np.moveaxis"),
        ({"do_convert_rgb": False}, "always converted"),
        ({"device": "cuda"}, "leave it out"),
        ({"do_pad": True}, "prepare such pixel_values yourself"),
        ({"size": {"longest_edge": 8}}, "must have, in pixels"),
    ],
)
def test_keywords_of_a_call_that_cannot_work_are_named(keywords, words):
    with pytest.raises(ConfigError, match=words) as error:
        ViTClsImageProcessor()(PHOTO, **keywords)
    assert error.value.field in keywords


WRONG_FIELDS = [
    {"image_mean": [0.5, 0.5]},
    {"image_mean": "half"},
    {"image_std": [0, 1, 1]},
    {"image_std": [1]},
    {"size": (8, 8)},
    {"size": {"longest_edge": 8}},
    {"size": {"height": 8}},
    {"size": {"height": 0, "width": 8}},
    {"crop_size": {"shortest_edge": 8}},
    {"resample": "bicubic"},
    {"resample": True},
    {"resample": 2.0},
    {"image_mean": [0.5, float("nan"), 0.5]},
    {"image_std": [0.5, float("inf"), 0.5]},
    {"image_std": [True, True, True]},
    {"do_resize": "false"},
    {"do_center_crop": 1},
    {"size": True},
    {"size": {"height": True, "width": 8}},
    {"rescale_factor": "1/255"},
    {"rescale_factor": float("nan")},
    {"rescale_factor": 0},
    {"crop_rounding": "up"},
]


@pytest.mark.parametrize("fields", WRONG_FIELDS)
def test_fields_that_cannot_work_are_named(fields):
    with pytest.raises(ConfigError) as error:
        ViTClsImageProcessor(**fields)
    assert error.value.field in ("image_std", *fields)


def test_one_number_is_a_size_and_a_mean():
    assert ViTClsImageProcessor(size=8, image_mean=0.5, image_std=0.5)(PHOTO)["pixel_values"].shape == (1, 1, 8, 8)
    crop = ViTClsImageProcessor(size=32, crop_size=24, do_center_crop=True)
    assert (crop.size, crop(PHOTO)["pixel_values"].shape) == ({"shortest_edge": 32}, (1, 3, 24, 24))


def test_images_of_several_sizes_do_not_stack():
    with pytest.raises(BadImageError, match="images of one size"):
        NATIVE([PHOTO, PHOTO.rotate(90, expand=True)])
    with pytest.raises(BadImageError, match="would become"):
        ViTClsImageProcessor(size={"shortest_edge": 224})(Image.new("RGB", (1, 30_000)))


def test_the_callers_image_is_left_where_it_is(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.gif") as animation:
        animation.seek(1)
        assert (pixels_of(animation) == [0, 0, 255]).all()
        assert animation.tell() == 1
