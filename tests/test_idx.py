"""Folders in MNIST's format, and Fashion-MNIST by its name."""

import gzip
import hashlib
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_model
from PIL import Image

from hub_scripts.__main__ import main
from modeling_vit_cls import ConfigError
from modeling_vit_cls.images import idx
from modeling_vit_cls.images.sources import class_names, load_images, load_with_columns, splits_of

GENERATOR = np.random.default_rng(0)
PIXELS = {
    "train": GENERATOR.integers(0, 256, (12, 6, 5), np.uint8),
    "t10k": GENERATOR.integers(0, 256, (4, 6, 5), np.uint8),
}
LABELS = {"train": (np.arange(12) % 10).astype(np.uint8), "t10k": np.array([3, 1, 4, 1], np.uint8)}


def idx_file(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture(params=["", ".gz"])
def folder(tmp_path: Path, request) -> Path:
    for stem in PIXELS:
        for name, array in (("images-idx3-ubyte", PIXELS[stem]), ("labels-idx1-ubyte", LABELS[stem])):
            content = idx_file(array)
            (tmp_path / f"{stem}-{name}{request.param}").write_bytes(
                gzip.compress(content) if request.param else content
            )
    return tmp_path


def test_a_folder_of_idx_files_is_a_dataset(folder):
    assert splits_of(str(folder)) == ["train", "test"]
    for split, stem in (("train", "train"), ("test", "t10k")):
        dataset = load_images(str(folder), split)
        assert dataset["label"][:] == LABELS[stem].tolist()
        assert class_names(dataset) == [str(i) for i in range(10)]
        images = [np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in dataset["image"]]
        np.testing.assert_array_equal(images, PIXELS[stem])
    with pytest.raises(ConfigError, match=r"split='validation': must be one of .*: train, test"):
        load_images(str(folder), "validation")


@pytest.mark.parametrize("field", ["image_column_name", "label_column_name"])
def test_idx_files_have_no_columns_to_choose(field, folder):
    with pytest.raises(ConfigError, match=f"{field}='other': must be left out"):
        load_images(str(folder), "train", **{field: "other"})


def test_every_verb_finds_the_files_of_data_dir(folder, tmp_path, monkeypatch, capsys):
    """Small files in the place of Fashion-MNIST's."""
    digests = {}
    for file in folder.iterdir():
        content = gzip.decompress(file.read_bytes()) if file.suffix else file.read_bytes()
        digests[file.name.removesuffix(".gz")] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(idx, "_DIGESTS", digests)
    model = tiny_model(num_labels=10, num_channels=1)
    model.config.id2label = dict(enumerate(class_names(load_images("fashion_mnist", "test", data_dir=str(folder)))))
    model.save_pretrained(tmp_path / "model")
    place = ["--data_dir", str(folder)]
    for arguments in (
        ["benchmark", str(tmp_path / "model"), "--dataset_name", "fashion_mnist"],
        ["benchmark", str(tmp_path / "model"), "--dataset_name", "fashion_mnist", "--method", "knn"],
        ["embed", str(tmp_path / "model"), "fashion_mnist", "--output", str(tmp_path / "out")],
    ):
        assert main([*arguments, *place]) == 0, capsys.readouterr().err


def test_they_are_embedded_with_their_labels(folder):
    dataset = load_with_columns(str(folder), "test")
    assert (dataset.column_names, dataset["label"][:]) == (["image", "label"], LABELS["t10k"].tolist())


def test_damaged_files_are_refused_by_name(folder):
    file = next(folder.glob("train-images*"))
    intact = file.read_bytes()
    for content in (intact[:-3], intact[:2], b"", intact.replace(b"\0\0\x08\x03", b"\0\0\x0d\x03")):
        if content == intact:  # compressed: its header is not at hand
            continue
        file.write_bytes(content)
        with pytest.raises(ConfigError, match="train-images"):
            load_images(str(folder), "train")
    file.write_bytes(intact)
    labels = next(folder.glob("train-labels*"))
    labels.write_bytes(next(folder.glob("t10k-labels*")).read_bytes())
    with pytest.raises(ConfigError, match=r"as many labels as images, not images \(12, 6, 5\) and labels \(4,\)"):
        load_images(str(folder), "train")
    labels.unlink()
    with pytest.raises(ConfigError, match="has no file train-labels-idx1-ubyte"):
        load_images(str(folder), "train")


def test_other_images_are_not_taken_for_fashion_mnist(folder, tmp_path):
    with pytest.raises(ConfigError, match="t10k-images.* is not that of Fashion-MNIST: its SHA-256 differs"):
        load_images("fashion_mnist", "test", data_dir=str(folder))
    with pytest.raises(ConfigError, match=r"data_dir=.*must be a folder with the files train-images-idx3-ubyte\[.gz\]"):
        load_images("fashion_mnist", "test", data_dir=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="data_dir.*belongs to fashion_mnist"):
        load_images("digits", "test", data_dir=str(folder))


def test_fashion_mnist_is_the_dataset_of_the_hub_where_it_is_not_on_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "_DEBIAN", tmp_path)
    with pytest.raises(ConfigError, match="fashion_mnist.*install Debian's package dataset-fashion-mnist"):
        load_images("fashion_mnist", "test")


@pytest.mark.skipif(not idx.is_idx_folder(idx._DEBIAN), reason="needs Debian's package dataset-fashion-mnist")
def test_fashion_mnist_of_debian():
    test = load_images("fashion_mnist", "test")
    assert (len(test), test["label"][:5]) == (10_000, [9, 2, 1, 1, 6])
    assert class_names(test)[9] == "Ankle boot"
    assert np.bincount(test["label"]).tolist() == [1000] * 10
