"""The one loop from images to outputs: order, shapes, rows, broken images, threads; and who uses it."""

import io
import json
import subprocess
import sys
import threading
from pathlib import Path

import datasets
import numpy as np
import pytest
from conftest import spread, tiny_model
from PIL import Image
from transformers import ViTImageProcessor

from hub_scripts.__main__ import main
from modeling_vit_cls import (
    BadImageError,
    CheckpointError,
    ConfigError,
    FlaxViTClsForImageClassification,
    FlaxViTClsModel,
    ImageClassificationPipeline,
    ImageFeatureExtractionPipeline,
    ViTClsImageProcessor,
)
from modeling_vit_cls.embed import embed
from modeling_vit_cls.evaluation.benchmark import benchmark
from modeling_vit_cls.evaluation.features import extract
from modeling_vit_cls.images.sources import load_images
from modeling_vit_cls.predict import predict
from modeling_vit_cls.training import FlaxTrainer, TrainingArguments

BROKEN = {"bytes": b"no image", "path": None}


def images(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 9, 7, 3), dtype=np.uint8))


class Watched:
    """A model that keeps the shapes that it was called with."""

    def __init__(self, model):
        self.model, self.shapes = model, []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def __call__(self, pixels, **how):
        self.shapes.append(pixels.shape)
        return self.model(pixels, **how)


def gathered(outputs) -> tuple[np.ndarray, list[int]]:
    values, rows = zip(*outputs)
    return np.concatenate(values), np.concatenate(rows).tolist()


@pytest.mark.parametrize(("count", "batch_size"), [(1, 4), (2, 4), (4, 4), (9, 4), (5, 1), (3, 64)])
def test_outputs_are_those_of_a_plain_call_in_order_and_in_one_shape(model, count, batch_size):
    watched = Watched(model)
    logits, rows = gathered(predict(watched, images(count), batch_size=batch_size))
    pixels = model.image_processor(images(count))["pixel_values"]
    np.testing.assert_allclose(logits, model(pixels, return_dict=True).logits, atol=1e-5)
    assert rows == list(range(count))
    assert set(watched.shapes) == {(1 if count == 1 else batch_size, 3, 8, 8)}


def test_no_images_are_no_outputs(model):
    assert list(predict(model, [])) == []


@pytest.mark.parametrize("kind", ["path", "image", "array", "row of bytes", "row of a path"])
def test_every_kind_of_image_gives_the_same(model, kind, tmp_path):
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file, image in zip(files, images(3)):
        Image.fromarray(image).save(file)
    given = {
        "path": files,
        "image": [Image.open(io.BytesIO(file.read_bytes())) for file in files],
        "array": images(3),
        "row of bytes": [{"bytes": file.read_bytes(), "path": None} for file in files],
        "row of a path": [{"bytes": None, "path": str(file)} for file in files],
    }[kind]
    expected, _ = gathered(predict(model, images(3), batch_size=2))
    assert np.array_equal(gathered(predict(model, given, batch_size=2))[0], expected)


def test_a_pipeline_takes_one_image_or_several_of_every_kind(model, tmp_path):
    file = tmp_path / "0.png"
    Image.fromarray(images(1)[0]).save(file)
    content, classify = file.read_bytes(), ImageClassificationPipeline(model)
    expected = classify(str(file))
    for one in (
        file,
        content,
        bytearray(content),
        memoryview(content),
        {"bytes": content, "path": None},
        images(1)[0],
        np.array([str(file)]),
    ):
        assert classify(one) == expected
    assert [found for _, found in classify.iterate(iter([file, file]), top_k=np.int64(1))] == [expected[0][:1]] * 2
    with pytest.raises(BadImageError, match="has image, label, expected an image as bytes and path"):
        classify([{"image": images(1)[0], "label": 1}])


def test_one_thing_that_is_no_image_is_told_what_an_image_is(model, tmp_path):
    Image.fromarray(images(1)[0]).save(tmp_path / "0.png")
    classify = ImageClassificationPipeline(model)
    with (tmp_path / "0.png").open("rb") as file:
        for wrong in (file, io.BytesIO(file.read()), object()):
            with pytest.raises(BadImageError, match=r"expected a path, the bytes of a file \(`file.read\(\)`\)"):
                classify(wrong)
    for wrong, message in (
        (None, "has no image"),
        (5, "int: expected a path"),
        (np.float32(0), "expected an array"),
    ):
        with pytest.raises(BadImageError, match=message):
            classify(wrong)


def test_a_broken_image_of_a_decoded_column_is_named_by_its_row(model):
    file = io.BytesIO()
    Image.fromarray(images(1)[0]).save(file, "PNG")
    rows = [{"bytes": content, "path": None} for content in (file.getvalue(), b"no image", file.getvalue())]
    features = datasets.Features({"image": datasets.Image()})
    column = datasets.Dataset.from_dict({"image": rows}, features=features)["image"]
    classify, errors = ImageClassificationPipeline(model), {}
    with pytest.raises(BadImageError, match="row 1: cannot be read as an image"):
        classify(column)
    assert [row for row, _ in classify.iterate(column, on_bad_image=errors.__setitem__)] == [0, 2]
    assert list(errors) == [1]


def test_class_names_with_the_keys_of_json_are_names(model):
    classify = ImageClassificationPipeline(model)
    expected = classify(images(2))
    names = dict(model.config.id2label)
    try:
        model.config.id2label = json.loads(json.dumps(names))
        assert classify(images(2)) == expected
        model.config.id2label = ["cat", "dog"]
        with pytest.raises(ConfigError, match=r"id2label=\['cat', 'dog'\]: must map numbers of classes to names"):
            classify(images(2))
    finally:
        model.config.id2label = names


def test_no_random_classifier_is_used(tmp_path, capsys):
    tiny_model(FlaxViTClsModel).save_pretrained(tmp_path / "backbone")
    (tmp_path / "data" / "cat").mkdir(parents=True)
    Image.fromarray(images(1)[0]).save(tmp_path / "data" / "cat" / "0.png")
    words = "backbone: it has no classifier, and a random one would be used: `vit-cls train` or"
    with pytest.raises(CheckpointError, match=words):
        ImageClassificationPipeline(tmp_path / "backbone")
    for arguments in (["predict", "BACKBONE", "DATA"], ["benchmark", "BACKBONE", "--dataset_name", "DATA"]):
        places = {"BACKBONE": str(tmp_path / "backbone"), "DATA": str(tmp_path / "data")}
        assert main([places.get(word, word) for word in arguments]) == 1
        shown = capsys.readouterr()
        assert words in shown.err.splitlines()[-1]
        assert shown.out == ""


def test_an_image_processor_of_transformers_is_as_good_as_ours(model, tmp_path):
    theirs = ViTImageProcessor(size={"height": 8, "width": 8}, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    ours = ViTClsImageProcessor.from_fields(theirs.to_dict())
    photo = Image.fromarray(images(1)[0])
    expected = ImageClassificationPipeline(model, ours)(photo)
    assert ImageClassificationPipeline(model, theirs)(photo) == expected
    logits, _ = gathered(predict(model, [photo], processor=ours))
    assert np.array_equal(gathered(predict(model, [photo], processor=theirs))[0], logits)
    given = FlaxViTClsForImageClassification(model.config, params=model.params, image_processor=theirs)
    changed = FlaxViTClsForImageClassification(model.config, params=model.params)
    changed.image_processor = theirs
    assert ImageClassificationPipeline(given)(photo) == ImageClassificationPipeline(changed)(photo) == expected
    backbone = FlaxViTClsModel(model.config)
    data = load_images("digits", "test").select(range(3))
    of_both = [extract(backbone, data, processor=processor, disable_tqdm=True) for processor in (ours, theirs)]
    assert np.array_equal(of_both[0].of("cls"), of_both[1].of("cls"))
    folders = [tmp_path / "ours", tmp_path / "theirs"]
    for folder, processor in zip(folders, (ours, theirs)):
        embed(backbone, data, folder, processor=processor, shards=1, disable_tqdm=True)
    first, second = ([file.read_bytes() for file in sorted(folder.glob("*.parquet"))] for folder in folders)
    assert first == second != []
    arguments = TrainingArguments(str(tmp_path / "run"), max_steps=1)
    trainer = FlaxTrainer(tiny_model(num_labels=10), arguments, load_images("digits", "train"), processing_class=theirs)
    assert trainer.processing_class.to_dict() == ours.to_dict()
    changed.image_processor = None
    assert changed.image_processor.to_dict() == model.image_processor.to_dict()
    with pytest.raises(
        ConfigError, match=r"image_processor='str': must be a ViTClsImageProcessor or an image processor"
    ):
        changed.image_processor = "vit"


def test_one_image_many_times_is_decoded_once_at_a_time(model, tmp_path):
    large = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(large).save(tmp_path / "large.png")
    with Image.open(tmp_path / "large.png") as image:
        logits, _ = gathered(predict(model, [image] * 32, batch_size=32))
    assert (logits == logits[0]).all()


def test_the_caller_chooses_outputs_and_parameters():
    model = tiny_model(FlaxViTClsModel)
    other = spread(model.params, 0.1)
    pixels = model.image_processor(images(5))["pixel_values"]
    for params in (None, other):
        expected = model(pixels, params=params, return_dict=True)
        chosen = predict(
            model, images(5), params=params, batch_size=2, take=lambda out: (out.pooler_output, out.last_hidden_state)
        )
        pooled, tokens = (np.concatenate(parts) for parts in zip(*(values for values, _ in chosen)))
        np.testing.assert_allclose(pooled, expected.pooler_output, atol=1e-5)
        np.testing.assert_allclose(tokens, expected.last_hidden_state, atol=1e-5)


def test_images_of_their_own_sizes_go_one_by_one():
    model = tiny_model(dynamic_image_size=True)
    processor = ViTClsImageProcessor(size={"max_num_patches": 16, "patch_size": 4})
    sizes = [(8, 16), (16, 8), (12, 12)]
    given = [np.full((*size, 3), 100, np.uint8) for size in sizes]
    watched = Watched(model)
    logits, rows = gathered(predict(watched, given, processor=processor, batch_size=8))
    assert rows == [0, 1, 2]
    assert [shape[0] for shape in watched.shapes] == [1, 1, 1]
    for image, row in zip(given, logits):
        alone = model(processor([image])["pixel_values"], interpolate_pos_encoding=True, return_dict=True).logits[0]
        np.testing.assert_allclose(row, alone, atol=1e-5)


@pytest.mark.parametrize("broken", [[0], [3], [0, 1, 2, 3], [2, 3, 4, 5], [1, 8], list(range(9))])
def test_broken_images_are_reported_in_order_and_left_out(model, broken):
    given = [BROKEN if row in broken else image for row, image in enumerate(images(9))]
    reported = []
    outputs = list(
        predict(model, given, batch_size=4, on_bad_image=lambda row, error: reported.append((row, str(error))))
    )
    assert [row for row, _ in reported] == broken
    assert all(message.startswith(f"row {row}: ") for row, message in reported)
    good = [row for row in range(9) if row not in broken]
    assert [row for _, rows in outputs for row in rows] == good
    if good:
        whole, _ = gathered(predict(model, images(9), batch_size=4))
        np.testing.assert_allclose(gathered(outputs)[0], whole[good], atol=1e-5)
    with pytest.raises(BadImageError, match=f"row {broken[0]}: "):
        list(predict(model, given, batch_size=4))


def test_the_next_batch_is_decoded_before_a_batch_is_handed_out(model, monkeypatch):
    """While the device computes the one; in threads."""
    prepared = []
    resized = ViTClsImageProcessor.resized

    def noted(self, image):
        prepared.append(threading.current_thread() is threading.main_thread())
        return resized(self, image)

    monkeypatch.setattr(ViTClsImageProcessor, "resized", noted)
    for number, _ in enumerate(predict(model, images(12), batch_size=4), 1):
        assert len(prepared) == min(4 * (number + 1), 12)
    assert not any(prepared)


def test_an_outer_loop_that_stops_leaves_no_thread(model):
    before = set(threading.enumerate())
    outputs = predict(model, images(12), batch_size=2)
    next(outputs)
    outputs.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive()


def test_an_outer_loop_that_nobody_ends_lets_python_end_in_silence(model_folder):
    program = f"""
import numpy as np
from modeling_vit_cls import ImageClassificationPipeline
found = ImageClassificationPipeline({str(model_folder)!r}).iterate([np.zeros((8, 8, 3), np.uint8)] * 100)
print(next(found)[0])
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("0\n", "")


def test_images_of_a_generator_are_read_batch_by_batch(model):
    read, given = [], images(40)

    def generated(count):
        for number in range(count):
            read.append(number)
            yield given[number]

    classify = ImageClassificationPipeline(model, batch_size=4)
    found = classify.iterate(generated(40))
    expected = classify(given)
    for row, predictions in found:
        assert len(read) == min(4 * (row // 4 + 2), 40)
        assert predictions == expected[row]
    assert row == 39
    extract = ImageFeatureExtractionPipeline(
        FlaxViTClsModel(model.config, params=model.params["vit_cls"]), batch_size=4
    )
    for count in (0, 1, 2, 9):
        assert classify(generated(count)) == classify(given[:count])
        assert extract(generated(count), pool=True) == extract(given[:count], pool=True)
    broken = []
    rows = [
        row
        for row, _ in classify.iterate(iter([BROKEN, given[0], BROKEN]), on_bad_image=lambda *bad: broken.append(bad))
    ]
    assert (rows, [row for row, _ in broken]) == ([1], [0, 2])
    with pytest.raises(BadImageError, match="row 1: "):
        classify(iter([given[0], BROKEN]))


def test_pipeline_benchmark_and_trainer_give_the_same_numbers(tmp_path: Path):
    digits = load_images("digits", "test").select(range(40))
    names = [str(number) for number in range(10)]
    model = tiny_model(num_channels=1, num_labels=10, id2label=dict(enumerate(names)))
    logits, rows = gathered(predict(model, digits["image"], batch_size=16))
    assert rows == list(range(40))
    labels = np.asarray(digits["label"])
    shifted = logits - logits.max(axis=1, keepdims=True)
    nll = (np.log(np.exp(shifted).sum(axis=1)) - shifted[rows, labels]).mean()

    measured = benchmark(model, digits, batch_size=16, disable_tqdm=True)["metrics"]
    assert measured["accuracy"] == (logits.argmax(axis=1) == labels).mean()
    assert measured["nll"] == pytest.approx(nll, rel=1e-5)
    for bf16, tolerance in ((False, 1e-6), (True, 0.1)):
        arguments = TrainingArguments(
            str(tmp_path), per_device_eval_batch_size=16, dataloader_num_workers=2, bf16=bf16, disable_tqdm=True
        )
        output = FlaxTrainer(model, arguments).predict(digits)
        assert np.array_equal(output.label_ids, labels)
        assert abs(output.predictions - logits).max() <= tolerance * abs(logits).max()
        assert np.array_equal(output.predictions, logits) == (not bf16)
        assert output.metrics["test_loss"] == pytest.approx(nll, rel=max(tolerance, 1e-5))
    predictions = ImageClassificationPipeline(model, batch_size=16)(digits["image"], top_k=1)
    assert [row[0]["label"] for row in predictions] == [names[best] for best in logits.argmax(axis=1)]


def test_outputs_that_are_not_finite_are_an_error_that_names_the_image(tmp_path, capsys):
    digits = load_images("digits", "test").select(range(4))
    model = tiny_model(num_channels=1, num_labels=10, id2label={number: str(number) for number in range(10)})
    norm = {**model.params["vit_cls"]["norm"], "scale": np.full(16, np.inf, np.float32)}
    model.params = {**model.params, "vit_cls": {**model.params["vit_cls"], "norm": norm}}
    backbone = FlaxViTClsModel(model.config, params=model.params["vit_cls"])
    for use in (
        lambda: FlaxTrainer(model, TrainingArguments(str(tmp_path), disable_tqdm=True)).evaluate(digits),
        lambda: benchmark(model, digits, disable_tqdm=True),
        lambda: extract(backbone, digits, disable_tqdm=True),
        lambda: embed(backbone, digits, tmp_path / "embedded", disable_tqdm=True),
        lambda: ImageClassificationPipeline(model)(digits["image"]),
        lambda: ImageClassificationPipeline(model)(images(2)),
        lambda: ImageFeatureExtractionPipeline(backbone)(images(2)),
    ):
        with pytest.raises(FloatingPointError, match=r"(row 0|0002\.png): the model's outputs are NaN or .*in float32"):
            use()
    model.save_pretrained(tmp_path / "model", allow_nonfinite=True)
    Image.fromarray(images(1)[0]).save(tmp_path / "0.png")
    assert main(["predict", str(tmp_path / "model"), str(tmp_path / "0.png"), "--json"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"{tmp_path / '0.png'}: the model's outputs are NaN or infinite" in shown.err


def test_only_what_is_handed_out_must_be_finite(model):
    given = [*images(2), BROKEN, *images(5)]
    third = {"take": lambda outputs: outputs.logits.at[2].set(np.nan), "batch_size": 4}
    with pytest.raises(FloatingPointError, match="row 6: the model's outputs are NaN"):
        list(predict(model, given, on_bad_image=lambda *_: None, **third))
    assert len(list(predict(model, given[3:5], **third))) == 1, "what fills the batch is left out"
