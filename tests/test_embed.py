"""Embedded datasets: every row once, one folder for one model and one dataset."""

import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from conftest import spread, tiny_model
from embedded import constant_backbone, content, pictures, png, read, small_backbone, vectors

from hub_scripts.__main__ import main
from modeling_vit_cls import (
    BadImageError,
    CheckpointError,
    ConfigError,
    FlaxViTClsModel,
    ImageFeatureExtractionPipeline,
)
from modeling_vit_cls.embed import embed
from modeling_vit_cls.embed.shards import Shards
from modeling_vit_cls.images.fingerprint import table_fingerprint
from modeling_vit_cls.images.sources import load_with_columns
from modeling_vit_cls.predict import predict

pytestmark = pytest.mark.world


@pytest.fixture(scope="module")
def backbone() -> FlaxViTClsModel:
    return small_backbone()


@pytest.mark.parametrize("shards", [1, 3, 7, None])
def test_datasets_reads_the_folder_with_all_columns(backbone, shards, tmp_path):
    dataset = pictures(7)
    embedded = embed(backbone, dataset, tmp_path / "out", shards=shards, batch_size=2, disable_tqdm=True)
    assert (embedded.rows, embedded.width, embedded.whole, embedded.left_out) == (7, 16, shards or 1, {})
    names = [f"part-{shard:05d}-of-{shards or 1:05d}.parquet" for shard in range(shards or 1)]
    assert list(content(tmp_path / "out")) == [".embed.json", *names]
    result = read(tmp_path / "out")
    added = {"row": datasets.Value("int64"), "embedding": datasets.List(datasets.Value("float32"), length=16)}
    assert result.features == datasets.Features({**dataset.features, **added})
    assert result["row"] == list(range(7))
    for name in ("caption", "label", "boxes"):
        assert result[name] == dataset[name]
    assert [np.array(image).tolist() for image in result["image"]] == [
        np.array(image).tolist() for image in dataset["image"]
    ]
    pixels = backbone.image_processor(list(dataset["image"]))["pixel_values"]
    np.testing.assert_allclose(vectors(tmp_path / "out"), backbone.get_image_features(pixels), atol=1e-5)


def test_a_home_in_the_name_of_the_folder_is_found(backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for written in (1, 0):
        embedded = embed(backbone, pictures(3), "~/out", shards=1, disable_tqdm=True)
        assert (embedded.written, embedded.whole) == (written, 1)
    assert [entry.name for entry in tmp_path.glob("[!.]*")] == ["out"]


def test_what_is_embedded_can_be_embedded_again_and_loaded_by_name(backbone, tmp_path):
    embed(backbone, pictures(5), tmp_path / "out", shards=2, disable_tqdm=True)
    again = load_with_columns(str(tmp_path / "out"), "train")
    assert again.column_names == ["caption", "image", "label", "boxes", "row", "embedding"]
    with pytest.raises(ConfigError, match="row.*rename"):
        embed(backbone, again, tmp_path / "again", disable_tqdm=True)
    again = again.remove_columns(["row", "embedding"])
    embed(backbone, again, tmp_path / "again", disable_tqdm=True)
    assert np.array_equal(vectors(tmp_path / "again"), vectors(tmp_path / "out"))


def test_a_selection_in_another_order_and_another_name_of_the_column(backbone, tmp_path):
    dataset = pictures(9, image="img").select([8, 1, 5, 3, 0])
    embed(backbone, dataset, tmp_path / "out", shards=2, disable_tqdm=True)
    result = read(tmp_path / "out")
    assert result["caption"] == [f"number {row}" for row in (8, 1, 5, 3, 0)]
    assert result["row"] == [0, 1, 2, 3, 4]
    embed(backbone, pictures(9), tmp_path / "whole", disable_tqdm=True)
    np.testing.assert_allclose(vectors(tmp_path / "out"), vectors(tmp_path / "whole")[[8, 1, 5, 3, 0]], atol=1e-5)


@pytest.mark.parametrize("readout", ["cls", "mean", "cls_mean"])
@pytest.mark.parametrize("normalize", [False, True])
def test_readouts_and_lengths(backbone, readout, normalize, tmp_path):
    out = tmp_path / "out"
    embed(backbone, pictures(3), out, readout=readout, normalize=normalize, disable_tqdm=True)
    tokens = backbone(backbone.image_processor(list(pictures(3)["image"]))["pixel_values"]).last_hidden_state
    parts = {"cls": [tokens[:, 0]], "mean": [tokens[:, 3:].mean(1)]}
    expected = np.concatenate(parts["cls"] + parts["mean"] if readout == "cls_mean" else parts[readout], axis=1)
    if normalize:
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors(out), expected, atol=1e-5)


def test_the_embedding_of_a_projecting_model_is_the_projection(tmp_path):
    model = tiny_model(FlaxViTClsModel, projection_size=7)
    embed(model, pictures(3), tmp_path / "out", disable_tqdm=True)
    pixels = model.image_processor(list(pictures(3)["image"]))["pixel_values"]
    np.testing.assert_allclose(vectors(tmp_path / "out"), model(pixels).image_embeds, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_stored_in_half_the_space(backbone, dtype, tmp_path):
    backbone.save_pretrained(tmp_path / "model")
    half = FlaxViTClsModel.from_pretrained(tmp_path / "model", dtype=dtype)
    for name, model in (("half", half), ("full", backbone)):
        embed(model, pictures(6), tmp_path / name, disable_tqdm=True)
    assert read(tmp_path / "half").features["embedding"].feature.dtype == "float16"
    full = vectors(tmp_path / "full")
    assert abs(vectors(tmp_path / "half") - full).max() < 0.05 * abs(full).max()


def test_an_embedding_that_is_not_finite_is_an_error_with_its_row(tmp_path):
    model = tiny_model(FlaxViTClsModel)
    model.params = {**model.params, "norm": {**model.params["norm"], "bias": np.full(16, 1e6, np.float32)}}
    embed(model, pictures(3), tmp_path / "full", disable_tqdm=True)
    model.dtype = np.dtype("float16")
    with pytest.raises(ValueError, match="row 0 is NaN or infinite in float16"):
        embed(model, pictures(3), tmp_path / "half", disable_tqdm=True)


def test_broken_images_are_left_out_and_listed_up_to_a_limit(backbone, tmp_path, caplog):
    broken = (0, 3, 4, 5, 8)
    dataset, out = pictures(9, broken), tmp_path / "out"
    first = embed(backbone, dataset, out, shards=3, max_bad_images=5, disable_tqdm=True)
    assert sorted(first.left_out) == list(broken)
    assert all(f"{row}.png" in error for row, error in first.left_out.items())
    assert caplog.text.count("left out: ") == len(broken)
    assert read(out)["row"] == [1, 2, 6, 7]  # the second shard has no row
    readable = pictures(9).select([1, 2, 6, 7])
    pixels = backbone.image_processor(list(readable["image"]))["pixel_values"]
    np.testing.assert_allclose(vectors(out), backbone.get_image_features(pixels), atol=1e-5)
    again = embed(backbone, dataset, out, max_bad_images=5, disable_tqdm=True)
    assert (again.written, again.rows, again.left_out) == (0, 4, first.left_out)
    with pytest.raises(BadImageError, match=r"more than max_bad_images=4 .*8\.png"):
        embed(backbone, dataset, tmp_path / "limited", shards=3, max_bad_images=4, disable_tqdm=True)
    with pytest.raises(BadImageError, match="none of the 2 images can be read"):
        embed(backbone, pictures(2, (0, 1)), tmp_path / "none", disable_tqdm=True)


@pytest.mark.parametrize(
    ("rows", "count", "batch_size"), [(9, 3, 32), (48, 2, 16), (1000, 7, 32), (97, 6, 16), (7, 7, 1)]
)
def test_shards_are_a_partition_that_wastes_no_batch(rows, count, batch_size, tmp_path):
    shards = Shards(tmp_path, count, rows, batch_size)
    parts = [shards.part(shard) for shard in range(count)]
    assert [row for part in parts for row in part] == list(range(rows))
    assert all(parts)
    batches = sum(-(-len(part) // batch_size) for part in parts)
    assert batches == max(count, -(-rows // batch_size))


def test_a_shard_that_was_damaged_or_is_missing_is_done_again(backbone, tmp_path):
    dataset, out = pictures(8), tmp_path / "out"
    embed(backbone, dataset, out, shards=4, disable_tqdm=True)
    before = content(out)
    file = out / "part-00001-of-00004.parquet"
    file.write_bytes(file.read_bytes()[:-7])
    (out / "part-00003-of-00004.parquet").unlink()
    (out / ".part-00003-of-00004.parquet.tmp-1").write_bytes(b"of a process that was killed")
    assert embed(backbone, dataset, out, disable_tqdm=True).written == 2
    assert content(out) == before


OTHERS = {
    "model.digest": lambda model, dataset: {"model": other_model(model)},
    "processor": lambda model, dataset: {"processor": other_processor(model)},
    "readout": lambda model, dataset: {"readout": "mean"},
    "normalize": lambda model, dataset: {"normalize": True},
    "batch_size": lambda model, dataset: {"batch_size": 3},
    "shards": lambda model, dataset: {"shards": 3},
    "dataset.images": lambda model, dataset: {"dataset": pictures(6, (2,))},
    "dataset.values": lambda model, dataset: {"dataset": dataset.map(lambda row: {"label": 1 - row["label"]})},
    "dataset.columns": lambda model, dataset: {"dataset": dataset.remove_columns("boxes")},
    "dataset.examples": lambda model, dataset: {"dataset": dataset.select(range(5))},
}


def other_model(model):
    other = tiny_model(FlaxViTClsModel, num_register_tokens=2)
    other.params = spread(model.params, 1e-3)
    return other


def other_processor(model):
    processor = type(model.image_processor)(**{**model.image_processor.to_dict(), "image_mean": [0.4, 0.5, 0.5]})
    assert processor.to_dict() != model.image_processor.to_dict()
    return processor


@pytest.mark.parametrize("field", OTHERS)
def test_a_folder_takes_one_model_one_dataset_and_one_way(field, backbone, tmp_path):
    given = {"model": backbone, "dataset": pictures(6), "shards": 2}
    embed(**given, folder=tmp_path, disable_tqdm=True)
    before = content(tmp_path)
    with pytest.raises(ConfigError, match=rf"{field}=.*have {field}=.*give another folder") as error:
        embed(**{**given, **OTHERS[field](backbone, given["dataset"])}, folder=tmp_path, disable_tqdm=True)
    theirs = json.loads(before[".embed.json"])
    for name in field.split("."):
        theirs = theirs[name]
    assert error.value.value != theirs
    assert content(tmp_path) == before


def test_names_and_versions_may_change_and_a_damaged_manifest_may_not(backbone, tmp_path, caplog):
    def embed_again(name: str):
        origin = {part: {"name": name, "source": "folder"} for part in ("model", "dataset")}
        return embed(backbone, pictures(4), tmp_path, shards=2, origin=origin, disable_tqdm=True)

    embed_again("mine")
    file = tmp_path / ".embed.json"
    file.write_text(file.read_text().replace('"jax": "', '"jax": "0.'))
    assert embed_again("moved").written == 0
    assert "other versions of packages" in caplog.text
    assert json.loads(file.read_text())["model"]["name"] == "mine"
    for text in ("{", "[]"):
        file.write_text(text)
        with pytest.raises(CheckpointError, match=r"\.embed\.json"):
            embed_again("mine")


@pytest.mark.parametrize("missing", ["datasets", "pyarrow"])
def test_without_datasets_the_error_names_the_extra(missing):
    program = f"import sys; sys.modules[{missing!r}] = None; import modeling_vit_cls.embed"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "ImportError: datasets is needed to embed a dataset: `pip install '.[train]'`" in done.stderr


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"shards": 0}, "shards"),
        ({"shards": 7}, "shards"),
        ({"shards": "2"}, "shards"),
        ({"worker": (2, 2)}, "worker"),
        ({"worker": (-1, 2)}, "worker"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_bad_images": -1}, "max_bad_images"),
        ({"readout": "map"}, "readout"),
        ({"readout": "avg"}, "readout"),
        ({"image_column_name": "label"}, "image_column_name"),
        ({"model": "my-vit"}, "model"),
        ({"dataset": [1]}, "dataset"),
        ({"dataset": pictures(6).select([])}, "dataset"),
    ],
)
def test_what_cannot_be_embedded_is_refused_before_anything_is_written(wrong, field, backbone, tmp_path):
    with pytest.raises(ConfigError) as error:
        embed(**{"model": backbone, "dataset": pictures(6), "folder": tmp_path / "out", "disable_tqdm": True, **wrong})
    assert error.value.field == field
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_files_is_not_written_into(backbone, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"notes\.txt.*give a new folder"):
        embed(backbone, pictures(2), tmp_path, disable_tqdm=True)
    assert list(content(tmp_path)) == ["notes.txt"]


def test_the_verb_embeds_photos_without_classes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny_model(image_size=8).save_pretrained("my-vit")
    for row, name in enumerate(["a.png", "2024/b.png", "2024/trip/c.png"]):
        file = Path("photos", name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(row))
    Path("photos/broken.png").write_bytes(b"no image")
    assert main(["embed", "my-vit", "photos", "--output", "out", "--normalize", "--shards", "2"]) == 0
    shown = capsys.readouterr()
    assert "3 images embedded, 16 numbers each, 1 broken ones left out" in shown.out
    assert "out: 2 of 2 shards are whole" in shown.out
    assert "broken.png" in shown.err
    result = read(tmp_path / "out")
    assert result.column_names == ["image", "row", "embedding"]
    manifest = json.loads(Path("out/.embed.json").read_text())
    assert (manifest["model"]["name"], manifest["model"]["source"]) == ("my-vit", "folder")
    assert (manifest["dataset"]["name"], manifest["dataset"]["split"]) == ("photos", "train")
    assert set(manifest["versions"]) >= {"jax", "datasets", "vit-cls"}
    assert main(["embed", "my-vit", "photos", "--output", "out", "--normalize", "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert (state["written"], state["rows"], list(state["left_out"])) == (0, 3, ["1"])
    assert main(["embed", "my-vit", "photos", "--output", "out"]) == 1
    assert "normalize=False: the shards in out have normalize=True" in capsys.readouterr().err


def test_folders_of_classes_become_labels(tmp_path):
    for row, name in enumerate(["train/cat/a.png", "train/dog/b.png", "test/dog/c.png"]):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(row))
    dataset = load_with_columns(str(tmp_path), "train")
    assert dataset["label"] == [0, 1]
    (tmp_path / "train" / "loose.png").write_bytes(png(3))
    dataset = load_with_columns(str(tmp_path), "train")
    assert dataset.column_names == ["image"]
    assert len(dataset) == 3
    with pytest.raises(ConfigError, match="must be one of"):
        load_with_columns(str(tmp_path), "validation")


@pytest.mark.parametrize(("classes", "columns"), [("", ["image"]), ("cat/", ["image", "label"])])
def test_columns_of_a_metadata_file_are_columns(tmp_path, classes, columns):
    for row, name in enumerate(["a.png", "b.png"]):
        file = tmp_path / "train" / classes / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(row))
    rows = f"file_name,text,place\n{classes}b.png,a lake,Bern\n"
    (tmp_path / "train" / "metadata.csv").write_text(rows)
    dataset = load_with_columns(str(tmp_path), "train")
    assert dataset.column_names == [*columns, "text", "place"]
    assert (dataset["text"][:], dataset["place"][:]) == ([None, "a lake"], [None, "Bern"])
    (tmp_path / "train" / "metadata.csv").unlink()
    rows = [{"file_name": f"{classes}{name}.png", "text": text} for name, text in (("a", 1), ("b", ["x"]))]
    (tmp_path / "train" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ConfigError, match=r"metadata.jsonl: column text"):
        load_with_columns(str(tmp_path), "train")


def test_batches_end_at_the_ends_of_parts(model):
    images = list(np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8))
    rows = [rows.tolist() for _, rows in predict(model, images, batch_size=3, parts=[range(5, 9), range(4)])]
    assert rows == [[5, 6, 7], [8], [0, 1, 2], [3]]


def test_the_record_of_a_dataset_does_not_depend_on_the_file_that_it_is_in(tmp_path):
    """Arrow leaves what stands behind a null undefined, and a file stores it otherwise."""
    features = datasets.Features({"image": datasets.Image(decode=False), "a": {"text": datasets.Value("string")}})
    rows = [None if row % 2 else {"text": f"{row}"} for row in range(6)]
    images = [{"bytes": png(row), "path": None} for row in range(6)]
    whole = datasets.Dataset.from_dict({"image": images, "a": rows}, features=features).add_column("b", [None, 1] * 3)
    whole.to_parquet(tmp_path / "d.parquet")
    again = datasets.load_dataset("parquet", data_files=str(tmp_path / "d.parquet"), split="train")
    parts = [
        table_fingerprint(dataset.cast_column("image", datasets.Image(decode=False)), "image")
        for dataset in (whole, again)
    ]
    assert parts[0] == parts[1]
    assert table_fingerprint(whole.select([1, 0, 2, 3, 4, 5]), "image")["values"] != parts[0]["values"]


@pytest.mark.parametrize("bias", [1e20, 1e-25])
def test_vectors_of_any_scale_are_given_length_1(bias, tmp_path):
    model = constant_backbone(bias)
    embed(model, pictures(2), tmp_path / "out", normalize=True, disable_tqdm=True)
    np.testing.assert_allclose(np.linalg.norm(vectors(tmp_path / "out"), axis=1), 1, rtol=1e-5)
    extract = ImageFeatureExtractionPipeline(model, pool=True, normalize=True, return_tensors=True)
    np.testing.assert_allclose(np.linalg.norm(extract(list(pictures(2)["image"])), axis=1), 1, rtol=1e-5)


def test_a_vector_of_length_0_is_named(tmp_path):
    model = constant_backbone(0.0)
    with pytest.raises(ValueError, match="row 0 is NaN or infinite in float32, or has length 0 and no direction"):
        embed(model, pictures(2), tmp_path / "out", normalize=True, disable_tqdm=True)
    extract = ImageFeatureExtractionPipeline(model, pool=True, normalize=True)
    with pytest.raises(ValueError, match="image 0: features that are all zero cannot be normalised"):
        extract(list(pictures(2)["image"]))


def test_a_folder_inside_the_dataset_or_a_file_is_no_output(backbone, tmp_path, capsys):
    backbone.save_pretrained(tmp_path / "model")
    embed(backbone, pictures(3), tmp_path / "data", disable_tqdm=True)
    (tmp_path / "file").write_text("")
    for output, words in (("data/out", "is inside the dataset"), ("data", "is inside"), ("file", "is a file")):
        arguments = ["embed", str(tmp_path / "model"), str(tmp_path / "data"), "--output", str(tmp_path / output)]
        assert main(arguments) == 1
        assert words in capsys.readouterr().err
