"""A folder of images as a dataset: `SPLIT/CLASS/image.jpg`, or `CLASS/image.jpg` for a single split "train".

Folders at the top with the name of a split (train, validation, test; see `splits`) are splits. All other names are
classes.
"""

import logging
import os
from pathlib import Path
from typing import NamedTuple

import datasets
import pyarrow as pa

from ..errors import ConfigError, shorten
from .classes import class_name, in_order
from .image_files import images_below, is_image_name, visible_entries
from .metadata import LABEL_COLUMNS, metadata_file, read_metadata, read_rows
from .splits import find_split, split_name

_log = logging.getLogger(__name__)


class Listing(NamedTuple):
    """Image files and their class names, None for an image without a class."""

    images: list[Path]
    labels: list[str | None]


def folder_splits(folder: Path) -> dict[str, Path]:
    """The folder of each split, {name: folder}.

    Raises ConfigError where one split has two folders, or splits and classes are mixed.
    """
    folders, files = visible_entries(folder)
    splits: dict[str, Path] = {}
    others: list[Path] = []
    for inner in folders:
        name = split_name(inner.name)
        if name is None:
            others.append(inner)
        elif name in splits:
            rule = f"two folders are its split {name}: {splits[name].name} and {inner.name}; keep one of them"
            raise ConfigError("dataset_name", str(folder), rule)
        else:
            splits[name] = inner
    if not splits:
        return {"train": folder}
    others = [inner for inner in others if next(images_below(inner), None) is not None]
    if others:
        names = ", ".join(inner.name for inner in others[:5])
        for split in splits.values():
            inner_folders, inner_files = visible_entries(split)
            images = any(is_image_name(file.name) for file in inner_files)
            if images and not inner_folders and metadata_file(inner_files) is None:
                rule = f"{split.name} may be a split, or a class like {names}: put all classes into a folder train"
                raise ConfigError("dataset_name", str(folder), rule)
        _log.warning("%s: ignored folders that are not splits: %s", folder, names)
    if loose := [file.name for file in files if is_image_name(file.name)]:
        _log.warning("%s: ignored images outside the splits (%d): %s", folder, len(loose), ", ".join(loose[:5]))
    return splits


class NoClassesError(ConfigError):
    """The folders and metadata of images do not give each of them a class."""


def load_photos(folder: Path, split: str) -> "datasets.Dataset":
    """One split of a folder as `load_image_folder` returns it, or without labels where not every image has a class.

    Then it has the images of the split's folder and of all folders below it. The other columns of its metadata file are
    columns of the dataset, with None for an image that has no row.
    """
    splits, chosen = _splits(folder, split)
    try:
        dataset = _load(folder, splits, chosen)
    except NoClassesError:
        images = list(images_below(splits[chosen]))
        dataset = _dataset(Listing(images, [None] * len(images)), []).remove_columns("label")
    file = _metadata_file(splits[chosen], folder)
    if file is None:
        return dataset
    rows = {os.path.abspath(image): row for image, row in read_rows(file)}
    paths = [image["path"] for image in dataset["image"]]
    names = dict.fromkeys(name for row in rows.values() for name in row)
    for name in [name for name in names if name not in ("file_name", *dataset.column_names)]:
        values = [rows.get(path, {}).get(name) for path in paths]
        try:
            dataset = dataset.add_column(name, values)  # pyright: ignore[reportCallIssue]
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ConfigError("dataset_name", str(folder), f"{file}: column {name}: {error}") from error
    return dataset


def _splits(folder: Path, split: str) -> tuple[dict[str, Path], str]:
    """The folder of each split, and the name of the one that is asked for."""
    try:
        splits = folder_splits(folder)
    except OSError as error:
        raise _not_listed(folder, error) from error
    chosen = find_split(split, list(splits))
    if chosen is None:
        raise ConfigError("split", split, f"must be one of {folder}: {', '.join(splits)}")
    return splits, chosen


def _not_listed(folder: Path, error: OSError) -> ConfigError:
    return ConfigError("dataset_name", str(folder), f"cannot be listed ({error})")


def _metadata_file(*folders: Path) -> Path | None:
    """The metadata file in the first of these folders that has one."""
    files = (metadata_file(visible_entries(folder)[1]) for folder in folders)
    return next((file for file in files if file is not None), None)


def load_image_folder(folder: Path, split: str, label_column_name: str | None = None) -> "datasets.Dataset":
    """One split of a folder as rows {"image": {"bytes": None, "path"}, "label": int}.

    The classes are those of all splits together, sorted by name. Raises ConfigError, naming the file or folder, for a
    missing split, images without a class, images below a class's folder, and names that are not UTF-8.
    """
    return _load(folder, *_splits(folder, split), label_column_name)


def _load(
    folder: Path, splits: dict[str, Path], chosen: str, label_column_name: str | None = None
) -> "datasets.Dataset":
    try:
        tables = {name: _metadata(inner, folder, label_column_name) for name, inner in splits.items()}
        listing = _list(splits[chosen], tables[chosen], report=True)
        if not listing.images:
            raise ConfigError("dataset_name", str(folder), _no_images(splits[chosen]))
        unlabelled = [image for image, label in zip(*listing) if label is None]
        if unlabelled:
            rule = f"{len(unlabelled)} of its {len(listing.images)} images are in no folder of a class and have no "
            rule += f"label, the first is {unlabelled[0]}: sort them into folders of classes for training and "
            rule += "evaluation; `vit-cls predict` takes images without labels"
            raise NoClassesError("split", chosen, rule)
        names = {label for label in listing.labels if label is not None}
        for name, other in splits.items():
            if name != chosen:
                names |= _class_names(other, tables[name])
    except OSError as error:
        raise _not_listed(folder, error) from error
    if label_column_name not in (None, "label") and not tables[chosen]:
        rule = "must be a column of a metadata file in the folder; leave it out where the folders are the classes"
        raise ConfigError("label_column_name", label_column_name, rule)
    return _dataset(listing, in_order(names) if tables[chosen] else sorted(names))


def _dataset(listing: Listing, names: list[str]) -> "datasets.Dataset":
    paths = [os.path.abspath(image) for image in listing.images]
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError as error:
            rule = f"{path!a}: the name of this file is not UTF-8: rename it"
            raise ConfigError("dataset_name", ascii(os.path.dirname(path)), rule) from error
    numbers = {name: number for number, name in enumerate(names)}
    labels = pa.array([label if label is None else numbers[label] for label in listing.labels], pa.int64())
    images = pa.StructArray.from_arrays([pa.nulls(len(paths), pa.binary()), pa.array(paths)], ["bytes", "path"])
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=names)})
    return datasets.Dataset(pa.table({"image": images, "label": labels}, schema=features.arrow_schema))


def _metadata(folder: Path, root: Path, label_column_name: str | None) -> dict[Path, str | None]:
    """{path: label} of a split, from the metadata file in its folder or in the root; empty if there are no labels."""
    file = _metadata_file(folder, root)
    if file is None:
        return {}
    rows = read_metadata(file, label_column_name).items()
    labels = {path: label for path, label in rows if path.is_relative_to(folder)}
    if any(labels.values()):
        return labels
    columns = label_column_name or ", ".join(LABEL_COLUMNS)
    rule = "so folders are the classes; label_column_name names another column"
    _log.warning("%s: has no labels in a column %s, %s", file, columns, rule)
    return {}


def _list(folder: Path, table: dict[Path, str | None], report: bool = False) -> Listing:
    """The images of a split's folder and their classes. With `report`, ignored files are logged."""
    if table:
        if report:
            _report_unlisted(folder, table)
        return Listing(list(table), list(table.values()))
    folders, files = visible_entries(folder)
    images = [file for file in files if is_image_name(file.name)]
    others = [file for file in files if not is_image_name(file.name) and file != metadata_file(files)]
    listing = Listing(list(images), [None] * len(images))
    for inner in folders:
        deeper, files = visible_entries(inner)
        class_images = [file for file in files if is_image_name(file.name)]
        others += [file for file in files if not is_image_name(file.name)]
        for each in deeper:
            image = next(images_below(each), None)
            if image is not None:
                raise NoClassesError("dataset_name", str(folder), _too_deep(inner, each, image))
        if images and class_images:
            rule = f"{images[0]} is in no folder of a class, but there are folders of classes such as {inner.name}: "
            raise NoClassesError("dataset_name", str(folder), rule + "move it into one of them")
        if report and not class_images:
            _log.warning("%s: ignored, because it holds no images", inner)
        listing.images.extend(class_images)
        listing.labels.extend([class_name(inner.name)] * len(class_images))
    if report and others:
        names = ", ".join(str(file.relative_to(folder)) for file in others[:5])
        _log.warning("%s: ignored files that are not images (%d): %s", folder, len(others), names)
    return listing


def _class_names(folder: Path, table: dict[Path, str | None]) -> set[str]:
    """The class names in another split; none where that folder cannot be read as a split."""
    try:
        return {label for label in _list(folder, table).labels if label is not None}
    except ConfigError:
        return set()


def _report_unlisted(folder: Path, listed: dict[Path, str | None]) -> None:
    known = {os.path.normpath(path) for path in listed}
    unlisted = [image for image in images_below(folder) if os.path.normpath(image) not in known]
    if unlisted:
        _log.warning("%s: ignored images that its metadata omits (%d): %s", folder, len(unlisted), unlisted[0])


def _too_deep(inner: Path, deeper: Path, image: Path) -> str:
    if split_name(deeper.name):
        return f"its splits are one folder down: give {shorten(str(inner), 500)[1:-1]}"
    return f"{image} is deeper than SPLIT/CLASS/image: the class may be {inner.name} or {image.parent.name}; move it up"


def _no_images(folder: Path) -> str:
    _, files = visible_entries(folder)
    names = ", ".join(file.name for file in files[:5])
    return f"{folder} holds no images" + (f", but {names}" if names else "")
