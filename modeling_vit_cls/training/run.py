"""From a recipe to a folder: train, benchmark, and write the model, its results, its recipe and its card."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..cards import write_card
from ..cards.examples import example_images
from ..checkpoints.folder import replace_file
from ..configuration_vit_cls import ViTClsConfig
from ..data.sources import class_names, load_images
from ..errors import ConfigError
from ..evaluation.benchmark import DEFAULT_METRICS, benchmark
from ..evaluation.results import Results, results, write_results
from ..modeling_vit_cls import FlaxViTClsForImageClassification
from ..provenance import dataset_record, record
from .recipe import DataArguments, ModelArguments, Recipe
from .trainer import FlaxTrainer


def run_recipe(recipe: Recipe) -> Results:
    """Train and benchmark as a recipe says; `output_dir` then holds all of it, and the results are returned too."""
    data, arguments, measured = recipe.data, recipe.training, recipe.evaluation
    train, evaluation = load_splits(data)
    test, test_split = evaluation, data.eval_split or f"{data.train_val_split:.0%} of {data.train_split}"
    if measured.test_split is not None:
        test, test_split = _first(load(data, measured.test_split), data.max_eval_samples), measured.test_split
    model = build_model(recipe.model, class_names(train), arguments.seed)
    trainer = FlaxTrainer(model, arguments, train, evaluation)
    trainer.train()
    trainer.save_model()
    found = benchmark(
        model,
        test,
        metrics=[*DEFAULT_METRICS, *measured.metrics],
        batch_size=arguments.per_device_eval_batch_size,
        on_bad_image=arguments.on_bad_image,
        disable_tqdm=arguments.disable_tqdm or None,  # None: not where there is no terminal
    )
    folder = Path(arguments.output_dir)
    name, revision = data.dataset_name, data.dataset_revision
    whole = results(
        found,
        model,
        model_name=str(folder),
        dataset_name=name,
        split=test_split,
        revision=revision,
        recipe=recipe.to_dict(),
        training=_training_record(recipe, len(train), len(trainer.bad_images)),
    )
    write_results(folder / "results.json", whole)
    replace_file(folder / "recipe.yaml", yaml.safe_dump(whole["recipe"], sort_keys=False).encode())
    images, classes = example_images(test, seed=arguments.seed)
    write_card(folder, images, labels=classes)
    return whole


def _training_record(recipe: Recipe, examples: int, left_out: int) -> dict[str, Any]:
    """What the card says of the training: of what, from what, and without which images."""
    data, base = recipe.data, recipe.model.model_name_or_path
    dataset = {**dataset_record(data.dataset_name, data.dataset_revision), "split": data.train_split}
    found: dict[str, Any] = {"dataset": {**dataset, "examples": examples}, "left_out": left_out}
    return found | ({} if base is None else {"base_model": record(base, recipe.model.model_revision)})


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
