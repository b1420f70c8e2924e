"""Datasets by name, batches in a reproducible order, augmentation."""

import io

import datasets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from modeling_vit_cls import BadImageError, ConfigError, ViTClsImageProcessor
from modeling_vit_cls.images.augmentation import Augmentation, augment, normalise
from modeling_vit_cls.images.batch import broken_rows
from modeling_vit_cls.images.batches import training_batches
from modeling_vit_cls.images.crop import random_crop
from modeling_vit_cls.images.sources import class_names, labelled, load_images, splits_of

GREY = ViTClsImageProcessor(size={"height": 8, "width": 8}, image_mean=[0.4], image_std=[0.3])
COLOUR = ViTClsImageProcessor(size={"height": 8, "width": 8}, image_mean=[0.4, 0.5, 0.6], image_std=[0.3, 0.2, 0.1])


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", "test")


@pytest.fixture
def folder(tmp_path):
    """Two classes, two splits, five images; colours tell them apart."""
    for number, (split, kind) in enumerate([("train", "cat"), ("train", "dog"), ("train", "dog"), ("test", "cat")]):
        place = tmp_path / "images" / split / kind
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 10), (number * 40, 0, 0)).save(place / f"{number}.png")
    return tmp_path / "images"


def test_digits_are_all_there_and_no_test_digit_is_trained_on(digits):
    train = load_images("digits", "train")
    assert (len(train), len(digits)) == (1437, 360)
    assert splits_of("digits") == ["train", "test"]
    assert class_names(train) == [str(i) for i in range(10)]
    paths = [{row["image"]["path"] for row in split} for split in (train, digits)]
    assert len(paths[0] | paths[1]) == 1797


def test_a_folder_of_images_is_a_dataset(folder):
    assert sorted(splits_of(str(folder))) == ["test", "train"]
    train = load_images(str(folder), "train")
    assert (class_names(train), sorted(train["label"])) == (["cat", "dog"], [0, 1, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "validation"}, "must be one of"),
        ({"image_column_name": "picture"}, "image_column_name='picture'"),
        ({"label_column_name": "image"}, "label_column_name='image': must be a column of a metadata file"),
        (
            {"dataset_name": "no/such"},
            "dataset_name='no/such': is neither 'digits', 'fashion_mnist', a local folder, nor a dataset",
        ),
    ],
)
def test_what_is_not_there_is_named(folder, change, message):
    arguments = {"dataset_name": str(folder), "split": "train"} | change
    with pytest.raises(ConfigError, match=message):
        load_images(arguments.pop("dataset_name"), arguments.pop("split"), **arguments)


def test_examples_without_a_class_are_refused():
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a"])})
    images = [Image.new("RGB", (4, 4))] * 2
    dataset = datasets.Dataset.from_dict({"image": images, "label": [0, -1]}, features=features)
    with pytest.raises(ConfigError, match="1 of 2 examples have no class, the first is row 1"):
        labelled(dataset)


def test_every_example_counts_once_an_epoch_and_each_epoch_has_its_order(digits):
    rows = [batch.rows for batch in training_batches(digits, GREY, batch_size=50, num_epochs=2, seed=3)]
    epochs = [np.concatenate(rows[:8]), np.concatenate(rows[8:])]
    for epoch in epochs:
        assert sorted(epoch[epoch >= 0]) == list(range(360))
    assert len(rows) == 16
    assert not np.array_equal(*epochs)


def test_batches_from_any_step_on_are_those_of_the_whole_run(digits):
    arguments = {"batch_size": 50, "num_epochs": 3, "seed": 3, "crop_scale": 0.5}
    whole = list(training_batches(digits, GREY, **arguments))
    for start in (0, 5, 8, 17):
        part = list(training_batches(digits, GREY, **arguments, start_step=start))
        assert len(part) == len(whole) - start
        assert all(np.array_equal(a, b) for x, y in zip(part, whole[start:]) for a, b in zip(x, y))


def test_processes_read_the_same_batches_as_threads(digits):
    few, arguments = digits.select(range(20)), {"batch_size": 8, "num_epochs": 2, "seed": 3, "crop_scale": 0.5}
    threads = list(training_batches(few, GREY, **arguments))
    processes = list(training_batches(few, GREY, **arguments, num_workers=1))
    assert all(np.array_equal(a, b) for x, y in zip(processes, threads, strict=True) for a, b in zip(x, y))


def test_a_process_that_reads_some_places_of_a_batch_gets_the_images_of_one_that_reads_all(digits):
    arguments = {"batch_size": 8, "num_epochs": 1, "seed": 3, "crop_scale": 0.5}
    for whole, part in zip(
        training_batches(digits, GREY, **arguments), training_batches(digits, GREY, **arguments, places=[6, 1])
    ):
        assert np.array_equal(part.pixels, whole.pixels[[6, 1]])


class Noted:
    """Grey images, of which each one that is read adds a byte to a file."""

    def __init__(self, file):
        self.file = file

    def __len__(self):
        return 400

    def __getitem__(self, row):
        with self.file.open("ab") as file:
            file.write(b".")
        png = io.BytesIO()
        Image.new("L", (8, 8)).save(png, "png")
        return {"image": {"bytes": png.getvalue(), "path": None}, "label": 0}


def test_a_process_reads_a_few_batches_ahead_and_not_the_whole_epoch(tmp_path):
    file = tmp_path / "reads"
    batches = training_batches(Noted(file), GREY, batch_size=4, num_epochs=1, seed=0, num_workers=1)
    for taken, _ in enumerate(batches, start=1):
        assert file.stat().st_size <= 4 * (taken + 4)
    assert taken == 100


def test_a_broken_image_is_named_or_left_out(folder):
    (folder / "train" / "cat" / "0.png").write_bytes(b"\x89PNG no more")
    dataset = load_images(str(folder), "train")
    once = {"batch_size": 2, "num_epochs": 1, "seed": 0}
    with pytest.raises(BadImageError, match=r"0\.png"):
        list(training_batches(dataset, COLOUR, **once))
    batches = list(training_batches(dataset, COLOUR, **once, on_bad_image="skip"))
    rows = np.concatenate([batch.rows for batch in batches])
    assert sorted(rows.tolist()) == [-1, 0, 1, 2]
    assert np.array_equal(np.concatenate([batch.valid for batch in batches]), rows > 0)  # row 0 is the broken one
    assert [row for batch in batches for row in broken_rows(batch.rows, batch.valid)] == [0]


@pytest.mark.parametrize("processor", [GREY, COLOUR], ids=["grey", "colour"])
def test_pixels_on_the_device_are_those_of_the_processor(digits, processor):
    (batch,) = training_batches(digits.select(range(6)), processor, batch_size=6, num_epochs=1, seed=0)
    images = [Image.fromarray(image.squeeze()) for image in batch.pixels]
    want = processor(images)["pixel_values"].transpose(0, 2, 3, 1)
    assert abs(np.asarray(normalise(jnp.asarray(batch.pixels), processor)) - want).max() < 2e-6


def augmented(how: Augmentation, images: np.ndarray, valid=None, seed: int = 0):
    targets = jax.nn.one_hot(np.arange(len(images)), len(images))
    valid = jnp.ones(len(images), bool) if valid is None else jnp.asarray(valid)
    return jax.jit(augment, static_argnums=4)(jax.random.key(seed), jnp.asarray(images), targets, valid, how)


IMAGES = np.random.default_rng(0).normal(size=(6, 12, 8, 3)).astype(np.float32)


def test_no_augmentation_changes_nothing():
    images, targets = augmented(Augmentation(), IMAGES)
    assert np.array_equal(images, IMAGES)
    assert np.array_equal(targets, np.eye(6))


def test_flips_mirror_some_images_and_leave_the_others():
    images, _ = augmented(Augmentation(horizontal_flip=True), IMAGES)
    flipped = [np.array_equal(image, own[:, ::-1]) for image, own in zip(images, IMAGES)]
    kept = [np.array_equal(image, own) for image, own in zip(images, IMAGES)]
    assert all(a != b for a, b in zip(flipped, kept))
    assert 0 < sum(flipped) < 6


def batch_of(image: Image.Image, processor: ViTClsImageProcessor, **arguments) -> np.ndarray:
    """Random crops of one image, as a training gets them: (B, H, W, C) uint8."""
    png = io.BytesIO()
    image.save(png, "png")
    dataset = datasets.Dataset.from_dict({"image": [{"bytes": png.getvalue(), "path": None}] * 40, "label": [0] * 40})
    (batch,) = training_batches(dataset, processor, batch_size=40, num_epochs=1, seed=0, **arguments)
    return batch.pixels


def test_a_crop_is_cut_from_the_whole_image_and_has_its_detail():
    """The processor's central crop shows a third of this image, at 8 of its 64 rows."""
    columns = np.tile(np.linspace(0, 255, 192).astype(np.uint8), (64, 1))
    central = ViTClsImageProcessor(
        size={"shortest_edge": 8}, do_center_crop=True, crop_size=8, image_mean=[0.4], image_std=[0.3]
    )
    (evaluated,) = np.unique(batch_of(Image.fromarray(columns), central), axis=0)
    assert (evaluated.min() > 80, evaluated.max() < 175) == (True, True)
    crops = batch_of(Image.fromarray(columns), central, crop_scale=0.05)
    assert crops.shape == (40, 8, 8, 1)
    assert len(np.unique(crops, axis=0)) == 40
    assert (crops.min() < 20, crops.max() > 235) == (True, True)
    stripes = Image.fromarray(np.tile(np.uint8([0, 255]).repeat(4), (64, 24)))  # 4 pixels each: grey in 8 rows
    assert np.ptp(batch_of(stripes, central).astype(int)) < 40
    assert np.ptp(batch_of(stripes, central, crop_scale=0.01).astype(int)) > 200


@given(
    draws=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 4),
    size=st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    min_area=st.floats(0.01, 1),
)
def test_a_crop_has_at_least_its_share_of_the_area_and_no_other_shape_than_it_must(draws, size, min_area):
    left, top, right, bottom = random_crop(draws, size, min_area)
    assert 0 <= left <= right <= size[0] * (1 + 1e-12)
    assert 0 <= top <= bottom <= size[1] * (1 + 1e-12)
    width, height = right - left, bottom - top
    area = width * height / (size[0] * size[1])
    assert min_area * (1 - 1e-9) <= area <= 1 + 1e-9
    spans = width > size[0] * (1 - 1e-9) or height > size[1] * (1 - 1e-9)
    assert spans or 3 / 4 * (1 - 1e-9) <= width / height <= 4 / 3 * (1 + 1e-9)


def test_shares_and_ratios_of_crops_are_uniform():
    """Of a square image, where every ratio fits a share up to 3/4. The ends of the ranges, and their middles."""
    draws = np.random.default_rng(0).random((4000, 4))
    boxes = np.asarray([random_crop(draw, (100, 100), 0.25) for draw in draws])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area, ratio = width * height / 1e4, np.log(width / height)[width * height < 7500]
    assert np.quantile(area, [0, 0.5, 1]) == pytest.approx([0.25, 0.625, 1], abs=0.02)
    assert np.quantile(ratio, [0, 0.5, 1]) == pytest.approx([np.log(3 / 4), 0, np.log(4 / 3)], abs=0.02)
    free = 1 - (boxes[:, 2:] - boxes[:, :2]) / 100
    places = (boxes[:, :2] / 100)[free > 0.2] / free[free > 0.2]
    assert np.quantile(places, [0, 0.5, 1]) == pytest.approx([0, 0.5, 1], abs=0.03)


@pytest.mark.parametrize(
    "how", [{"mixup_alpha": 0.4}, {"cutmix_alpha": 1.0}, {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}]
)
def test_labels_are_mixed_as_the_images_are(how):
    plain = np.broadcast_to(np.arange(6, dtype=np.float32)[:, None, None, None], (6, 12, 8, 3))
    for seed in range(5):
        images, targets = augmented(Augmentation(**how), plain, seed=seed)
        assert np.allclose(targets.sum(1), 1)
        means = np.asarray(images).mean((1, 2, 3))  # of images that are their own class's number everywhere
        assert np.allclose(means, np.asarray(targets) @ np.arange(6), atol=1e-5)


def test_no_image_is_mixed_with_one_that_is_not_there():
    valid = [True, True, True, False, True, False]  # the partners of images 2 and 0
    images, targets = augmented(Augmentation(mixup_alpha=0.4), IMAGES, valid)
    assert np.array_equal(np.asarray(images)[[0, 2]], IMAGES[[0, 2]])
    assert np.array_equal(np.asarray(targets)[[0, 2]], np.eye(6)[[0, 2]])
    assert not np.array_equal(images[1], IMAGES[1])
