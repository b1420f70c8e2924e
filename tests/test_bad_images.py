"""Images that cannot be read, in training, benchmark, predict and card: named, left out, counted; or an error."""

import json

import datasets
import numpy as np
import pytest
from conftest import tiny_model
from photos import write_images

from hub_scripts.__main__ import main
from modeling_vit_cls import BadImageError, FlaxViTClsForImageClassification, ImageClassificationPipeline
from modeling_vit_cls.evaluation.benchmark import benchmark
from modeling_vit_cls.images.batches import training_batches
from modeling_vit_cls.images.fingerprint import images_digest
from modeling_vit_cls.images.sources import load_images, open_image
from modeling_vit_cls.training import FlaxTrainer, TrainingArguments

NAMES = {0: "cat", 1: "dog"}
BROKEN = {"bytes": b"\xff\xd8\xff no more", "path": None}
EMPTY = {"bytes": b"", "path": None}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint of cats and dogs."""
    folder = tmp_path_factory.mktemp("model") / "pets"
    tiny_model(num_labels=2, id2label=NAMES).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Cats and dogs in two splits, eight of each."""
    places = (
        f"{split}/{kind}/{number}.png" for split in ("train", "test") for kind in NAMES.values() for number in range(8)
    )
    return write_images(tmp_path / "photos", *places)


def pathless(folder, bad: list) -> datasets.Dataset:
    """Six good images without a path, then the bad ones."""
    good = [{"bytes": file.read_bytes(), "path": None} for file in sorted((folder / "train" / "cat").iterdir())[:6]]
    images = good + bad
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES.values()))})
    return datasets.Dataset.from_dict(
        {"image": images, "label": [row % 2 for row in range(len(images))]}, features=features
    )


def trainer(folder, train=None, **changes) -> FlaxTrainer:
    how = TrainingArguments(str(folder / "out"), max_steps=2, save_strategy="no", disable_tqdm=True, **changes)
    return FlaxTrainer(tiny_model(num_labels=2, id2label=NAMES), how, train)


def test_the_steps_before_a_broken_image_are_done_and_saved(folder):
    data = pathless(folder, [BROKEN])
    every = {"per_device_train_batch_size": 1, "logging_strategy": "no", "save_strategy": "steps", "save_steps": 1}
    how = TrainingArguments(str(folder / "out"), num_train_epochs=1, disable_tqdm=True, **every)
    run = FlaxTrainer(tiny_model(num_labels=2, id2label=NAMES), how, data)
    with pytest.raises(BadImageError, match="row 6"):
        run.train()
    skipped = {"batch_size": 1, "num_epochs": 1, "seed": how.seed, "on_bad_image": "skip"}
    order = [int(batch.rows[0]) for batch in training_batches(run.train_dataset, run.processing_class, **skipped)]
    done = order.index(6)  # this many images come before the broken one
    assert 0 < done < 6
    assert sorted(path.name for path in (folder / "out").iterdir()) == [f"checkpoint-{i + 1}" for i in range(done)]


def test_rows_without_an_image_or_a_path_count_one_by_one(folder, tally):
    data = pathless(folder, [None, EMPTY, BROKEN, BROKEN])
    run = trainer(folder, data, on_bad_image="skip", per_device_train_batch_size=10)
    run.train()
    assert sorted(run.bad_images) == ["row 6", "row 7", "row 8", "row 9"]
    for _ in range(2):
        run.evaluate(data)
        assert len(run.bad_images) == 8  # the evaluation's rows too, each once
    for nothing in (None, {"bytes": None, "path": None}):
        with pytest.raises(BadImageError, match="has no image"):
            open_image(nothing)
    found = benchmark(run.model, data, on_bad_image="skip", batch_size=4, disable_tqdm=True)
    assert (found["examples"], found["skipped"]) == (6, 4)
    strict = trainer(folder)
    for row in range(6, 10):
        for meet in (strict.evaluate, lambda few: benchmark(run.model, few, batch_size=4, disable_tqdm=True)):
            with pytest.raises(BadImageError, match="row 2: "):
                meet(data.select([0, 1, row]))
            tally.note("an error that names the row")


def test_a_run_that_goes_on_counts_the_training_images_of_before(folder):
    data = pathless(folder, [None, BROKEN])
    every = {"on_bad_image": "skip", "per_device_train_batch_size": 8, "eval_strategy": "steps", "eval_steps": 1}

    def again(max_steps: int) -> FlaxTrainer:
        how = TrainingArguments(str(folder / "run"), max_steps=max_steps, save_steps=1, disable_tqdm=True, **every)
        return FlaxTrainer(tiny_model(num_labels=2, id2label=NAMES), how, data, data)

    whole = again(1)
    whole.train()
    assert (len(whole.bad_images), sorted(whole.bad_training_images)) == (4, ["row 6", "row 7"])
    ended = again(1)
    ended.train(resume_from_checkpoint=True)  # no step is left to make
    assert ended.bad_training_images == whole.bad_training_images


def test_an_update_without_a_readable_image_is_no_part_of_the_loss(folder):
    good = pathless(folder, [])
    order = np.arange(12).reshape(2, 6).T.reshape(-1)  # good and broken images by turns
    mixed = datasets.concatenate_datasets([good, pathless(folder, [EMPTY] * 6).select(range(6, 12))]).select(order)
    every = {"num_train_epochs": 1, "per_device_train_batch_size": 1, "learning_rate": 1e-9, "disable_tqdm": True}

    def again(data, resume=False, output="out", **changes) -> FlaxTrainer:
        how = TrainingArguments(str(folder / output), on_bad_image="skip", **every, **changes)
        run = FlaxTrainer(tiny_model(num_labels=2, id2label=NAMES), how, data)
        run.train_loss = run.train(resume_from_checkpoint=resume).training_loss
        return run

    expected = again(good, logging_strategy="no", save_strategy="no").train_loss
    for each in (1, 5):
        often = {
            "output": f"every-{each}",
            "logging_steps": each,
            "save_strategy": "steps",
            "save_steps": 4,
            "save_total_limit": 3,
        }
        run = again(mixed, **often)
        losses = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
        assert run.state.global_step == 12
        assert min(losses) > 0
        assert len(losses) == (6 if each == 1 else 2)
        assert run.train_loss == pytest.approx(expected, rel=1e-3)
        checkpoint = folder / f"every-{each}" / "checkpoint-4"
        assert again(mixed, str(checkpoint), **often).train_loss == run.train_loss
    with pytest.raises(BadImageError, match="no image of train_dataset could be read, the first was row "):
        again(pathless(folder, [EMPTY] * 4).select(range(6, 10)), save_strategy="no")


def test_more_broken_rows_than_the_limit_are_an_error(folder):
    data = pathless(folder, [None, EMPTY, BROKEN, BROKEN])
    limited = trainer(folder, on_bad_image="skip", max_bad_images=3)
    with pytest.raises(
        BadImageError, match="more than max_bad_images=3 images of eval cannot be read, the last is row"
    ):
        limited.evaluate(data)
    allowed = trainer(folder, on_bad_image="skip", max_bad_images=4)
    (folder / "train" / "cat" / "3.png").write_bytes(b"\x89PNG no more")
    files = load_images(str(folder), "train")
    (folder / "train" / "dog" / "5.png").unlink()  # gone since
    allowed.evaluate(files)
    assert sorted(name.rpartition("train/")[2] for name in allowed.bad_images) == ["cat/3.png", "dog/5.png"]


def test_a_broken_test_image_is_left_out_of_results_and_card(folder, saved, tmp_path, capsys):
    for kind in NAMES.values():
        (folder / "test" / kind / "0.png").write_bytes(b"\xff\xd8\xff no jpeg")
    (folder / "test" / "dog" / "7.png").write_bytes((folder / "train" / "dog" / "7.png").read_bytes())
    (folder / "test" / "dog" / "letter.pdf").write_bytes(b"%PDF-1.4")
    given = [
        "--dataset_name",
        str(folder),
        "--test_split",
        "test",
        "--output_dir",
        str(tmp_path / "out"),
        "--bf16",
        "false",
    ]
    given += ["--model_name_or_path", str(saved), "--num_train_epochs", "1", "--disable_tqdm", "true"]
    for name in ("load_best_model_at_end", "horizontal_flip"):
        given += [f"--{name}", "false"]
    given += [
        "--random_resized_crop_scale",
        "1",
        "--mixup_alpha",
        "0",
        "--eval_strategy",
        "no",
        "--save_strategy",
        "no",
    ]
    assert main(["train", "--json", "configuration/fine_tune.yaml", *given]) == 0
    results = json.loads(capsys.readouterr().out)
    counts = {"examples": 14, "skipped": 2, "duplicates": 1}
    counts["images"] = images_digest(load_images(str(folder), "test"), "image")
    assert results["dataset"] == {"name": folder.name, "source": "folder", "split": "test", **counts}
    assert {"README.md", "attention.png"} <= {entry.name for entry in (tmp_path / "out").iterdir()}
    assert main(["benchmark", str(saved), "--dataset_name", str(folder), "--on_bad_image", "skip"]) == 0
    assert "left out       2 images that cannot be read\n" in capsys.readouterr().out
    assert main(["benchmark", str(saved), "--dataset_name", str(folder)]) == 1
    assert "0.png: cannot be read as an image" in capsys.readouterr().err


def predict(capsys, *arguments) -> tuple[int, list[str], str]:
    """Exit status, names of the predicted images, and stderr."""
    status = main(["predict", *map(str, arguments), "--json"])
    shown = capsys.readouterr()
    return status, [row["image"] for row in json.loads(shown.out or "[]")], shown.err


def test_predict_prints_what_can_be_read(folder, saved, capsys):
    pets, good = folder / "test", str(folder / "test" / "cat" / "1.png")
    every = [str(pets / kind / f"{number}.png") for kind in NAMES.values() for number in range(8)]
    assert predict(capsys, saved, pets) == (0, every, "")  # a folder of classes
    (pets / "dog" / "._1.png").write_bytes(b"\0\5\26\7")
    (pets / "dog" / "letter.pdf").write_bytes(b"%PDF-1.4")
    assert predict(capsys, saved, pets) == (0, every, "")
    broken = pets / "dog" / "3.png"
    broken.write_bytes(b"\xff\xd8")
    status, names, said = predict(capsys, saved, pets)
    assert (status, names) == (0, [name for name in every if name != str(broken)])
    assert f"left out: {broken}: cannot be read" in said
    assert said.count("\n") == 1
    for wrong, message in (
        ("absent.png", "absent.png: there is no such file\n"),
        ("https://example.com/cat.jpg", "https://example.com/cat.jpg: is an address; "),
        (folder / "none", "none: there is no such file\n"),
    ):
        status, names, said = predict(capsys, saved, good, wrong, good)
        assert (status, names, said.count("\n")) == (1, [good, good], 1)
        assert message in said
    for arguments, message in (
        ([broken, good, "--on_bad_image", "raise"], "3.png: cannot be read as an image"),
        ([broken], "none of the 1 images can be read"),
        (["absent.png"], "vit-cls: absent.png: there is no such file\n"),
    ):
        status, names, said = predict(capsys, saved, *arguments)
        assert (status, names) == (1, [])
        assert message in said


def test_predict_shows_labels_and_scores(folder, saved, capsys):
    pets, one = folder / "test" / "cat", folder / "test" / "dog" / "0.png"
    assert main(["predict", str(saved), str(one), str(pets), "--top_k", "1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["image"] for row in said] == [str(one), *(str(pets / f"{number}.png") for number in range(8))]
    classify = ImageClassificationPipeline(FlaxViTClsForImageClassification.from_pretrained(saved))
    wanted = classify([row["image"] for row in said], top_k=1)
    for row, (best,) in zip(said, wanted):
        (found,) = row["predictions"]
        assert found["label"] == best["label"]
        assert found["score"] == pytest.approx(best["score"], rel=1e-5)
    assert main(["predict", str(saved), str(one)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(one)
    assert lines[1].split() == [f"{wanted[0][0]['score']:.4f}", wanted[0][0]["label"]]
    assert len(lines) == 3
