"""A labelled image dataset by name: one of the Hub, a folder of images, or the built-in digits."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import ConfigError, shorten
from ..images import load_image

try:
    import datasets
except ImportError as error:
    raise ImportError("datasets is needed to load images: pip install 'vit-cls[train]'") from error

_HELD_OUT = 360  # of the 1,797 digits: a fifth


def load_images(
    dataset_name: str,
    split: str,
    *,
    dataset_config_name: str | None = None,
    revision: str | None = None,
    image_column_name: str | None = None,
    label_column_name: str | None = None,
) -> "datasets.Dataset":
    """One split of a dataset as rows {"image": {"bytes", "path"}, "label": int}, the label a `ClassLabel`.

    Args:
        dataset_name: an id on the Hub, a folder of images (`split/class/image.jpg`, or `class/image.jpg`, which is all
            "train"), or "digits": scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, a fifth of them "test".
        image_column_name, label_column_name: default: the only column of images, the only one of classes.

    Raises ConfigError for a dataset, split or column that is not there.
    """
    if dataset_name == "digits":
        return _digits(split)
    found = _load(dataset_name, dataset_config_name, revision)
    if split not in found:
        raise ConfigError("split", split, f"must be one of {dataset_name}: {', '.join(map(str, found))}")
    return labelled(found[split], image_column_name, label_column_name)


def labelled(
    dataset: "datasets.Dataset", image_column_name: str | None = None, label_column_name: str | None = None
) -> "datasets.Dataset":
    """Any dataset with a column of images and one of classes as rows {"image": {"bytes", "path"}, "label": int}.

    Raises ConfigError where a column is not there, and for examples without a class.
    """
    image = image_column_name or _only_column(dataset, datasets.Image, "image_column_name")
    label = label_column_name or _only_column(dataset, datasets.ClassLabel, "label_column_name")
    for field, column, kind in (
        ("image_column_name", image, datasets.Image),
        ("label_column_name", label, datasets.ClassLabel),
    ):
        if not isinstance(dataset.features.get(column), kind):
            raise ConfigError(field, column, f"must be a column of type {kind.__name__}; there are {dataset.features}")
    dataset = dataset.select_columns([image, label]).rename_columns({image: "image", label: "label"})
    without = [row for row, number in enumerate(dataset["label"]) if number is None or number < 0]
    if without:
        raise ConfigError(
            "label_column_name", label, f"{len(without)} examples have no class, the first is {without[0]}"
        )
    return dataset.cast_column("image", datasets.Image(decode=False))  # broken images are ours to name


def splits_of(dataset_name: str, dataset_config_name: str | None = None, revision: str | None = None) -> list[str]:
    """Names of a dataset's splits."""
    if dataset_name == "digits":
        return ["train", "test"]
    return [str(name) for name in _load(dataset_name, dataset_config_name, revision)]


def open_image(image: Mapping[str, Any]) -> Image.Image:
    """The image of a row, {"bytes", "path"}, as upright RGB. Raises BadImageError that names its path."""
    if image["bytes"] is None:
        return load_image(image["path"])
    return load_image(image["bytes"], name=image["path"] or "an image without a path")


def class_names(dataset: "datasets.Dataset") -> list[str]:
    """Names of the classes, by their numbers."""
    return list(dataset.features["label"].names)


def _load(name: str, config_name: str | None, revision: str | None) -> Any:
    try:
        if Path(name).is_dir():
            return datasets.load_dataset("imagefolder", data_dir=name)
        return datasets.load_dataset(name, config_name, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:  # what datasets raises for whatever it cannot find or read
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        rule = (
            f"is neither 'digits', a folder of images, nor a dataset that the Hub gives ({shorten(reason, 200)[1:-1]})"
        )
        raise ConfigError("dataset_name", name, rule) from error


def _only_column(dataset: "datasets.Dataset", kind: type, field: str) -> str:
    names = [name for name, feature in dataset.features.items() if isinstance(feature, kind)]
    if len(names) != 1:
        rule = f"must be given: the dataset has {len(names)} columns of type {kind.__name__}, of {dataset.column_names}"
        raise ConfigError(field, None, rule)
    return names[0]


def _digits(split: str) -> "datasets.Dataset":
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("scikit-learn holds the digits: pip install 'vit-cls[train]'") from error
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    if split not in ("train", "test"):
        raise ConfigError("split", split, "must be one of digits: train, test")
    chosen = np.sort(order[:_HELD_OUT] if split == "test" else order[_HELD_OUT:])
    images = [{"bytes": _png(pixels[i].reshape(8, 8)), "path": f"digits/{i:04d}.png"} for i in chosen]
    features = datasets.Features(
        {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=[str(i) for i in range(10)])}
    )
    return datasets.Dataset.from_dict({"image": images, "label": labels[chosen].tolist()}, features=features)


def _png(digit: np.ndarray) -> bytes:
    """A digit of 0..16 as a PNG of 0..255."""
    file = io.BytesIO()
    Image.fromarray(np.rint(digit * (255 / 16)).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
