"""`vit-cls benchmark MODEL --dataset_name NAME`: metrics of a classifier over a dataset -> results.json."""

import argparse
from pathlib import Path
from typing import Any

from modeling_vit_cls import FlaxViTClsForImageClassification
from modeling_vit_cls.errors import one_line
from modeling_vit_cls.results import Results

from .messages import no_bars_in_files
from .verbs import add_verb


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        verbs,
        "benchmark",
        run,
        help="metrics of a classifier over a dataset",
        description="Run a classifier over a labelled dataset: accuracy, top-5 accuracy, macro F1, negative "
        "log-likelihood, expected calibration error, images per second.",
        example="benchmark my-vit --dataset_name digits --output my-vit/results.json",
    )
    parser.add_argument("model", help="a folder or a Hub id")
    parser.add_argument("--dataset_name", required=True, help="an id on the Hub, a folder of images, or 'digits'")
    parser.add_argument("--dataset_config_name", help="of a dataset that has several")
    parser.add_argument("--dataset_revision", help="a branch, tag or commit of a dataset on the Hub")
    parser.add_argument("--split", default="test", help="(default: %(default)s)")
    parser.add_argument("--image_column_name", help="default: the only column of images")
    parser.add_argument("--label_column_name", help="default: the only column of classes")
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="METRIC",
        help="accuracy, top_5_accuracy, macro_f1, nll, ece, or a folder or Space that evaluate.load takes, whose code "
        "is then run (default: all five)",
    )
    parser.add_argument("--batch_size", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument(
        "--on_bad_image",
        choices=["raise", "skip"],
        default="raise",
        help="at a broken image: stop, or go on without it and count it (default: %(default)s)",
    )
    parser.add_argument("--output", metavar="FILE", help="where to write the results as JSON")


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
