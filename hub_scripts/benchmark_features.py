"""`vit-cls benchmark MODEL --method knn|retrieval|probe`: measure the features of a backbone without training it."""

import argparse
import logging
from pathlib import Path
from typing import Any

from modeling_vit_cls import FlaxViTClsModel
from modeling_vit_cls.errors import ConfigError, one_line
from modeling_vit_cls.files.folder import check_writable
from modeling_vit_cls.names import is_checkpoint_file
from modeling_vit_cls.provenance import dataset_record, record
from modeling_vit_cls.results import FeatureEvaluation, MeasuredData, Origin, Results, Training

from .dataset import load_classes
from .messages import no_bars_in_files

_log = logging.getLogger("modeling_vit_cls.evaluation")


def run(arguments: argparse.Namespace) -> None:
    """Extract the features of both splits, measure every readout, print the table and write the results."""
    from modeling_vit_cls.evaluation.features import extract
    from modeling_vit_cls.evaluation.linear_head import classifier_of, save_linear_head
    from modeling_vit_cls.evaluation.methods import evaluate_features
    from modeling_vit_cls.evaluation.results import known_of_training, results
    from modeling_vit_cls.images.duplicates import count_duplicates

    no_bars_in_files()
    _check(arguments)
    train_split = arguments.train_split or "train"
    backbone = FlaxViTClsModel.from_pretrained(arguments.model, arguments.dtype, revision=arguments.revision)
    options = {"batch_size": arguments.batch_size, "on_bad_image": arguments.on_bad_image, "disable_tqdm": None}
    train = _load(arguments, train_split, "train_split")
    test = None if arguments.split == train_split else _load(arguments, arguments.split, "split")
    if test is None and arguments.method != "retrieval":
        rule = f"is the training split too, and the method {arguments.method!r} would know its images"
        raise ConfigError("split", arguments.split, f"{rule}: give another split")
    duplicates = 0 if test is None else count_duplicates(test, [train])
    if test is not None and duplicates:
        rule = "are in the training split too, byte for byte: the results are too optimistic"
        _log.warning("%d of the %d images of %s %s", duplicates, len(test), arguments.split, rule)
    train_features = extract(backbone, train, **options)
    test_features = None if test is None else extract(backbone, test, **options)
    measured = evaluate_features(arguments.method, train_features, test_features, arguments.metrics, disable_tqdm=None)
    data = MeasuredData(
        **dataset_record(arguments.dataset_name, arguments.dataset_revision),  # pyright: ignore[reportArgumentType]
        split=train_split,
        examples=len(train_features.labels),
        skipped=train_features.skipped or None,
    )
    probe = measured.probe
    features = FeatureEvaluation(
        method=arguments.method,
        train=data,
        c=None if probe is None else probe.c,
        held_out_accuracy=None if probe is None else probe.held_out_accuracy,
        readouts=measured.by_readout,
    )
    common: dict[str, Any] = {
        "dataset_name": arguments.dataset_name,
        "split": arguments.split,
        "revision": arguments.dataset_revision,
        "features": features,
    }
    found = {**measured.found, "duplicates": duplicates}
    measured_model = {"model_name": arguments.model, "model_revision": arguments.revision}
    written = results(found, backbone, **measured_model, **common, **known_of_training(Path(arguments.model)))
    # Printed first, so that the results are not lost if a file cannot be written.
    print(written.to_json() if arguments.json else _table(written))
    if arguments.output:
        written.write(arguments.output)
    if probe is not None and arguments.output_dir:
        base = Origin(**record(arguments.model, arguments.revision))
        training = Training(dataset=data, left_out=train_features.skipped, base_model=base)
        model = classifier_of(backbone, measured.readout, probe, train_features.names)
        written = results(found, model, model_name=arguments.output_dir, **common, training=training)
        save_linear_head(arguments.output_dir, model, written, test)


def _check(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for an `--output_dir` that cannot be used, before the long work."""
    if arguments.output_dir is None:
        return
    if arguments.method != "probe":
        rule = f"is where a probe is saved; the method {arguments.method!r} has none: use --output for its results"
        raise ConfigError("output_dir", arguments.output_dir, rule)
    folder = Path(arguments.output_dir)
    if folder.is_dir() and any(is_checkpoint_file(file.name) for file in folder.iterdir()):
        raise ConfigError("output_dir", arguments.output_dir, "holds a model already: give another folder")
    if folder.exists() and not folder.is_dir():
        raise ConfigError("output_dir", arguments.output_dir, "is a file: give a folder")
    check_writable("output_dir", folder)


def _load(arguments: argparse.Namespace, split: str, field: str) -> Any:
    """One split of the dataset; an error about the split names the option `field`."""
    try:
        return load_classes(arguments, split)
    except ConfigError as error:
        raise ConfigError(field, error.value, error.rule) if error.field == "split" else error from None


def _table(record: Results) -> str:
    """The conditions, and a table with a row for each metric and a column for each readout."""
    from modeling_vit_cls.evaluation.probe import CS

    model, dataset, features, speed = record.model, record.dataset, record.features, record.throughput
    readouts = features.readouts or {}
    among = f"{features.train.examples:,} images of split {features.train.split}"
    rows = [
        ("model", f"{one_line(model.name)} ({model.class_name}, {model.parameters:,} parameters)"),
        ("dataset", f"{one_line(dataset.name)}, split {dataset.split}, {dataset.examples:,} examples"),
        ("method", f"{features.method}, with {among}"),
        *([("left out", f"{dataset.skipped:,} images that cannot be read")] if dataset.skipped else []),
        ("images/second", f"{speed.images_per_second:.1f} (batch size {speed.batch_size}, {speed.dtype})"),
    ]
    if features.method == "probe":
        end = {min(CS): ", the smallest tried", max(CS): ", the largest tried"}.get(features.c or 0, "")
        chosen = f"{model.readout}, with C = {features.c:.3g}{end}, chosen on held-out training images"
        rows.append(("best readout", chosen))
    names = list(next(iter(readouts.values())))
    width = max(map(len, [*names, *(name for name, _ in rows)])) + 2
    lines = [f"{name:<{width}}{text}" for name, text in rows]
    lines += ["", f"{'readout':<{width}}" + "".join(f"{readout:>10}" for readout in readouts)]
    lines += [
        f"{one_line(name):<{width}}" + "".join(f"{row[name]:>10.4f}" for row in readouts.values()) for name in names
    ]
    return "\n".join(lines)
