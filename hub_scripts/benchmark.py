"""`vit-cls benchmark MODEL --dataset_name NAME`: measure a classifier on a dataset, and write results.json."""

import argparse
from pathlib import Path

from modeling_vit_cls import FlaxViTClsForImageClassification
from modeling_vit_cls.errors import ConfigError, one_line
from modeling_vit_cls.files.folder import check_writable, to_path
from modeling_vit_cls.pipelines import load_trained
from modeling_vit_cls.results import Results

from .benchmark_features import run as run_features
from .dataset import load_classes
from .messages import no_bars_in_files


def run(arguments: argparse.Namespace) -> None:
    """Load model and dataset, benchmark, print the results and write them."""
    if arguments.output is not None:
        check_writable("output", to_path(arguments.output).resolve().parent)
    if arguments.method != "classify":
        run_features(arguments)
        return
    for option in ("train_split", "output_dir"):
        if (value := getattr(arguments, option)) is not None:
            raise ConfigError(option, value, "is for --method knn, retrieval and probe, which measure features")
    # Imported here because datasets and evaluate take a second, which other verbs do not need.
    from modeling_vit_cls.evaluation.benchmark import DEFAULT_METRICS, benchmark
    from modeling_vit_cls.evaluation.results import known_of_training, results
    from modeling_vit_cls.images.fingerprint import images_digest

    no_bars_in_files()
    options = {"revision": arguments.revision, "dtype": arguments.dtype}
    model = load_trained(FlaxViTClsForImageClassification, arguments.model, **options)
    dataset = load_classes(arguments, arguments.split, model.config.id2label)
    measurements = benchmark(
        model,
        dataset,
        metrics=arguments.metrics or DEFAULT_METRICS,
        batch_size=arguments.batch_size,
        on_bad_image=arguments.on_bad_image,
        disable_tqdm=None,
    )
    record = results(
        {**measurements, "images": images_digest(dataset, "image")},
        model,
        model_name=arguments.model,
        model_revision=arguments.revision,
        dataset_name=arguments.dataset_name,
        split=arguments.split,
        revision=arguments.dataset_revision,
        **known_of_training(Path(arguments.model)),
    )
    # Printed first, so that the results are not lost if the file cannot be written.
    print(record.to_json() if arguments.json else results_table(record))
    if arguments.output:
        record.write(arguments.output)


def results_table(record: Results) -> str:
    """The results of a classifier as a table of two columns."""
    model, dataset, speed = record.model, record.dataset, record.throughput
    conditions = f"batch size {speed.batch_size}, {speed.dtype}; {speed.includes}"
    details = f"{model.class_name}, readout {model.readout}, {model.parameters:,} parameters"
    rows = [
        ("model", f"{one_line(model.name)} ({details})"),
        ("dataset", f"{one_line(dataset.name)}, split {dataset.split}, {dataset.examples:,} examples"),
        *([("left out", f"{dataset.skipped:,} images that cannot be read")] if dataset.skipped else []),
        *((one_line(name), f"{number:.4f}") for name, number in record.metrics.items()),
        ("images/second", f"{speed.images_per_second:.1f} ({conditions})"),
    ]
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:<{width}}{text}" for name, text in rows)
