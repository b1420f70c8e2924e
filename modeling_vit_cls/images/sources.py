"""A labelled image dataset by name: one on the Hub, a folder of images or of tables, or the built-in digits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError
from ..install import needs
from .classes import (
    as_classes,
    by_number,
    by_number_in_name,
    check_labels,
    class_names,
    is_label_column,
    names_in,
)
from .digits import load_digits
from .hub_dataset import load_hub_dataset
from .idx import FASHION_MNIST, FASHION_MNIST_ON_THE_HUB, fashion_mnist_folder, idx_splits, is_idx_folder, load_idx
from .image_files import images_below
from .image_folder import folder_splits, load_image_folder, load_photos
from .kinds import check_dataset
from .metadata import LABEL_COLUMNS
from .rows import named, open_image, row_name
from .splits import find_split
from .table_folder import is_saved_to_disk, load_saved, load_tables, table_files

try:
    import datasets
except ImportError as error:
    raise needs("datasets", "to load images", "train") from error

__all__ = ["class_names", "labelled", "load_images", "named", "open_image", "row_name", "splits_of"]

_CHOOSE = "give the name of one, or keep only one with dataset.select_columns"
_CAST_PATHS = "dataset.cast_column(NAME, datasets.Image()) makes one of a column of paths"
OnBadImage = Literal["raise", "skip"]


def load_images(
    dataset_name: str,
    split: str,
    *,
    dataset_config_name: str | None = None,
    revision: str | None = None,
    image_column_name: str | None = None,
    label_column_name: str | None = None,
    id2label: Mapping[int, str] | None = None,
    data_dir: str | None = None,
) -> "datasets.Dataset":
    """One split of a dataset as rows {"image": {"bytes", "path"}, "label": int}; the label is a `ClassLabel`.

    Args:
        dataset_name: An id on the Hub; or a folder; or "digits", scikit-learn's 1,797 handwritten digits of 8 x 8
            pixels, a fifth of them held out as "test"; or "fashion_mnist", 70,000 articles of 28 x 28 pixels, from
            `data_dir`, Debian's package dataset-fashion-mnist, or the Hub. A folder holds images
            (`split/class/image.jpg`, or `class/image.jpg` for a single split "train"; a `metadata.csv` or `.jsonl` may
            give the labels), parquet or arrow files, what `save_to_disk` wrote, or MNIST's IDX files.
        split: The name of the split. For a folder other spellings match too: "val" is "validation".
        image_column_name: By default the only column of images.
        label_column_name: By default the only column of classes, or else a column of texts or whole numbers that is
            called label, labels or class; needed where both are there. Its values in all splits become the classes.
        data_dir: A folder with the four IDX files of "fashion_mnist".
        id2label: Of a model. Texts are then its class names. Whole numbers in the column, or as names of folders, are
            its class names where they are among these, and else its class numbers.

    Raises ConfigError for a dataset, split or column that does not exist, and for examples without a class.
    """
    if dataset_name == "digits" and data_dir is None:
        return load_digits(split)
    source = _open(dataset_name, dataset_config_name, revision, data_dir)
    if isinstance(source, Path) and is_idx_folder(source):
        for field, name in (("image_column_name", image_column_name), ("label_column_name", label_column_name)):
            if name is not None:
                raise ConfigError(field, name, "must be left out for IDX files, which have no columns")
        return load_idx(source, split, dataset_name == FASHION_MNIST)
    if isinstance(source, Path):
        if image_column_name not in (None, "image"):
            raise ConfigError("image_column_name", image_column_name, "must be left out for a folder of images")
        dataset = load_image_folder(source, split, label_column_name)
        return dataset if id2label is None else by_number_in_name(dataset, id2label)
    dataset = _split_of(source, split, dataset_name)
    label = _label_column(dataset, label_column_name)
    if id2label is None:
        dataset = as_classes(dataset, label, names_in(source, label))
    return labelled(dataset, image_column_name, label, id2label=id2label)


def load_with_columns(
    dataset_name: str,
    split: str,
    *,
    dataset_config_name: str | None = None,
    revision: str | None = None,
    data_dir: str | None = None,
) -> "datasets.Dataset":
    """One split of a dataset with all of its columns, labelled or not. For the arguments see `load_images`.

    A folder of images has the columns "image" and, where every image has a class, "label".
    """
    if dataset_name == "digits" and data_dir is None:
        return load_digits(split)
    source = _open(dataset_name, dataset_config_name, revision, data_dir)
    if isinstance(source, Path) and is_idx_folder(source):
        return load_idx(source, split, dataset_name == FASHION_MNIST)
    return load_photos(source, split) if isinstance(source, Path) else _split_of(source, split, dataset_name)


def _split_of(splits: Mapping[str, Any], split: str, dataset_name: str) -> "datasets.Dataset":
    """The dataset of one split, in its plain format. Raises ConfigError for a split that does not exist."""
    name = find_split(split, list(splits)) if Path(dataset_name).expanduser().is_dir() else split
    if name is None or name not in splits:
        raise ConfigError("split", split, f"must be one of {dataset_name}: {', '.join(splits)}")
    return check_dataset(splits[name])


def image_column(dataset: "datasets.Dataset", name: str | None = None) -> str:
    """The name of a dataset's column of images: `name`, or that of the only one. Raises ConfigError for another."""
    image = name or _only_image_column(dataset)
    feature = dataset.features.get(image)
    if not _is_image_column(feature):
        rule = f"must be a column of type Image; {_CAST_PATHS}; the columns are {dataset.features}"
        raise ConfigError("image_column_name", image, rule)
    if (mode := getattr(feature, "mode", None)) not in (None, "RGB"):
        rule = f"is of type Image(mode={mode!r}), expected no mode or RGB, because images are read as RGB here: use "
        rule += f"dataset.cast_column({image!r}, datasets.Image()); a processor of one image_mean makes them grey"
        raise ConfigError("image_column_name", image, rule)
    return image


def labelled(
    dataset: "datasets.Dataset",
    image_column_name: str | None = None,
    label_column_name: str | None = None,
    *,
    id2label: Mapping[int, str] | None = None,
    field: str = "dataset",
) -> "datasets.Dataset":
    """A dataset with a column of images and one of labels, as rows {"image": {"bytes", "path"}, "label": int}.

    A column of texts or whole numbers becomes classes, those of a model where its `id2label` is given. `field` is the
    name of the argument in errors.

    Raises ConfigError for another kind of dataset, a missing column, examples without a class and labels out of range.
    """
    dataset = check_dataset(dataset, field)
    if len(dataset) == 0:
        raise ConfigError(field, "Dataset", "has no examples")
    image = image_column(dataset, image_column_name)
    label = _label_column(dataset, label_column_name)
    dataset = dataset.select_columns([image, label])
    dataset = as_classes(dataset, label) if id2label is None else by_number(dataset, label, id2label)
    check_labels(dataset, label)
    if (image, label) != ("image", "label"):
        dataset = dataset.rename_columns({image: "image", label: "label"})
    return dataset.cast_column("image", datasets.Image(decode=False))  # we decode, so that errors name the image


def splits_of(
    dataset_name: str,
    dataset_config_name: str | None = None,
    revision: str | None = None,
    data_dir: str | None = None,
) -> list[str]:
    """The names of a dataset's splits. For the arguments and errors see `load_images`."""
    if dataset_name == "digits" and data_dir is None:
        return ["train", "test"]
    source = _open(dataset_name, dataset_config_name, revision, data_dir)
    if isinstance(source, Path) and is_idx_folder(source):
        return idx_splits(source)
    return list(folder_splits(source)) if isinstance(source, Path) else list(source)


def check_on_bad_image(on_bad_image: Any) -> None:
    """Raise ConfigError for a value of `on_bad_image` other than "raise" and "skip"."""
    if on_bad_image not in ("raise", "skip"):
        raise ConfigError("on_bad_image", on_bad_image, "must be 'raise' or 'skip'")


def _open(
    name: str, config_name: str | None, revision: str | None, data_dir: str | None = None
) -> Path | dict[str, Any]:
    """The path of a folder of images or IDX files, or the splits {name: dataset} of any other dataset."""
    if name == FASHION_MNIST:
        return fashion_mnist_folder(data_dir) or _fashion_mnist_of_the_hub(revision)
    if data_dir is not None:
        raise ConfigError("data_dir", data_dir, f"belongs to {FASHION_MNIST}: give the folder as dataset_name")
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ConfigError("dataset_revision", revision, f"must be left out: {name} is a local folder")
        try:
            if is_saved_to_disk(folder):
                return load_saved(folder)
            if (files := table_files(folder)) and next(images_below(folder), None) is None:
                return load_tables(folder, files, config_name)
        except OSError as error:
            raise ConfigError("dataset_name", name, f"cannot be listed ({error})") from error
        if config_name is not None:
            raise ConfigError("dataset_config_name", config_name, f"must be left out: {name} is a folder of images")
        return folder
    if folder.exists():
        raise ConfigError("dataset_name", name, "is a file: give a folder of images, or unpack it first")
    return load_hub_dataset(name, config_name, revision)


def _fashion_mnist_of_the_hub(revision: str | None) -> dict[str, Any]:
    try:
        return load_hub_dataset(FASHION_MNIST_ON_THE_HUB, None, revision)
    except ConfigError as error:
        ways = "install Debian's package dataset-fashion-mnist, or give the folder of its four files as data_dir"
        raise ConfigError("dataset_name", FASHION_MNIST, f"is not on this machine: {ways} ({error})") from error


def _is_image_column(feature: Any) -> bool:
    if isinstance(feature, dict):  # in a parquet file that was not written by datasets
        return set(feature) == {"bytes", "path"}
    return isinstance(feature, datasets.Image) or (
        isinstance(feature, datasets.Value) and feature.dtype in ("binary", "large_binary")
    )


def _only_image_column(dataset: "datasets.Dataset") -> str:
    names = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
    names = names or [name for name, feature in dataset.features.items() if _is_image_column(feature)]
    if len(names) > 1:
        rule = f"several columns are of type Image ({', '.join(names)}): {_CHOOSE}"
        raise ConfigError("image_column_name", None, rule)
    if not names:
        rule = f"no column is of type Image; {_CAST_PATHS}; the columns are {dataset.features}"
        raise ConfigError("image_column_name", None, rule)
    return names[0]


def _label_column(dataset: "datasets.Dataset", name: str | None) -> str:
    features = dataset.features
    if name is not None:
        if not is_label_column(features.get(name)):
            rule = (
                "must be a column of type ClassLabel, of texts or of whole numbers, one class for each image, no list"
            )
            rule += f" and not one-hot; the columns are {features}"
            raise ConfigError("label_column_name", name, rule)
        return name
    names = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    if not set(names) & set(LABEL_COLUMNS):  # a column by such a name may be the labels, whatever its type
        names += [name for name in LABEL_COLUMNS if name in features and (names or is_label_column(features[name]))]
    if len(names) > 1:
        rule = f"several columns can be the labels ({', '.join(names)}): {_CHOOSE}"
        raise ConfigError("label_column_name", None, rule)
    if not names:
        rule = f"no column is of type ClassLabel, or called {' or '.join(LABEL_COLUMNS)} and of texts or whole numbers"
        remedy = "give its name, or rename it with dataset.rename_column; a label is one class, no list and not one-hot"
        raise ConfigError("label_column_name", None, f"{rule}: {remedy}; the columns are {features}")
    return names[0]
