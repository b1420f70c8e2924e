"""The options that choose a dataset, the same for every verb that reads one, and the dataset that they choose."""

import argparse
from collections.abc import Mapping
from typing import Any

KINDS = "an id on the Hub, a folder of images or of parquet files, 'digits' or 'fashion_mnist'"


def add_dataset_options(parser: argparse.ArgumentParser, split: str) -> None:
    """Add the options besides the dataset's name; `split` is the default."""
    parser.add_argument("--split", default=split, help="split of the dataset (default: %(default)s)")
    parser.add_argument("--dataset_config_name", help="configuration of a dataset on the Hub that has several")
    parser.add_argument("--dataset_revision", help="branch, tag or commit of a dataset on the Hub")
    parser.add_argument("--data_dir", metavar="FOLDER", help="the IDX files of 'fashion_mnist'")
    parser.add_argument("--image_column_name", help="default: the only column of images")


def place(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keywords of `load_images` and `load_with_columns` that tell where a dataset is."""
    return {
        "dataset_config_name": arguments.dataset_config_name,
        "revision": arguments.dataset_revision,
        "data_dir": arguments.data_dir,
    }


def load_classes(arguments: argparse.Namespace, split: str, id2label: Mapping[int, str] | None = None) -> Any:
    """A split of the labelled dataset of the arguments, as `load_images` returns it."""
    from modeling_vit_cls.images.sources import load_images  # which takes a second, and other verbs do not need

    columns = {name: getattr(arguments, name) for name in ("image_column_name", "label_column_name")}
    return load_images(arguments.dataset_name, split, **place(arguments), **columns, id2label=id2label)
