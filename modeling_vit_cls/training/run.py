"""From a recipe to a folder: train, benchmark, and write the model, its results, its recipe and its card."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..cards import write_card
from ..checkpoints.folder import replace_file
from ..configuration_vit_cls import ViTClsConfig
from ..data.sources import class_names, load_images, open_image
from ..errors import ConfigError
from ..evaluation.benchmark import DEFAULT_METRICS, benchmark
from ..evaluation.results import Results, results, write_results
from ..modeling_vit_cls import FlaxViTClsForImageClassification
from ..names import RECIPE, RESULTS
from .recipe import DataArguments, ModelArguments, Recipe
from .run_folder import RunFolder
from .trainer import FlaxTrainer

_DRAWN = 8  # images of the test split whose attention the card shows


def run_recipe(recipe: Recipe, go_on: str | None = None) -> Results:
    """Train and benchmark as a recipe says; `output_dir` then holds all of it, and the results are returned too.

    No other run may train into `output_dir` meanwhile. `go_on` is what a run that is stopped says to do to go on.
    """
    with RunFolder(recipe.training.output_dir) as folder:
        return _run_in(folder, recipe, go_on)


def _run_in(run_folder: RunFolder, recipe: Recipe, go_on: str | None) -> Results:
    data, arguments, measured = recipe.data, recipe.training, recipe.evaluation
    train, evaluation = load_splits(data)
    test, test_split = evaluation, data.eval_split or f"{data.train_val_split:.0%} of {data.train_split}"
    if measured.test_split is not None:
        test, test_split = _first(load(data, measured.test_split), data.max_eval_samples), measured.test_split
    model = build_model(recipe.model, class_names(train), arguments.seed)
    trainer = FlaxTrainer(model, arguments, train, evaluation)
    trainer.folder, trainer.go_on = run_folder, go_on or trainer.go_on
    trainer.train()
    trainer.save_model()
    found = benchmark(
        model,
        test,
        metrics=[*DEFAULT_METRICS, *measured.metrics],
        batch_size=arguments.per_device_eval_batch_size,
        on_bad_image=arguments.on_bad_image,
        disable_tqdm=arguments.disable_tqdm,
    )
    folder = Path(arguments.output_dir)
    name, revision = data.dataset_name, data.dataset_revision
    whole = results(
        found,
        model,
        model_name=folder.name,
        dataset_name=name,
        split=test_split,
        revision=revision,
        recipe=recipe.to_dict(),
    )
    write_results(folder / RESULTS, whole)
    replace_file(folder / RECIPE, yaml.safe_dump(recipe.to_dict(), sort_keys=False).encode())
    readable = (row["image"] for row in test if str(row["image"]["path"]) not in trainer.bad_images)
    write_card(folder, [open_image(image) for image in islice(readable, _DRAWN)])
    return whole


def build_model(arguments: ModelArguments, labels: list[str], seed: int) -> FlaxViTClsForImageClassification:
    """The model of a recipe for these classes, from random parameters or from a checkpoint with a head for them."""
    fields: dict[str, Any] = {"id2label": dict(enumerate(labels)), **arguments.overrides}
    if arguments.model_name_or_path is None:
        named = arguments.variant
        config = ViTClsConfig(**fields) if named is None else ViTClsConfig.from_variant(named, **fields)
        return FlaxViTClsForImageClassification(config, seed=seed)
    return FlaxViTClsForImageClassification.from_pretrained(
        arguments.model_name_or_path,
        revision=arguments.model_revision,
        ignore_mismatched_sizes=True,
        seed=seed,
        **{"label2id": {label: i for i, label in enumerate(labels)}, **fields},
    )


def load_splits(data: DataArguments) -> tuple[Any, Any]:
    """What to train on and what to evaluate on while training; the two have no example in common.

    Without an `eval_split` it is a share of the training split, the same one whatever the seed.
    """
    train = load(data, data.train_split)
    if data.eval_split is not None:
        return _first(train, data.max_train_samples), _first(load(data, data.eval_split), data.max_eval_samples)
    order, held_out = np.random.default_rng(0).permutation(len(train)), round(len(train) * data.train_val_split)
    if not 0 < held_out < len(train):
        rule = f"leaves nothing to train on or nothing to evaluate on, of {len(train)} examples"
        raise ConfigError("train_val_split", data.train_val_split, rule)
    evaluation, train = train.select(np.sort(order[:held_out])), train.select(np.sort(order[held_out:]))
    return _first(train, data.max_train_samples), _first(evaluation, data.max_eval_samples)


def load(data: DataArguments, split: str) -> Any:
    """One split of a recipe's dataset."""
    return load_images(
        data.dataset_name,
        split,
        dataset_config_name=data.dataset_config_name,
        revision=data.dataset_revision,
        image_column_name=data.image_column_name,
        label_column_name=data.label_column_name,
    )


def _first(dataset: Any, count: int | None) -> Any:
    return dataset if count is None else dataset.select(range(min(count, len(dataset))))
