"""Samples of a dataset: all classes in their shares, by the seed; and what two splits have in common."""

import datasets
import numpy as np
import pytest
from photos import write_images

from modeling_vit_cls import ConfigError
from modeling_vit_cls.images.duplicates import count_duplicates
from modeling_vit_cls.images.sampling import hold_out, sample_rows
from modeling_vit_cls.images.shown import readable_images
from modeling_vit_cls.images.sources import load_images
from modeling_vit_cls.training.recipe import read_recipe
from modeling_vit_cls.training.run import load_splits, run_recipe

# Sorted by class, as folders are; of equal and of very different sizes, in no order, and with numbers left out.
LABELS = [[0] * 20 + [1] * 20 + [2] * 20, [0] * 500 + [1] * 3 + [2], [4, 1, 4, 4, 1, 9], [0, 0], [3]]


@pytest.mark.parametrize("labels", LABELS)
def test_a_sample_has_every_class_in_its_share(labels):
    every, sizes = np.asarray(labels), np.unique(labels, return_counts=True)[1]
    for count in range(1, len(labels) + 2):
        rows = sample_rows(labels, count, seed=0)
        assert len(set(rows.tolist())) == len(rows) == min(count, len(labels))
        assert list(rows) == sorted(rows)
        kept = np.asarray([(every[rows] == kind).sum() for kind in np.unique(labels)])
        if count >= len(sizes):
            assert kept.min() >= 1
            assert (abs(kept - sizes * len(rows) / len(labels)) < 1 + len(sizes)).all()


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_what_is_held_out_is_a_share_of_each_class(labels, share):
    every = np.asarray(labels)
    kept, held = hold_out(labels, share, seed=0)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    for kind in np.unique(labels):
        size = (every == kind).sum()
        assert (every[kept] == kind).sum() >= 1
        assert (every[held] == kind).sum() >= min(1, size - 1)
        if size > 10:
            assert abs((every[held] == kind).sum() / size - share) < 0.1


def test_samples_are_drawn_at_random_by_the_seed():
    first, again, other = (sample_rows(LABELS[0], 15, seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first % 20, np.tile(range(5), 3))
    assert not np.array_equal(hold_out(LABELS[0], 0.2, 0)[1], hold_out(LABELS[0], 0.2, 1)[1])


@pytest.fixture
def folder(tmp_path):
    """Three classes of twenty images to train on and eight to test on."""
    counts = {"train": 20, "test": 8}
    files = [
        f"{split}/{kind}/{i}.png" for split in counts for kind in ("cat", "dog", "emu") for i in range(counts[split])
    ]
    return write_images(tmp_path / "images", *files)


def test_a_recipe_draws_from_all_classes_and_leaves_the_test_alone(folder):
    def splits(*overrides: str, seed: int = 0):
        recipe = read_recipe("configuration/fine_tune.yaml", ["--dataset_name", str(folder), *overrides])
        return load_splits(recipe.data, seed)

    train, evaluation = splits("--max_train_samples", "15", "--max_eval_samples", "3")
    assert np.bincount(train["label"]).tolist() == [5, 5, 5]
    assert np.bincount(evaluation["label"]).tolist() == [1, 1, 1]
    whole, held = splits()
    assert np.bincount(held["label"]).tolist() == [2, 2, 2]
    paths = {image["path"] for split in (whole, held) for image in split["image"]}
    assert paths == {image["path"] for image in load_images(str(folder), "train")["image"]}
    assert list(splits(seed=1)[1]["image"]) != list(held["image"])
    with pytest.raises(ConfigError, match="max_eval_samples=0: must be positive"):
        splits("--max_eval_samples", "0")


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        (["--test_split", "train"], "test_split"),
        (["--eval_split", "Training", "--test_split", "test"], "eval_split"),
        (["--eval_split", "eval", "--test_split", "test"], "eval_split"),
    ],
)
def test_nothing_is_chosen_or_measured_on_the_wrong_images(folder, tmp_path, overrides, field):
    given = ["--dataset_name", str(folder), "--output_dir", str(tmp_path / "out"), *overrides]
    with pytest.raises(ConfigError) as refused:
        run_recipe(read_recipe("configuration/fine_tune.yaml", given))
    assert refused.value.field == field


def test_duplicates_are_counted_by_content(folder):
    train, test = (load_images(str(folder), split) for split in ("train", "test"))
    assert count_duplicates(test, [train]) == 0
    for number in range(3):
        copy = folder / "test" / "dog" / f"{number}.png"
        copy.write_bytes((folder / "train" / "cat" / f"{number + 4}.png").read_bytes())
    (folder / "test" / "emu" / "0.png").unlink()
    assert count_duplicates(test, [train]) == 3
    assert count_duplicates(test, [train.select(range(5)), train.select(range(5, 60))]) == 3
    images = [{"bytes": (folder / "train/cat/4.png").read_bytes(), "path": None}, None, {"bytes": b"", "path": None}]
    features = datasets.Features({"image": datasets.Image(decode=False)})
    inside = datasets.Dataset.from_dict({"image": images}, features=features)
    assert (count_duplicates(inside, [train]), count_duplicates(test, [inside])) == (1, 1)


def test_images_to_show_are_as_many_of_each_class_and_can_be_read(folder):
    test = load_images(str(folder), "test")
    for number in range(4):
        (folder / "test" / "cat" / f"{number}.png").write_bytes(b"broken")
    assert [label for _, label in readable_images(test, 12, seed=0)] == [0] * 4 + [1] * 4 + [2] * 4
    assert [label for _, label in readable_images(test, 5, seed=0)] == [0, 1, 2]
    assert len(readable_images(test, 100, seed=0)) == 20
    first, again, other = (readable_images(test, 12, seed) for seed in (0, 0, 1))
    assert [image.tobytes() for image, _ in first] == [image.tobytes() for image, _ in again]
    assert [image.tobytes() for image, _ in first] != [image.tobytes() for image, _ in other]


def test_all_digits_are_shown_and_of_many_classes_evenly_spaced_ones(folder):
    digits = load_images("digits", "test")
    assert [label for _, label in readable_images(digits, 12, seed=0)] == list(range(10))
    image = load_images(str(folder), "test")[0]["image"]
    rows = [{"image": image, "label": label} for label in np.random.default_rng(0).permutation(1000).tolist()]
    labels = [label for _, label in readable_images(datasets.Dataset.from_list(rows), 12, seed=0)]
    assert (labels[0], labels[-1], len(labels)) == (0, 999, 12)
    assert set(np.diff(labels)) <= {90, 91, 92}
