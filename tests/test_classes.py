"""Classes by name: wherever a model meets a dataset, an order is mapped and other names are refused."""

from collections import UserList
from functools import partial
from itertools import permutations

import datasets
import numpy as np
import pytest
from conftest import assert_same, tiny_config, tiny_model
from photos import write_images

from modeling_vit_cls import ConfigError, FlaxViTClsForImageClassification
from modeling_vit_cls.evaluation.benchmark import benchmark
from modeling_vit_cls.evaluation.evaluator import ViTClsEvaluator
from modeling_vit_cls.images.classes import class_names, in_order, match_classes
from modeling_vit_cls.images.sources import labelled, load_images
from modeling_vit_cls.training import FlaxTrainer, TrainingArguments
from modeling_vit_cls.training.recipe import read_recipe
from modeling_vit_cls.training.run import build_model

NAMES = ["cat", "dog", "emu"]
DIGITS = load_images("digits", "test").select(range(24))


def classifier(names: list[str]) -> FlaxViTClsForImageClassification:
    return tiny_model(num_labels=len(names), id2label=dict(enumerate(names)), num_channels=1)


def pictures(names: list[str], labels=None, feature=None) -> datasets.Dataset:
    """Digits under other labels: row i is of the class names[i % K]."""
    labels = [row % len(names) for row in range(len(DIGITS))] if labels is None else labels
    features = datasets.Features({"image": datasets.Image(), "label": feature or datasets.ClassLabel(names=names)})
    return datasets.Dataset.from_dict(
        {"image": list(DIGITS["image"])[: len(labels)], "label": labels}, features=features
    )


def trainer(folder, model, train=None, evaluation=None) -> FlaxTrainer:
    arguments = TrainingArguments(str(folder), max_steps=1, save_strategy="no", disable_tqdm=True)
    return FlaxTrainer(model, arguments, train, evaluation)


def test_an_order_is_mapped_in_training_evaluation_benchmark_and_evaluator(tmp_path, tally):
    model = classifier(NAMES)
    run = trainer(tmp_path, model)
    accuracy = benchmark(model, pictures(NAMES), disable_tqdm=True)["metrics"]["accuracy"]
    for order in permutations(NAMES):
        other = pictures(list(order), [order.index(NAMES[row % 3]) for row in range(24)])
        trained = trainer(tmp_path, model, other).train_dataset
        assert [NAMES[label] for label in trained["label"]] == [NAMES[row % 3] for row in range(24)]
        assert run.evaluate(other.select(range(23, -1, -1)))["eval_accuracy"] == pytest.approx(accuracy)
        assert run.predict(other).label_ids.tolist() == [row % 3 for row in range(24)]
        assert benchmark(model, other, disable_tqdm=True)["metrics"]["accuracy"] == pytest.approx(accuracy)
        for mapping in (None, model.config.label2id):
            evaluated = ViTClsEvaluator().compute(model, other, metric="accuracy", label_mapping=mapping)
            assert evaluated["accuracy"] == pytest.approx(accuracy)
        tally.note("mapped by name")


def test_numbers_are_in_order_whatever_order_they_come_in():
    names = ["10", "9", "01", "1", "-1"]
    assert {tuple(in_order(order)) for order in permutations(names)} == {("-1", "01", "1", "9", "10")}


@pytest.mark.parametrize(
    "names", [["cat", "dog", "fox"], ["Cat", "dog", "emu"], ["cat", "dog"], [*NAMES, "fox"], ["0", "1", "2"]]
)
def test_other_names_are_refused_before_anything_is_computed(tmp_path, names, tally):
    model, data = classifier(NAMES), pictures(names)
    run = trainer(tmp_path, model)
    for meet in (
        lambda: trainer(tmp_path, model, data),
        lambda: trainer(tmp_path, model, pictures(NAMES), data),
        lambda: run.evaluate(data),
        lambda: run.predict(data),
        lambda: benchmark(model, data, disable_tqdm=True),
    ):
        with pytest.raises(ConfigError) as refused:
            meet()
        assert all(repr(name) in str(refused.value) for name in [*names, *NAMES])
        tally.note("refused with both names")


def test_which_number_of_the_model_a_class_has():
    assert match_classes(["a", "b"], {0: "b", 1: "a"}).tolist() == [1, 0]
    assert match_classes(["a", "b"], {0: "LABEL_0", 1: "LABEL_1"}).tolist() == [0, 1]
    assert match_classes(["a", "a"], {0: "a", 1: "a"}).tolist() == [0, 1]  # ImageNet's cranes
    assert match_classes(["\u00e9", "b"], {0: "b", 1: "e\u0301"}).tolist() == [1, 0]  # one letter, written twice
    with pytest.raises(ConfigError, match=r"'a', 'b'.*class names differ from the model's.*'b', 'c'"):
        match_classes(["a", "b"], {0: "b", 1: "c"})
    with pytest.raises(ConfigError, match=r"several classes called \['a'\], so names cannot be matched"):
        match_classes(["a", "b", "a"], {0: "a", 1: "a", 2: "b"})
    with pytest.raises(ConfigError, match="the dataset has 10 classes, the model 2: .*'cat', 'dog'"):
        benchmark(classifier(["cat", "dog"]), DIGITS, disable_tqdm=True)


def test_a_model_without_names_learns_those_of_its_training_data(tmp_path, caplog, tally):
    caplog.set_level("INFO")
    config = tiny_config(num_labels=3, num_channels=1)
    turned = pictures(NAMES[::-1])
    text = datasets.Value("string")
    for train, others in (
        (pictures(NAMES), pictures(["cat", "dog", "wolf"])),
        (pictures(NAMES, NAMES, text), pictures(NAMES, ["dog", "wolf"], text)),
    ):
        model = FlaxViTClsForImageClassification(config)
        run = trainer(tmp_path, model, train, turned)
        assert [NAMES[label] for label in run.eval_dataset["label"]] == [NAMES[::-1][row % 3] for row in range(24)]
        assert dict(model.config.id2label) == dict(enumerate(NAMES))
        assert f"the model's classes had no names: they are those of train_dataset now: {NAMES}" in caplog.text
        for meet in (run.evaluate, run.predict, partial(trainer, tmp_path, model)):
            with pytest.raises(ConfigError, match="classes"):
                meet(others)
            tally.note("refused with both names")
        model.save_pretrained(tmp_path / "saved")
        again = FlaxViTClsForImageClassification.from_pretrained(tmp_path / "saved").config
        assert (dict(again.id2label), again.label2id["emu"]) == (dict(enumerate(NAMES)), 2)
    assert config.id2label[0] == "LABEL_0"  # of other models too
    unnamed = FlaxViTClsForImageClassification(config)
    run = trainer(tmp_path, unnamed, None, pictures(NAMES))
    assert list(run._fitting(turned, "eval_dataset")["label"])[:3] == [2, 1, 0]
    assert unnamed.config.id2label[0] == "LABEL_0"  # nothing was learned
    trainer(tmp_path, unnamed, pictures(["1", "2", "3"]))
    assert list(unnamed.config.id2label.values()) == ["1", "2", "3"]


def test_names_that_repeat_are_met_by_number(tmp_path):
    model = tiny_model(num_labels=3, id2label={0: "crane", 1: "crane", 2: "emu"}, num_channels=1)
    data = pictures(NAMES, [2, 1, 0, 1], datasets.Value("int64"))
    assert np.sum(benchmark(model, data, disable_tqdm=True)["confusion_matrix"], axis=1).tolist() == [1, 2, 1]
    run = trainer(tmp_path, model, data.select([1, 0]), data)
    assert list(run.train_dataset["label"]) == [1, 2]
    assert run.predict(data).label_ids.tolist() == [2, 1, 0, 1]
    with pytest.raises(ConfigError, match=r"several classes called \['crane'\].*a column of the model's numbers"):
        benchmark(model, pictures(["crane", "crane bird", "emu"]), disable_tqdm=True)
    with pytest.raises(ConfigError, match="label='crane': is the name of several classes"):
        benchmark(model, pictures(NAMES, ["crane", "emu"], datasets.Value("string")), disable_tqdm=True)
    emus = benchmark(model, pictures(NAMES, ["emu"], datasets.Value("string")), disable_tqdm=True)
    assert np.sum(emus["confusion_matrix"], axis=1).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (NAMES, [2, 0, 1], [2, 0, 1]),
        (NAMES, [2, 0], [2, 0]),  # of three classes, two are there
        (None, [2, 0], [2, 0]),
        (["3", "9", "10"], [10, 3, 9], [2, 0, 1]),  # the model's names are numbers
        (["3", "9", "10"], [10, 3], [2, 0]),
        (NAMES, [1, 2, 3], None),
        (None, [1, 2, 3], None),
        (["1", "2", "3"], [0, 1, 2], None),
    ],
)
def test_numbers_are_the_same_classes_in_a_column_and_loaded(tmp_path, names, labels, expected, tally):
    model = tiny_model(num_labels=3, num_channels=1) if names is None else classifier(names)
    raw = pictures(NAMES, labels, datasets.Value("int64"))
    raw.save_to_disk(str(tmp_path / "saved"))
    load = partial(load_images, str(tmp_path / "saved"), "train", id2label=model.config.id2label)
    if expected is None:
        run = trainer(tmp_path, model)
        for meet in (lambda: benchmark(model, raw), lambda: run.evaluate(raw), load):
            with pytest.raises(ConfigError, match="out of range|must be one of"):
                meet()
            tally.note("refused")
        return
    for data in (raw, load()):
        matrix = np.asarray(benchmark(model, data, disable_tqdm=True)["confusion_matrix"])
        assert matrix.shape == (3, 3)
        assert matrix.sum(axis=1).tolist() == np.bincount(expected, minlength=3).tolist()
        assert trainer(tmp_path, model).predict(data).label_ids.tolist() == expected
        tally.note("by number")


@pytest.mark.parametrize(
    ("names", "kind", "labels", "expected"),
    [
        (["-2", "0", "1"], "int64", [0, 1, -2], [1, 2, 0]),
        (["False", "Maybe", "True"], "bool", [True, False], [2, 0]),
        (["True", "False"], "bool", [True, False], [0, 1]),
        (["no", "yes"], "bool", [True, False], [1, 0]),
        (["none", "0", "1"], "int64", [0, 1], [1, 2]),
        (["3", "3", "7"], "int64", [1, 2, 0], [1, 2, 0]),  # a name of two classes names none
    ],
)
def test_numbers_that_are_names_of_the_model_are_met_by_name(names, kind, labels, expected):
    """A model's own training data have its classes again."""
    data = labelled(pictures(NAMES, labels, datasets.Value(kind)), id2label=dict(enumerate(names)))
    assert list(data["label"]) == expected


def test_folders_called_by_a_name_of_the_model_are_met_by_name(tmp_path):
    root = write_images(tmp_path, *(f"test/{name}/1.png" for name in ("0", "1")))
    for names in (["-2", "0", "1"], ["none", "0", "1"]):
        assert class_names(load_images(str(root), "test", id2label=dict(enumerate(names)))) == ["0", "1"]


def test_other_labels_copy_no_image(tmp_path, monkeypatch):
    pictures(NAMES[::-1]).save_to_disk(str(tmp_path / "named"))
    pictures(NAMES, [NAMES[row % 3] for row in range(24)], datasets.Value("string")).save_to_disk(
        str(tmp_path / "text")
    )
    monkeypatch.setattr(datasets.Dataset, "flatten_indices", None)  # what copies a selection
    before = sorted(tmp_path.rglob("*"))
    for name in ("named", "text"):
        data = datasets.load_from_disk(str(tmp_path / name)).select([22, 0, 5, 5])
        fitted = trainer(tmp_path, classifier(NAMES), data).train_dataset
        expected = [NAMES.index(NAMES[::-1][row % 3] if name == "named" else NAMES[row % 3]) for row in (22, 0, 5, 5)]
        assert list(fitted["label"]) == expected
        assert [row["image"]["bytes"] for row in fitted] == [
            row["image"]["bytes"] for row in data.cast_column("image", datasets.Image(decode=False))
        ]
        assert fitted.cache_files == data.cache_files
    assert sorted(tmp_path.rglob("*")) == before


def test_columns_without_names_are_the_model_s_by_number_and_by_text(tmp_path):
    model = classifier(NAMES)
    for feature, labels in (
        (datasets.Value("int64"), [2, 0, 0]),
        (datasets.Value("uint8"), [2, 0, 0]),
        (datasets.Value("string"), ["emu", "cat", "cat"]),
    ):
        data = pictures(NAMES, labels, feature)
        assert list(trainer(tmp_path, model, data).train_dataset["label"]) == [2, 0, 0]
        assert np.sum(benchmark(model, data, disable_tqdm=True)["confusion_matrix"], axis=1).tolist() == [2, 0, 1]
    unnamed = tiny_model(num_labels=3, num_channels=1)
    assert list(trainer(tmp_path, unnamed, pictures(["x", "y", "z"])).train_dataset["label"])[:3] == [0, 1, 2]
    with pytest.raises(ConfigError, match=r"classes=\['cow'\]: the dataset has 1 classes, the model 3"):
        trainer(tmp_path, model, pictures(NAMES, ["cow"], datasets.Value("string")))


@pytest.mark.parametrize(
    ("labels", "feature", "message"),
    [
        ([0, -1, -1], None, "2 of 3 examples have no class, the first is row 1"),
        ([0, None], None, "1 of 2 examples have no class, the first is row 1"),
        ([0, 3], datasets.Value("int64"), "label=3: row 1: out of range, the model has 3 classes"),
        ([0, -1], datasets.Value("int64"), "1 of 2 examples have no class"),
    ],
)
def test_labels_out_of_range_are_an_error_before_training(tmp_path, labels, feature, message, tally):
    for meet in (
        lambda data: trainer(tmp_path, classifier(NAMES), data),
        lambda data: benchmark(classifier(NAMES), data, disable_tqdm=True),
    ):
        with pytest.raises(ConfigError, match=message):
            meet(pictures(NAMES, labels, feature))
        tally.note("refused by its row")


def test_numbers_beyond_the_classes_of_a_file_are_refused():
    beyond = pictures(NAMES, [0, 7], datasets.Value("int64"))
    table, features = (
        beyond.data.table,
        datasets.Features({**beyond.features, "label": datasets.ClassLabel(names=NAMES)}),
    )
    unchecked = datasets.Dataset(table.replace_schema_metadata({}), info=datasets.DatasetInfo(features=features))
    with pytest.raises(ConfigError, match="1 labels are out of range, the first is 7 in row 1: there are 3 classes"):
        labelled(unchecked)


ROWS = pictures(NAMES)
KINDS = {
    "streaming": (ROWS.to_iterable_dataset(), "without streaming=True"),
    "splits": (
        datasets.DatasetDict(train=ROWS, test=ROWS),
        r"pass one split, as dataset\['train'\]; there are train, test",
    ),
    "streaming splits": (datasets.IterableDatasetDict(train=ROWS.to_iterable_dataset()), "without streaming=True"),
    "a dict of sets": ({"easy": ROWS, "hard": ROWS}, r"pass one split, as dataset\['easy'\]; there are easy, hard"),
    "columns": ({"image": [None], "label": [0]}, r"datasets.Dataset.from_dict\(columns, features=...\)"),
    "a list": ([{"image": None, "label": 0}], "datasets.Dataset.from_list"),
    "a tuple": ((ROWS, ROWS), "datasets.Dataset.from_list"),
    "a name": ("digits", r"load it: .*load_images\('digits', 'train'\)"),
    "torch's": (UserList([(None, 0)]), "from_generator"),
    "a transform": (ROWS.with_transform(lambda batch: batch), r"without with_transform and set_transform"),
    "an array": (np.zeros((2, 8, 8, 3)), "from_generator"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_datasets_that_are_not_taken_are_named(tmp_path, kind, tally):
    data, remedy = KINDS[kind]
    model = classifier(NAMES)
    run = trainer(tmp_path, model)
    for field, meet in (
        ("train_dataset", lambda: trainer(tmp_path, model, data)),
        ("eval_dataset", lambda: trainer(tmp_path, model, None, data)),
        ("eval_dataset", lambda: run.evaluate(data)),
        ("test_dataset", lambda: run.predict(data)),
        ("dataset", lambda: benchmark(model, data, disable_tqdm=True)),
    ):
        with pytest.raises(ConfigError, match=f"must be a map-style datasets.Dataset.*{remedy}") as refused:
            meet()
        assert refused.value.field == field
        tally.note("refused by its kind, with the remedy")


def test_the_evaluator_tells_what_labels_it_takes():
    model, compute = classifier(NAMES), ViTClsEvaluator().compute
    texts, numbers = (pictures(NAMES, feature=datasets.Value(kind)) for kind in ("string", "int64"))
    with pytest.raises(ConfigError, match=r"label_column='label': .* not texts: cast them with data\.cast_column"):
        compute(model, texts, metric="accuracy")
    for mapping in (None, model.config.id2label):
        with pytest.raises(ConfigError, match=r"label_mapping=.*as model\.config\.label2id does"):
            compute(model, numbers, metric="accuracy", label_mapping=mapping)
    assert compute(model, numbers, metric="accuracy", label_mapping=model.config.label2id)["accuracy"] >= 0
    with pytest.raises(ConfigError, match="data=.*has no examples"):
        compute(model, numbers.select([]), metric="accuracy")


def test_images_without_labels_are_predicted_by_a_pipeline(tmp_path):
    run = trainer(tmp_path, classifier(NAMES))
    for unlabelled in (ROWS.remove_columns("label"), pictures(NAMES, [-1] * 3)):
        with pytest.raises(
            ConfigError, match="label_column_name=.*; ImageClassificationPipeline predicts images without"
        ):
            run.predict(unlabelled)


def test_no_examples_are_an_error_before_training(tmp_path):
    for field, given in (("train_dataset", [ROWS.select([])]), ("eval_dataset", [ROWS, ROWS.select([])])):
        with pytest.raises(ConfigError, match=f"{field}=.*has no examples"):
            trainer(tmp_path, classifier(NAMES), *given)


def test_formats_are_no_transforms(tmp_path):
    for form in ("numpy", "jax", "arrow"):
        assert list(trainer(tmp_path, classifier(NAMES), ROWS.with_format(form)).train_dataset["label"])[:3] == [
            0,
            1,
            2,
        ]


def test_a_checkpoint_of_the_same_classes_keeps_its_head(tmp_path, caplog):
    model = classifier(["emu", "dog", "cat"])
    model.save_pretrained(tmp_path)
    recipe = read_recipe("configuration/fine_tune.yaml", ["--model_name_or_path", str(tmp_path)])
    again = build_model(recipe.model, NAMES, seed=1)
    assert dict(again.config.id2label) == {0: "emu", 1: "dog", 2: "cat"}
    assert np.array_equal(again.params["classifier"]["kernel"], model.params["classifier"]["kernel"])
    assert "newly drawn" not in caplog.text
    new = build_model(recipe.model, ["cat", "cow", "dog"], seed=1)
    assert dict(new.config.id2label) == {0: "cat", 1: "cow", 2: "dog"}
    assert not np.allclose(new.params["classifier"]["kernel"], model.params["classifier"]["kernel"], atol=1e-2)
    assert_same(new.params["vit_cls"], model.params["vit_cls"])
    assert "['emu', 'dog', 'cat']: the classifier for ['cat', 'cow', 'dog'] is newly drawn" in caplog.text


def test_a_checkpoint_whose_classes_were_never_named_keeps_its_head(tmp_path):
    model = classifier(["LABEL_0", "LABEL_1", "LABEL_2"])
    model.save_pretrained(tmp_path)
    recipe = read_recipe("configuration/fine_tune.yaml", ["--model_name_or_path", str(tmp_path)])
    again = build_model(recipe.model, ["cat", "cow", "dog"], seed=1)
    assert dict(again.config.id2label) == {0: "cat", 1: "cow", 2: "dog"}
    assert_same(again.params, model.params)
    assert tiny_config(num_labels=3).id2label[0] == "LABEL_0"
