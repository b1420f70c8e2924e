"""`vit-cls benchmark MODEL --dataset_name NAME`: metrics of a classifier over a dataset -> results.json."""

import argparse
from pathlib import Path

from modeling_vit_cls import FlaxViTClsForImageClassification
from modeling_vit_cls.errors import one_line
from modeling_vit_cls.results import Results

from .messages import no_bars_in_files


def run(arguments: argparse.Namespace) -> None:
    """Load, run, print, write."""
    # Here, because datasets and evaluate take a second to import, which the other verbs need not wait for.
    from modeling_vit_cls.evaluation.benchmark import DEFAULT_METRICS, benchmark
    from modeling_vit_cls.evaluation.results import known_of_training, results
    from modeling_vit_cls.images.sources import load_images

    no_bars_in_files()
    model = FlaxViTClsForImageClassification.from_pretrained(arguments.model, dtype=arguments.dtype)
    dataset = load_images(
        arguments.dataset_name,
        arguments.split,
        dataset_config_name=arguments.dataset_config_name,
        revision=arguments.dataset_revision,
        image_column_name=arguments.image_column_name,
        label_column_name=arguments.label_column_name,
        id2label=model.config.id2label,
    )
    found = benchmark(
        model,
        dataset,
        metrics=arguments.metrics or DEFAULT_METRICS,
        batch_size=arguments.batch_size,
        on_bad_image=arguments.on_bad_image,
        disable_tqdm=None,
    )
    whole = results(
        found,
        model,
        model_name=arguments.model,
        dataset_name=arguments.dataset_name,
        split=arguments.split,
        revision=arguments.dataset_revision,
        **known_of_training(Path(arguments.model)),
    )
    # Printed first: a file that cannot be written must not cost the numbers.
    print(whole.to_json() if arguments.json else _table(whole))
    if arguments.output:
        whole.write(arguments.output)


def _table(whole: Results) -> str:
    model, dataset, speed = whole.model, whole.dataset, whole.throughput
    conditions = f"batch size {speed.batch_size}, {speed.dtype}; {speed.includes}"
    what = f"{model.class_name}, readout {model.readout}, {model.parameters:,} parameters"
    rows = [
        ("model", f"{one_line(model.name)} ({what})"),
        ("dataset", f"{one_line(dataset.name)}, split {dataset.split}, {dataset.examples:,} examples"),
        *([("left out", f"{dataset.skipped:,} images that cannot be read")] if dataset.skipped else []),
        *((one_line(name), f"{number:.4f}") for name, number in whole.metrics.items()),
        ("images/second", f"{speed.images_per_second:.1f} ({conditions})"),
    ]
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:<{width}}{text}" for name, text in rows)
