"""Datasets that are no folders of images: parquet as the Hub has it, save_to_disk, columns of texts and numbers."""

import io
import tarfile
import zipfile

import datasets
import huggingface_hub
import pyarrow.parquet
import pytest
from photos import write_images
from PIL import Image

from modeling_vit_cls import BadImageError, ConfigError
from modeling_vit_cls.images.hub_dataset import with_classes
from modeling_vit_cls.images.sources import class_names, labelled, load_images, open_image, splits_of


def png(level: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (level, 0, 0)).save(file, "PNG")
    return file.getvalue()


def rows(labels, feature=None, **others) -> datasets.Dataset:
    """Images with these labels, by default of the classes "cat" and "dog"."""
    feature = feature or datasets.ClassLabel(names=["cat", "dog"])
    images = [{"bytes": png(number), "path": None} for number in range(len(labels))]
    features = datasets.Features({"image": datasets.Image(), "label": feature})
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


TEXT, WHOLE = datasets.Value("string"), datasets.Value("int64")


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"], {"train": 2, "test": 2}),
        (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"], {"train": 4}),
        (["train-00000-of-00001-0a1b2c3d.parquet", "valid-00000-of-00001.parquet"], {"train": 2, "validation": 2}),
        (["train.parquet", "test.parquet"], {"train": 2, "test": 2}),
        (["train/0000.parquet", "test/0000.parquet"], {"train": 2, "test": 2}),
        (["plain/train-00000-of-00001.parquet"], {"train": 2}),
        (["data/extra-00000-of-00001.parquet"], {"extra": 2}),
        (["everything.parquet"], {"train": 2}),
    ],
)
def test_a_folder_of_parquet_has_the_splits_of_its_files(tmp_path, files, splits):
    root = tmp_path / "test [of] *"
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        rows([0, 1]).to_parquet(str(root / file))
    (root / "README.md").write_text("# Photos")
    assert {split: len(load_images(str(root), split)) for split in splits_of(str(root))} == splits


def test_a_table_without_rows_hides_no_other(tmp_path, caplog):
    rows([0, 1]).to_parquet(str(tmp_path / "train.parquet"))
    rows([]).to_parquet(str(tmp_path / "test.parquet"))
    assert len(load_images(str(tmp_path), "train")) == 2
    assert "test.parquet: ignored, because it has no rows" in caplog.text
    (tmp_path / "train.parquet").unlink()
    with pytest.raises(ConfigError, match="its tables have no rows"):
        load_images(str(tmp_path), "train")


def test_one_of_several_configurations_is_chosen(tmp_path):
    for config, labels in (("coarse", [0]), ("fine", [0, 1, 1])):
        (tmp_path / config).mkdir()
        rows(labels).to_parquet(str(tmp_path / config / "train-00000-of-00001.parquet"))
    assert len(load_images(str(tmp_path), "train", dataset_config_name="fine")) == 3
    for name in (None, "other"):
        with pytest.raises(ConfigError, match="dataset_config_name=.*: must be one of .*: coarse, fine"):
            load_images(str(tmp_path), "train", dataset_config_name=name)


def write_table(dataset, file) -> None:
    if file.suffix == ".parquet":
        dataset.to_parquet(str(file))
    else:
        with pyarrow.ipc.new_stream(file, dataset.data.table.schema) as writer:
            writer.write_table(dataset.data.table)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_each_file_is_read_by_its_own_class_names(tmp_path, suffix):
    turned = datasets.ClassLabel(names=["dog", "cat"])
    write_table(rows([0, 1]), tmp_path / f"train.{suffix}")
    write_table(rows([0, 1], turned), tmp_path / f"test.{suffix}")
    for split, names in (("train", ["cat", "dog"]), ("test", ["dog", "cat"])):
        dataset = load_images(str(tmp_path), split)
        assert (class_names(dataset), list(dataset["label"])) == (names, [0, 1])
        one = load_images(str(tmp_path), split, id2label={0: "cat", 1: "dog"})
        assert class_names(one) == names


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize(("labels", "feature"), [([0, 1], datasets.ClassLabel(names=["dog", "cat"])), (["cat"], TEXT)])
def test_files_of_one_split_with_other_classes_are_refused_by_name(tmp_path, suffix, labels, feature):
    write_table(rows([0, 1]), tmp_path / f"train-00000-of-00002.{suffix}")
    write_table(rows(labels, feature), tmp_path / f"train-00001-of-00002.{suffix}")
    with pytest.raises(ConfigError, match=r"column label is ClassLabel.*cat.*00000-of-00002.*, but .*00001-of-00002"):
        load_images(str(tmp_path), "train")


def test_files_of_one_split_may_differ_where_no_label_is_read_wrongly(tmp_path):
    """Numbers after a ClassLabel are its classes; columns that are no labels may have any type."""
    for number, (labels, other) in enumerate(((rows([0, 1]), TEXT), (rows([1, 1], WHOLE), WHOLE))):
        values = ["x", "y"] if other is TEXT else [1, 2]
        labels.add_column("photo", values, feature=other).to_parquet(str(tmp_path / f"train-{number}.parquet"))
    dataset = load_images(str(tmp_path), "train")
    assert (class_names(dataset), list(dataset["label"])) == (["cat", "dog"], [0, 1, 1, 1])
    (tmp_path / "train-0.parquet").rename(tmp_path / "train-2.parquet")
    with pytest.raises(ConfigError, match="column label is Value.* but ClassLabel"):
        load_images(str(tmp_path), "train")


def test_a_split_of_numbers_and_one_of_names_are_refused(tmp_path):
    rows([0, 1], WHOLE).to_parquet(str(tmp_path / "train.parquet"))
    rows(["0", "2"], TEXT).to_parquet(str(tmp_path / "test.parquet"))
    assert class_names(load_images(str(tmp_path), "test")) == ["0", "1", "2"]
    rows(["cat", "dog"], TEXT).to_parquet(str(tmp_path / "test.parquet"))
    with pytest.raises(ConfigError, match=r"'label': has numbers in the split train and names in test"):
        load_images(str(tmp_path), "train")


def test_splits_of_a_folder_may_have_other_columns(tmp_path):
    rows([0, 1]).to_parquet(str(tmp_path / "train.parquet"))
    rows([0, 1]).remove_columns("label").to_parquet(str(tmp_path / "test.parquet"))
    assert len(load_images(str(tmp_path), "train")) == 2
    rows([0, 1]).rename_column("label", "kind").to_parquet(str(tmp_path / "train-00001-of-00002.parquet"))
    with pytest.raises(ConfigError, match="its tables cannot be read"):
        load_images(str(tmp_path), "train")


def test_parquet_of_another_program(tmp_path):
    table = {"image": [{"bytes": png(), "path": "a.png"}] * 2, "label": ["dog", "cat"]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "train.parquet")
    dataset = load_images(str(tmp_path), "train")
    assert (class_names(dataset), list(dataset["label"]), dataset[0]["image"]["path"]) == (
        ["cat", "dog"],
        [1, 0],
        "a.png",
    )
    (tmp_path / "train.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(ConfigError, match="its tables cannot be read"):
        load_images(str(tmp_path), "train")


def test_each_split_of_a_folder_of_tables_has_its_own_columns_and_classes(tmp_path):
    names = datasets.ClassLabel(names=["dog", "ant", "cat"])
    rows([2, 0, 1], names).to_parquet(str(tmp_path / "train.parquet"))
    rows([0, 1]).to_parquet(str(tmp_path / "test.parquet"))
    rows([0, 1]).remove_columns("label").to_parquet(str(tmp_path / "hidden-00000-of-00001.parquet"))
    for split, expected in (("train", ["cat", "dog", "ant"]), ("test", ["cat", "dog"])):
        dataset = load_images(str(tmp_path), split)
        assert [class_names(dataset)[number] for number in dataset["label"]] == expected
    with pytest.raises(ConfigError, match="label_column_name=None: no column is of type ClassLabel"):
        load_images(str(tmp_path), "hidden")
    rows([0, 1]).remove_columns("label").to_parquet(str(tmp_path / "test-00001-of-00002.parquet"))
    with pytest.raises(ConfigError, match=r"of the split test \(the columns of its files differ: .*'label'"):
        load_images(str(tmp_path), "train")


def generation_failed(cause: Exception) -> Exception:
    error = datasets.exceptions.DatasetGenerationError("An error occurred while generating the dataset")
    error.__cause__ = cause
    return error


@pytest.mark.world
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (generation_failed(ValueError("JSON parse error\nin row 0")), "ValueError: JSON parse error in row 0"),
        (ValueError("Config name is missing.\nPick one among: ['x', 'y']"), r"Config name is missing\..*\['x', 'y'\]"),
        (tarfile.ReadError("truncated header"), "ReadError: truncated header"),
        (KeyError(), r"\(KeyError\)"),
        (OSError("403 Forbidden: no, Bearer hf_" + "x" * 34), r"403 Forbidden: no, Bearer \*\*\*\)"),
    ],
)
def test_whatever_datasets_fails_with_is_one_line_with_the_cause(hub, monkeypatch, error, reason):
    def load_dataset(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ConfigError, match=f"dataset_name='me/photos': .*{reason}") as refused:
        load_images("me/photos", "train")
    assert "\n" not in str(refused.value)
    assert refused.value.__suppress_context__  # the cause may hold the request, and the request the token


def test_parquet_beside_images_is_left_to_its_owner(tmp_path):
    root = write_images(tmp_path, "train/cat/1.png", "train/dog/1.png")
    pyarrow.parquet.write_table(pyarrow.table({"feature": [1.0]}), root / "embeddings.parquet")
    assert len(load_images(str(root), "train")) == 2


def test_folders_of_save_to_disk(tmp_path):
    both = datasets.DatasetDict(train=rows([0, 1, 1]), test=rows([0]))
    both.save_to_disk(str(tmp_path / "both [1]"))
    rows([1]).save_to_disk(str(tmp_path / "one"))
    assert sorted(splits_of(str(tmp_path / "both [1]"))) == ["test", "train"]
    assert list(load_images(str(tmp_path / "both [1]"), "train")["label"]) == [0, 1, 1]
    assert list(load_images(str(tmp_path / "one"), "train")["label"]) == [1]
    (tmp_path / "one" / "state.json").write_text("{}")
    with pytest.raises(ConfigError, match="is an incomplete or damaged folder of save_to_disk"):
        load_images(str(tmp_path / "one"), "train")


@pytest.mark.parametrize(
    ("train", "test", "feature", "names", "numbers"),
    [
        (["b", "a", "c"], ["c"], TEXT, ["a", "b", "c"], [2]),
        ([10, 9, 3], [9, 3], WHOLE, ["3", "9", "10"], [1, 0]),
        ([0, 1], [-1, 1], WHOLE, ["0", "1"], None),
        ([True, False], [True], datasets.Value("bool"), ["False", "True"], [1]),
        ([0.0, 1.0], [1.0], datasets.Value("float64"), ["0", "1"], [1]),
    ],
)
def test_texts_and_whole_numbers_become_classes_of_all_splits(tmp_path, train, test, feature, names, numbers):
    datasets.DatasetDict(train=rows(train, feature), test=rows(test, feature)).save_to_disk(str(tmp_path))
    assert class_names(load_images(str(tmp_path), "train")) == names
    if numbers is None:
        with pytest.raises(ConfigError, match="1 of 2 examples have no class, the first is row 0"):
            load_images(str(tmp_path), "test")
    else:
        dataset = load_images(str(tmp_path), "test")
        assert (class_names(dataset), list(dataset["label"])) == (names, numbers)


@pytest.mark.parametrize(
    ("labels", "feature", "message"),
    [
        ([0.5, 1.0], datasets.Value("float64"), "label=0.5: must be a whole number or a text"),
        (
            [[0], [1]],
            datasets.List(WHOLE),
            "label_column_name=None: no column .* a label is one class, no list and not one-hot",
        ),
        (["a", None], TEXT, "1 of 2 examples have no class, the first is row 1"),
        (["a", ""], TEXT, "1 of 2 examples have no class, the first is row 1"),
    ],
)
def test_columns_that_are_no_classes_are_refused(labels, feature, message):
    with pytest.raises(ConfigError, match=message):
        labelled(rows(labels, feature))


@pytest.mark.parametrize(
    ("labels", "feature"), [(["a", "b"], TEXT), ([0, 1], WHOLE), ([[0], [0, 1]], datasets.List(WHOLE))]
)
def test_a_column_called_label_is_not_passed_over_for_other_classes(labels, feature):
    data = rows(labels, feature).add_column("source", [1, 0], feature=datasets.ClassLabel(names=["web", "camera"]))
    with pytest.raises(ConfigError, match=r"label_column_name=None: several columns can be .* \(source, label\)"):
        labelled(data)
    assert list(labelled(data, label_column_name="source")["label"]) == [1, 0]
    if feature in (TEXT, WHOLE):
        assert list(labelled(data, label_column_name="label")["label"]) == [0, 1]


def test_a_column_of_images_of_another_mode_is_refused():
    for mode in (None, "RGB"):
        assert len(labelled(rows([0, 1]).cast_column("image", datasets.Image(mode=mode)))) == 2
    with pytest.raises(ConfigError, match=r"image_column_name='image': is of type Image\(mode='L'\), expected no mode"):
        labelled(rows([0, 1]).cast_column("image", datasets.Image(mode="L")))


@pytest.mark.parametrize("dtype", ["string", "large_string", "string_view"])
def test_texts_of_every_type_are_class_names_of_a_model(dtype):
    dataset = labelled(rows(["dog", "cat"], datasets.Value(dtype)), id2label={0: "cat", 1: "dog"})
    assert (class_names(dataset), list(dataset["label"])) == (["cat", "dog"], [1, 0])


def test_columns_that_cannot_be_chosen_are_told_what_to_do():
    paths = datasets.Dataset.from_dict({"image": ["0.png"], "label": ["cat"]})
    for given in ({}, {"image_column_name": "image"}):
        with pytest.raises(ConfigError, match=r"image_column_name=.*dataset\.cast_column\(NAME, datasets\.Image\(\)\)"):
            labelled(paths, **given)
    two = rows([0, 1])
    for name in ("image", "label"):
        other = two.select_columns([name]).rename_column(name, "other")
        twice = datasets.concatenate_datasets([two, other], axis=1)
        with pytest.raises(ConfigError, match=rf"{name}_column_name=None: several .*\({name}, other\).*select_columns"):
            labelled(twice)
    with pytest.raises(ConfigError, match="label_column_name='label': .* no list and not one-hot"):
        labelled(rows([[0], [1]], datasets.List(WHOLE)), label_column_name="label")


def test_a_repository_whose_splits_share_a_file_is_refused(tmp_path):
    files = [f"{split}/{kind}/1.png" for split in ("train", "test") for kind in ("bullet train", "dog")]
    root = write_images(tmp_path, *files)
    with pytest.raises(ConfigError, match=r"one image is in its splits train and test .*/bullet train/1\.png"):
        with_classes("me/trains", datasets.load_dataset("imagefolder", data_dir=str(root)))


def test_a_repository_of_archives_is_refused(tmp_path):
    (tmp_path / "zipped").mkdir()
    with zipfile.ZipFile(tmp_path / "zipped" / "train.zip", "w") as archive:
        archive.writestr("metadata.csv", "file_name,label\n1.png,cat\n")
        archive.writestr("1.png", png())
    splits = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "zipped"))
    with pytest.raises(
        ConfigError, match=r"its images are in archives \(zip://1\.png::.*unpack it, and give the folder"
    ):
        with_classes("me/zipped", splits)
    row = splits["train"].cast_column("image", datasets.Image(decode=False))[0]["image"]
    with pytest.raises(BadImageError, match=r"train\.zip: is in an archive, expected a file: unpack it first"):
        open_image(row)


def test_folders_called_as_splits_are_no_classes(tmp_path, caplog):
    root = write_images(tmp_path, *(f"{split}/{number}.png" for split in ("train", "test") for number in (1, 2)))
    splits = with_classes("me/photos", datasets.load_dataset("imagefolder", data_dir=str(root), drop_labels=False))
    assert {split: (len(rows), rows.column_names) for split, rows in splits.items()} == {
        "train": (2, ["image"]),
        "test": (2, ["image"]),
    }
    assert "me/photos: its images have no classes, only the folders test, train" in caplog.text


@pytest.mark.parametrize("name", ["imagefolder", "csv", "parquet"])
def test_a_reader_of_datasets_is_no_dataset(tmp_path, monkeypatch, name):
    monkeypatch.chdir(write_images(tmp_path, "train/cat/1.png", "train/dog/1.png"))
    with pytest.raises(ConfigError, match=f"dataset_name='{name}': is a reader of datasets, .* give the folder itself"):
        load_images(name, "train")


def test_a_folder_has_no_revision_and_images_no_configuration(tmp_path):
    root = write_images(tmp_path, "cat/1.png", "dog/1.png")
    for given in ({"revision": "main"}, {"dataset_config_name": "fine"}):
        with pytest.raises(ConfigError, match="must be left out: .* is a (local folder|folder of images)"):
            load_images(str(root), "train", **given)


@pytest.mark.world
def test_a_typo_asks_the_hub_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name, message in (
        ("nophotos", r"no such folder \(did you mean 'photos'\?\), no such dataset in the cache, and the Hub does not"),
        ("me/photos", r"there is no such folder, no such dataset in the cache, and the Hub does not answer"),
        ("./my photos", r"there is no such folder \(did you mean 'photos'\?\)$"),
        ("https://huggingface.co/datasets/me/photos", "is a URL: give the id on the Hub, user/name"),
    ):
        with pytest.raises(ConfigError, match=message) as refused:
            load_images(name, "train")
        assert "\n" not in str(refused.value)
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(ConfigError, match="is a file: give a folder of images, or unpack it first"):
        load_images("photos.zip", "train")
    assert not caplog.records  # no retries
