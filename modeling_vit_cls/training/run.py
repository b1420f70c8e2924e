"""Running a recipe: train, benchmark, and write the model, its results, recipe and card into one folder."""

import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import yaml
from jax.sharding import Mesh

from .. import processes
from ..cards import MAX_IMAGES, write_card
from ..configuration_vit_cls import ViTClsConfig
from ..errors import ConfigError, shorten
from ..evaluation.benchmark import benchmark
from ..evaluation.metrics import default_metrics, load_metrics
from ..evaluation.results import results
from ..families.open import has_head
from ..files.folder import replace_file
from ..hub.adapted import open_with_base
from ..hub.download import checkpoint_path
from ..images.classes import class_name, match_classes, model_names, named_after
from ..images.duplicates import count_duplicates
from ..images.fingerprint import images_digest
from ..images.sampling import hold_out, sample_rows
from ..images.shown import readable_images
from ..images.sources import class_names, load_images, splits_of
from ..images.splits import split_name
from ..modeling_vit_cls import FlaxViTClsForImageClassification
from ..names import RECIPE, RESULTS
from ..nn.mesh import mesh_of, place, ways
from ..provenance import dataset_record, record
from ..results import MeasuredData, Origin, Results, Training
from .recipe import DataArguments, ModelArguments, Recipe
from .run_folder import RunFolder
from .stop import StopSignals
from .trainer import FlaxTrainer

_END = ("the end of the run", 24 * 60)  # minutes: the benchmark of a large test split takes hours on one device
_log = logging.getLogger(__name__)


def run_recipe(recipe: Recipe, go_on: str | None = None) -> Results:
    """Train and benchmark a recipe, and write everything into its `output_dir`. Returns the results.

    No other run may train into `output_dir` at the same time. `go_on` is the command that continues the run, which is
    printed when it is stopped.
    """
    with RunFolder(recipe.training.output_dir) as folder:
        return _run_in(folder, recipe, go_on)


def _run_in(run_folder: RunFolder, recipe: Recipe, go_on: str | None) -> Results:
    data, arguments, benchmarked = recipe.data, recipe.training, recipe.evaluation
    _check_splits(recipe)
    train, evaluation = load_splits(data, arguments.seed)
    _note_unused_splits(recipe)
    if len(class_names(train)) < 2:
        rule = f"has only one class, {class_names(train)[0]!r}: a classifier needs at least two"
        raise ConfigError("dataset_name", data.dataset_name, rule)
    held_out = f"{data.train_val_split * 100:g}% of {data.train_split}"
    test, test_split, used = evaluation, data.eval_split or held_out, [train]
    if benchmarked.test_split is not None:
        test, test_split = load(data, benchmarked.test_split), benchmarked.test_split
        test, used = _first(test, data.max_eval_samples, arguments.seed), [train, evaluation]
        if data.eval_split is None and arguments.eval_strategy == "no":
            rule = "but eval_strategy='no' evaluates none of them: give another, or a smaller train_val_split"
            _log.warning("%d images of %s are held out of the training, %s", len(evaluation), data.train_split, rule)
    elif arguments.load_best_model_at_end:
        rule = "choose the best step, and are also those that are measured: keep others apart for test_split"
        _log.warning("the images of %s %s", test_split, rule)
    model = build_model(recipe.model, class_names(train), arguments.seed, arguments.device_mesh)
    id2label: Any = model.config.id2label
    # an error now is better than after the training
    match_classes(class_names(test), id2label)
    metrics = [*default_metrics(len(id2label)), *benchmarked.metrics]
    load_metrics(metrics, len(id2label))
    _note_untrained_classes(train)
    duplicates = count_duplicates(test, used)
    if duplicates:
        _log.warning(
            "%d of the %d images of %s are in the training data too, byte for byte: its results are too optimistic",
            duplicates,
            len(test),
            test_split,
        )
    trainer = FlaxTrainer(model, arguments, train, evaluation)
    trainer.folder, trainer.go_on = run_folder, go_on or trainer.go_on
    trainer.train()
    with StopSignals():  # a signal waits until the trained model is saved
        trainer.save_model()
    folder = Path(arguments.output_dir)
    if not processes.is_first():
        processes.wait(*_END)
        return Results.read(folder / RESULTS)
    if processes.count() > 1:  # process 0 does the rest alone, on its own devices
        model = FlaxViTClsForImageClassification.from_pretrained(folder)
    measurements = benchmark(
        model,
        test,
        metrics=metrics,
        batch_size=arguments.per_device_eval_batch_size * ways(mesh_of(model.params)),
        on_bad_image=arguments.on_bad_image,
        disable_tqdm=arguments.disable_tqdm or None,  # None: a progress bar in a terminal only
    )
    name, revision = data.dataset_name, data.dataset_revision
    record_of_run = results(
        {**measurements, "duplicates": duplicates, "images": images_digest(test, "image")},
        model,
        model_name=str(folder),
        dataset_name=name,
        split=test_split,
        revision=revision,
        recipe=recipe.to_dict(),
        training=_training_record(recipe, len(train), len(trainer.bad_training_images)),
    )
    record_of_run.write(folder / RESULTS)
    replace_file(folder / RECIPE, yaml.safe_dump(record_of_run.recipe, sort_keys=False).encode())
    examples, names = readable_images(test, MAX_IMAGES, arguments.seed), class_names(test)
    write_card(folder, [image for image, _ in examples], labels=[names[label] for _, label in examples], model=model)
    processes.wait(*_END)
    return record_of_run


def _training_record(recipe: Recipe, examples: int, left_out: int) -> Training:
    """The record of the training: dataset, number of unreadable images, and the model that was fine-tuned."""
    data, base = recipe.data, recipe.model.model_name_or_path
    origin: Any = dataset_record(data.dataset_name, data.dataset_revision)
    return Training(
        dataset=MeasuredData(**origin, split=data.train_split, examples=examples - left_out),
        left_out=left_out,
        batch_size=recipe.training.train_batch_size,
        base_model=Origin() if base is None else Origin(**record(base, recipe.model.model_revision)),
    )


def build_model(
    arguments: ModelArguments, labels: list[str], seed: int, mesh: Mesh | None = None
) -> FlaxViTClsForImageClassification:
    """The model of a recipe for these classes: with random parameters, or from a checkpoint with a head for them.

    A checkpoint is loaded onto `mesh`; default as in `from_pretrained`.

    A checkpoint with the same class names keeps their order, and so its head stays valid. The head of a checkpoint with
    as many classes of other names is drawn anew, unless they had no names (LABEL_0).
    """
    others: list[str] = []
    if arguments.model_name_or_path is not None:
        path = checkpoint_path(arguments.model_name_or_path, revision=arguments.model_revision)
        source = open_with_base(path, overrides=arguments.overrides)
        id2label: Any = source.config.id2label
        names = model_names(id2label) if has_head(source) else []
        if sorted(map(class_name, names)) == sorted(map(class_name, labels)):
            labels = names
        elif len(names) == len(labels) and named_after(id2label, labels) is id2label:
            others = names
    fields: dict[str, Any] = {"id2label": dict(enumerate(labels)), **arguments.overrides}
    if arguments.model_name_or_path is None:
        variant = arguments.variant
        config = ViTClsConfig(**fields) if variant is None else ViTClsConfig.from_variant(variant, **fields)
        return FlaxViTClsForImageClassification(config, seed=seed)
    model = FlaxViTClsForImageClassification.from_pretrained(
        arguments.model_name_or_path,
        revision=arguments.model_revision,
        ignore_mismatched_sizes=True,
        seed=seed,
        mesh=mesh,
        **{"label2id": {label: i for i, label in enumerate(labels)}, **fields},
    )
    if others:
        problem = "has other classes, %s: the classifier for %s is newly drawn, to be trained"
        _log.warning(f"%s {problem}", arguments.model_name_or_path, shorten(others), shorten(labels))
        body = {"vit_cls": model.params["vit_cls"]}
        params, placement = model.init_weights(jax.random.PRNGKey(seed), model.input_shape, body), mesh_of(body)
        model.params = params if placement is None else place(params, placement)
    return model


def load_splits(data: DataArguments, seed: int = 0) -> tuple[Any, Any]:
    """The datasets for training and for evaluation during training, without a common example.

    Without an `eval_split`, a share of each class of the training split is held out. The seed draws this share, and the
    samples of `max_train_samples` and `max_eval_samples`.
    """
    train = load(data, data.train_split)
    if data.eval_split is not None:
        evaluation = load(data, data.eval_split)
    else:
        kept, held_out = hold_out(train["label"], data.train_val_split, seed)
        if not len(held_out):
            rule = f"holds out none of {len(train)} examples, because no class has two: give an eval_split"
            raise ConfigError("train_val_split", data.train_val_split, rule)
        train, evaluation = train.select(kept), train.select(held_out)
    return _first(train, data.max_train_samples, seed), _first(evaluation, data.max_eval_samples, seed)


def load(data: DataArguments, split: str) -> Any:
    """One split of a recipe's dataset."""
    return load_images(
        data.dataset_name,
        split,
        dataset_config_name=data.dataset_config_name,
        revision=data.dataset_revision,
        data_dir=data.data_dir,
        image_column_name=data.image_column_name,
        label_column_name=data.label_column_name,
    )


def _first(dataset: Any, count: int | None, seed: int = 0) -> Any:
    """At most `count` examples, each class in its share, drawn with the seed; all examples for None."""
    if count is None or count >= len(dataset):
        return dataset
    return dataset.select(sample_rows(dataset["label"], count, seed))


def _note_unused_splits(recipe: Recipe) -> None:
    """Log the splits of the dataset for evaluation that the recipe does not name, with the field that uses them."""
    data = recipe.data
    fields = {
        "validation": ("eval_split", "chooses the best step"),
        "test": ("test_split", "measures the trained model"),
    }
    named = (data.train_split, data.eval_split, recipe.evaluation.test_split)
    named = [split_name(split) or split for split in named if split is not None]
    for split in splits_of(data.dataset_name, data.dataset_config_name, data.dataset_revision, data.data_dir):
        name = split_name(split)
        if name in fields and name not in named:
            field, use = fields[name]
            _log.warning("the split %s of %s is not used: --%s %s %s", split, data.dataset_name, field, split, use)


def _note_untrained_classes(train: Any) -> None:
    """Log the classes that have no image in the training data."""
    names = class_names(train)
    counts = np.bincount(train["label"], minlength=len(names))
    untrained = [name for name, count in zip(names, counts, strict=True) if not count]
    if untrained:
        rule = "classes without an image in the training data, which the model cannot learn"
        _log.warning("%s (%d of %d): %s", rule, len(untrained), len(names), shorten(untrained, 200))


def _check_splits(recipe: Recipe) -> None:
    """Raise ConfigError if the model would be evaluated on its training split, or chosen by its test split."""
    data, test = recipe.data, recipe.evaluation.test_split
    names = {
        field: None if split is None else split_name(split) or split
        for field, split in (("train_split", data.train_split), ("eval_split", data.eval_split), ("test_split", test))
    }
    for field in ("eval_split", "test_split"):
        if names[field] == names["train_split"]:
            rule = (
                "is the training split: give another split, or leave it out to hold out a share of the training split"
            )
            raise ConfigError(field, data.eval_split if field == "eval_split" else test, rule)
    if test is not None and names["test_split"] == names["eval_split"] and recipe.training.load_best_model_at_end:
        rule = (
            "would choose the best model by the test images: give another split, or leave it out to hold out a share "
        )
        raise ConfigError("eval_split", data.eval_split, rule + "of the training split")
