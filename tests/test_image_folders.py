"""Folders of images: which files are in which split, of which class, and what is refused."""

import json
import os
import re

import pytest
from photos import names_of, write_images
from PIL import Image

from modeling_vit_cls import BadImageError, ConfigError
from modeling_vit_cls.images.classes import match_classes, named_after
from modeling_vit_cls.images.rgb import FORMATS
from modeling_vit_cls.images.sources import class_names, load_images, open_image, splits_of

# Names that mean something to a pattern, to a split or to a system, and are names of classes all the same.
NAMES = ["bullet train", "test tube", "validation", "Train", "dev-board", "eval", "a [b]", "x*y?", "{c}", "Käfer", "犬"]
NAMES += ["val.1", "test_1", "data", "0", "10", "default", "train-00000-of-00001", "~", "%20", "a,b", "'q'", "-x"]


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_class_selects_no_files(tmp_path, name, tally):
    files = [
        f"{split}/{kind}/{number}.png" for split in ("train", "test") for kind in (name, "zebra") for number in "ab"
    ]
    root = write_images(tmp_path / f"my {name} images", *files)
    assert splits_of(str(root)) == ["test", "train"]
    for split in ("train", "test"):
        dataset = load_images(str(root), split)
        assert sorted(names_of(dataset, root)) == sorted(file for file in files if file.startswith(split))
        named = [class_names(dataset)[label] for label in dataset["label"]]
        assert named == [file.split("/")[1] for file in names_of(dataset, root)]
        tally.note("the images of its own split, by their classes")


SPELLINGS = {"Training": "train", "TEST": "test", "testing": "test", "eval": "test", "evaluation": "test"}
SPELLINGS |= dict.fromkeys(("val", "Valid", "dev", "Validation"), "validation")


@pytest.mark.parametrize(("spelling", "split"), SPELLINGS.items())
def test_splits_are_folders_at_the_top_in_the_usual_spellings(tmp_path, spelling, split):
    root = write_images(tmp_path, f"{spelling}/cat/1.jpg", f"{spelling}/dog/1.jpg")
    assert splits_of(str(root)) == [split]
    for wanted in (split, spelling):
        assert len(load_images(str(root), wanted)) == 2
    with pytest.raises(ConfigError, match=f"split='extra': must be one of .*: {split}$"):
        load_images(str(root), "extra")


def test_a_folder_without_splits_is_all_to_train_on(tmp_path):
    root = write_images(tmp_path, "bullet train/1.png", "dog/1.PNG", "dog/2.jpeg")
    assert splits_of(str(root)) == ["train"]
    assert len(load_images(str(root), "train")) == 3
    with pytest.raises(ConfigError, match="split='test': must be one of .*: train"):
        load_images(str(root), "test")


def test_classes_are_those_of_all_splits(tmp_path):
    root = write_images(tmp_path, "train/cat/1.png", "train/dog/1.png", "test/dog/1.png")
    (root / "train" / "empty").mkdir()
    test = load_images(str(root), "test")
    assert (class_names(test), list(test["label"])) == (["cat", "dog"], [1])
    composed, decomposed = "\u00e9t\u00e9", "e\u0301te\u0301"  # as Linux and as macOS write it
    root = write_images(tmp_path / "other", f"train/{composed}/1.png", "train/hiver/1.png", f"test/{decomposed}/1.png")
    assert class_names(load_images(str(root), "test")) == ["hiver", composed]


def test_what_is_no_image_is_left_out_and_named_once(tmp_path, caplog):
    root = write_images(tmp_path, "train/cat/1.png", "train/dog/1.png", "train/dog/2.heic", "train/.hidden/1.png")
    for other in ("cat/._1.png", "cat/.DS_Store", "dog/Thumbs.db", "cat/letter.pdf", "dog/notes.txt", "readme.md"):
        (root / "train" / other).write_bytes(b"no image")
    write_images(root, "__MACOSX/cat/1.png", "train/__MACOSX/1.png")
    assert names_of(load_images(str(root), "train"), root) == ["train/cat/1.png", "train/dog/1.png", "train/dog/2.heic"]
    assert [record.message.split(": ", 1)[1] for record in caplog.records] == [
        "ignored files that are not images (3): readme.md, cat/letter.pdf, dog/notes.txt"
    ]


@pytest.mark.parametrize(
    ("files", "split", "message"),
    [
        (
            ["train/cat/1.png", "test/1.png"],
            "test",
            r"1 of its 1 images are in no folder of a class.*1\.png.*sort them into folders of classes",
        ),
        (["1.png", "2.png"], "train", "2 of its 2 images are in no folder of a class"),
        (["train/a/b/1.png"], "train", r"train/a/b/1\.png is deeper than SPLIT/CLASS/image: the class may be a or b"),
        (["photos/train/cat/1.png"], "train", "its splits are one folder down: give .*photos$"),
        (
            ["train/cat/1.png", "train/all.png"],
            "train",
            r"all\.png is in no folder of a class, but there are folders of classes such as cat",
        ),
        (["train/cat/1.png", "Training/cat/1.png"], "train", "two folders are its split train: Training and train"),
        (["test/1.png", "cat/1.png"], "train", "test may be a split, or a class like cat: put all"),
        (["cat/notes.txt"], "train", "holds no images"),
    ],
)
def test_folders_that_cannot_be_understood_are_refused_with_the_reason(tmp_path, files, split, message, tally):
    root = write_images(tmp_path, *files)
    tally.note("refused with the reason")
    with pytest.raises(ConfigError, match=message):
        load_images(str(root), split)


def test_other_folders_beside_splits_are_left_out_and_named(tmp_path, caplog):
    root = write_images(tmp_path, "train/cat/1.png", "test/1.png", "test/2.png", "old/cat/1.png")
    with pytest.raises(ConfigError, match="test may be a split, or a class like old"):
        load_images(str(root), "train")
    (root / "test" / "cat").mkdir()
    for number in "12":
        os.rename(root / "test" / f"{number}.png", root / "test" / "cat" / f"{number}.png")
    assert len(load_images(str(root), "train")) == 1
    assert "ignored folders that are not splits: old" in caplog.text


def test_names_that_are_no_text_and_loops_are_no_surprise(tmp_path):
    root = write_images(tmp_path, "train/cat/1.png", "train/dog/1.png")
    (root / "train" / "cat" / "loop").symlink_to(root)
    with pytest.raises(ConfigError, match="deeper than"):
        load_images(str(root), "train")
    (root / "train" / "cat" / "loop").unlink()
    os.rename(root / "train" / "cat" / "1.png", os.fsencode(root / "train" / "cat") + b"/\xff.png")
    with pytest.raises(ConfigError, match="the name of this file is not UTF-8"):
        load_images(str(root), "train")


def labels_of(dataset) -> list[str]:
    return [class_names(dataset)[label] for label in dataset["label"]]


def test_metadata_names_the_labels(tmp_path):
    root = write_images(tmp_path, *(f"{split}/{number}.png" for split in ("train", "test") for number in range(3)))
    (root / "train" / "metadata.csv").write_text("file_name,label\n0.png,10\n1.png,9\n2.png,10\n")
    (root / "test" / "metadata.jsonl").write_text(
        '{"file_name": "0.png", "class": 9}\n\n{"file_name": "1.png", "class": 9}\n'
    )
    train, test = (load_images(str(root), split) for split in ("train", "test"))
    assert (class_names(train), labels_of(train)) == (["9", "10"], ["10", "9", "10"])
    assert (class_names(test), labels_of(test)) == (["9", "10"], ["9", "9"])
    (root / "train" / "metadata.csv").write_text("\ufefffile_name,kind,label\n0.png,cat,x\n1.png,dog,x\n")
    assert labels_of(load_images(str(root), "train", label_column_name="kind")) == ["cat", "dog"]


def test_metadata_of_the_whole_folder_and_without_labels(tmp_path, caplog):
    root = write_images(tmp_path, "train/1.png", "test/2.png")
    (root / "metadata.csv").write_text("file_name,label\ntrain/1.png,cat\ntest/2.png,dog\n")
    assert labels_of(load_images(str(root), "train")) == ["cat"]
    assert class_names(load_images(str(root), "test")) == ["cat", "dog"]
    other = write_images(tmp_path / "captions", "train/cat/1.png", "train/dog/1.png")
    (other / "train" / "metadata.csv").write_text("file_name,text\ncat/1.png,a cat\ndog/1.png,a dog\n")
    assert labels_of(load_images(str(other), "train")) == ["cat", "dog"]
    assert "has no labels in a column label, labels, class, so folders are the classes" in caplog.text
    (other / "train" / "metadata.csv").write_text("file_name, label\r\ncat/1.png, x\r\ndog/1.png, y\r\n")
    assert labels_of(load_images(str(other), "train")) == ["x", "y"]


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("metadata.csv", "file_name,label\n0.png,0.0\n1.png,10.0\n2.png,1.\n"),  # as pandas writes a column with a gap
        ("metadata.csv", "file_name,label\n0.png,0\n1.png,10.0\n2.png,1\n"),
        (
            "metadata.jsonl",
            "\n".join(f'{{"file_name": "{row}.png", "label": {label}}}' for row, label in enumerate((0.0, 10, 1.0))),
        ),
    ],
)
def test_whole_numbers_are_the_same_classes_however_they_are_written(tmp_path, name, table):
    root = write_images(tmp_path, *(f"{split}/{number}.png" for split in ("train", "test") for number in range(3)))
    (root / "train" / "metadata.csv").write_text("file_name,label\n0.png,0\n1.png,10\n2.png,1\n")
    (root / "test" / name).write_text(table)
    test = load_images(str(root), "test")
    assert (class_names(test), labels_of(test)) == (["0", "1", "10"], ["0", "10", "1"])


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_spaces_around_a_label_are_no_part_of_it(tmp_path, name):
    root = write_images(tmp_path, "train/0.png", "train/1.png", "train/2.png")
    labels = ["cat ", " cat", "dog"]
    lines = [json.dumps({"file_name": f"{row}.png", "label": label}) for row, label in enumerate(labels)]
    if name == "metadata.csv":
        lines = ["file_name,label", *(f"{row}.png,{label}" for row, label in enumerate(labels))]
    (root / "train" / name).write_text("\n".join(lines))
    assert labels_of(load_images(str(root), "train")) == ["cat", "cat", "dog"]


def test_a_class_may_be_called_by_a_version(tmp_path):
    root = write_images(tmp_path, "train/0.png", "train/1.png")
    (root / "train" / "metadata.csv").write_text("file_name,label\n0.png,1.0\n1.png,v1.0\n")
    assert labels_of(load_images(str(root), "train")) == ["1.0", "v1.0"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file_name,label\n0.png,\n1.png,cat\n", "1 of its 2 images are in no folder of a class"),
        ("name,label\n0.png,cat\n", "metadata.csv.*row 1 has no text in a column file_name"),
        ("file_name,label\n../0.png,cat\n", r"metadata.csv.*row 1: \.\./0\.png is not in this folder"),
        ("file_name,label\n", "metadata.csv.*has no rows"),
        ("file_name,label\n0.png,a\n1.png,b\na/../0.png,b\n", r"row 3: a/\.\./0\.png has the label 'b', .*row 'a'"),
        ('file_name,label\n"0.png,cat\n', r"metadata.csv.*cannot be read as CSV .*: is a quote not closed"),
        ("file_name;label\n0.png;cat\n", "row 1 has no text in a column file_name; separate the columns by commas"),
        ("file_name,label\n0.png,a\n1.png,b,c\n", "row 2 has more fields than the first line: quote a field"),
        ("file_name,label\n0.png,-1\n1.png,1\n", "1 of its 2 images are in no folder of a class"),
    ],
)
def test_metadata_that_cannot_be_used_is_named_by_its_row(tmp_path, table, message):
    root = write_images(tmp_path, "train/0.png", "train/1.png")
    (root / "train" / "metadata.csv").write_text(table)
    with pytest.raises(ConfigError, match=message):
        load_images(str(root), "train")


def test_files_of_every_format_that_is_read_are_images_and_so_are_those_of_others(tmp_path):
    """Every suffix that Pillow knows of a format that we read; of the others each is named where it is opened."""
    Image.init()
    read = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS} - {".pfm"}  # floats
    assert read <= {suffix for suffixes in FORMATS.values() for suffix in suffixes}
    others = [".heic", ".heif", ".ico", ".tga", ".psd", ".eps", ".jxl"]
    names = [f"train/cat/a{suffix}" for suffix in (*sorted(read), *others)]
    root = write_images(tmp_path, *(name for name in names if name.endswith(".png")), "train/dog/1.png")
    for name in names:
        (root / name).touch()
    (root / "train/cat/notes.txt").touch()
    dataset = load_images(str(root), "train")
    assert set(names_of(dataset, root)) == {*names, "train/dog/1.png"}
    for row in dataset:
        if os.path.splitext(row["image"]["path"])[1] in others:
            with pytest.raises(BadImageError, match=re.escape(row["image"]["path"])):
                open_image(row["image"])


def test_folders_that_are_called_by_numbers_are_classes_of_these_numbers(tmp_path):
    """Sorted by letters, as folders are, 10 comes before 2."""
    by_letters = sorted(str(number) for number in range(11))
    root = write_images(tmp_path, *(f"{number}/{number}.png" for number in range(11)))
    dataset, right = load_images(str(root), "train"), [int(name) for name in by_letters]
    assert class_names(dataset) == by_letters
    unnamed, named = ({number: f"{name}_{number}" for number in range(11)} for name in ("LABEL", "bird"))
    assert match_classes(by_letters, unnamed).tolist() == right
    assert named_after(unnamed, by_letters) == {number: str(number) for number in range(11)}
    for id2label in (unnamed, named):
        loaded = load_images(str(root), "train", id2label=id2label)
        assert (class_names(loaded), loaded["label"][:]) == (list(id2label.values()), right)
    few = write_images(tmp_path / "few", "2/a.png", "10/b.png")
    assert load_images(str(few), "train", id2label=named)["label"][:] == [10, 2]
    beyond = write_images(tmp_path / "beyond", "2/a.png", "11/b.png")
    assert class_names(load_images(str(beyond), "train", id2label=named)) == ["11", "2"]
    (few / "metadata.csv").write_text("file_name,label\n2/a.png,5\n10/b.png,7\n")
    assert load_images(str(few), "train", id2label=named)["label"][:] == [5, 7]
