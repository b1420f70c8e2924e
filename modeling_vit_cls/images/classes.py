"""Class names of datasets and models, and the mapping from a dataset's labels to the model's."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError, shorten
from ..install import needs
from ..label_maps import numbered

try:
    import datasets
except ImportError as error:
    raise needs("datasets", "to load images", "train") from error

_GIVE_NUMBERS = "give the dataset a column of the model's numbers, or the model an id2label without repetitions"
_WHOLE = ("bool", "int", "uint", "float")  # floats too: one missing label turns a column of integers into floats


def class_name(text: str) -> str:
    """A name in Unicode's composed form (NFC). macOS decomposes letters, so that equal names would differ."""
    return unicodedata.normalize("NFC", text)


def class_names(dataset: "datasets.Dataset") -> list[str]:
    """The class names of a dataset with a column "label", in the order of their numbers."""
    return list(dataset.features["label"].names)


def model_names(id2label: Mapping[int, str]) -> list[str]:
    """The class names of a model, in the order of their numbers."""
    names = numbered(id2label)
    return [names[number] for number in range(len(names))]


def named_after(id2label: Mapping[int, str], names: Sequence[str]) -> Mapping[int, str]:
    """A model's `id2label` after it was given the class names of its first dataset.

    A model with default names ("LABEL_0") takes the dataset's names, in the order of the dataset, or by value where
    they are the numbers from 0 on; any other model keeps its own.
    """
    own_names = model_names(id2label)
    if own_names != _default_names(len(own_names)) or len(names) != len(own_names):
        return id2label
    return dict(enumerate(_number_names(len(names)) if _are_numbers_from_0(names) else names))


def match_classes(names: Sequence[str], id2label: Mapping[int, str]) -> np.ndarray:
    """The model's number of each class of a dataset, (K,), matched by name.

    Both must have the same names, in any order. Classes are matched by number instead where the model has default
    names ("LABEL_0"), and where its names repeat and the dataset's are numbers. The number of a class that is called by
    a number from 0 on is its name: folders are sorted by letters, 10 before 2. Raises ConfigError, with the names of
    both, where they do not match.
    """
    own_names = model_names(id2label)
    if len(names) != len(own_names):
        rule = f"the dataset has {len(names)} classes, the model {len(own_names)}: {_list_of(own_names)}"
        raise ConfigError("classes", list(names), rule)
    ours, theirs = [class_name(name) for name in own_names], [class_name(name) for name in names]
    repeated = _repeated(ours)
    if theirs == ours:
        return np.arange(len(ours))
    unnamed = ours == _default_names(len(ours))
    if _are_numbers_from_0(theirs) and (unnamed or repeated):
        return np.asarray(theirs, int)
    if unnamed:
        return np.arange(len(ours))
    if repeated:
        rule = f"the model has several classes called {shorten(repeated, 200)}, so names cannot be matched"
        raise ConfigError("classes", list(names), f"{rule}: {_GIVE_NUMBERS}; the model has {_list_of(own_names)}")
    if sorted(theirs) != sorted(ours):
        rule = "the dataset's class names differ from the model's, so labels cannot be matched by name"
        remedy = "give the model an id2label with the dataset's names, or rename the dataset's classes"
        raise ConfigError("classes", list(names), f"{rule}; the model has {_list_of(own_names)}; {remedy}")
    numbers = {name: number for number, name in enumerate(ours)}
    return np.asarray([numbers[name] for name in theirs])


def renumbered(dataset: "datasets.Dataset", id2label: Mapping[int, str]) -> "datasets.Dataset":
    """A dataset with a column "label" of classes -> the same dataset with the model's numbers and names."""
    numbers = match_classes(class_names(dataset), id2label)
    if np.array_equal(numbers, np.arange(len(id2label))):
        return dataset
    return _with_labels(dataset, "label", numbers[np.asarray(label_values(dataset))].tolist(), model_names(id2label))


def label_values(dataset: "datasets.Dataset", label: str = "label") -> list[Any]:
    """The values of one column as Python objects, (N,). No other column is read or copied."""
    column = dataset.data.column(label)
    rows = table_rows(dataset)
    return (column if rows is None else column.take(rows)).to_pylist()


def table_rows(dataset: "datasets.Dataset") -> Any:
    """Indices into the dataset's Arrow table, (N,); None where the dataset is the whole table in order.

    `select` and `shuffle` of datasets change only these indices.
    """
    return None if dataset._indices is None else dataset._indices.column(0).combine_chunks()


def in_order(names: Iterable[str]) -> list[str]:
    """Names in order: by value where all of them are whole numbers, else by letters."""
    names = list(names)
    return sorted(names, key=lambda name: (int(name), name)) if _are_whole(names) else sorted(names)


def label_text(value: Any) -> str | None:
    """A label as a class name; None for a missing one (None, -1, NaN or ""). Raises ConfigError for a fraction."""
    if isinstance(value, float):
        if value != value:
            return None
        if not value.is_integer():
            raise ConfigError("label", value, "must be a whole number or a text: is this a column of classes?")
        value = int(value)
    if value is None or value == "" or (value == -1 and not isinstance(value, bool)):
        return None
    return class_name(str(value))


def is_label_column(feature: Any) -> bool:
    """Whether a column of this type can hold labels: classes, texts or whole numbers."""
    if isinstance(feature, datasets.ClassLabel):
        return True
    return is_text(feature) or (isinstance(feature, datasets.Value) and feature.dtype.startswith(_WHOLE))


def is_text(feature: Any) -> bool:
    """Whether a column of this type holds texts."""
    return isinstance(feature, datasets.Value) and feature.dtype.startswith(("string", "large_string"))


def names_in(splits: Mapping[str, "datasets.Dataset"], label: str) -> list[str] | None:
    """The class names in a column of texts or numbers, over all splits; None where the column is a ClassLabel.

    Raises ConfigError, naming two splits, where one has numbers and another names.
    """
    names: set[str] = set()
    split_of: dict[bool, str] = {}  # a split of texts (True) and one of numbers
    for split, dataset in splits.items():
        feature = dataset.features.get(label)
        if isinstance(feature, datasets.ClassLabel):
            return None
        if feature is not None:
            split_of[is_text(feature)] = split
            names |= {name for name in map(label_text, set(label_values(dataset, label))) if name is not None}
    if len(split_of) == 2 and not _are_whole(names):
        rule = f"has numbers in the split {split_of[False]} and names in {split_of[True]}: write the same in all splits"
        raise ConfigError("label_column_name", label, rule)
    return in_order(names)


def as_classes(dataset: "datasets.Dataset", label: str, names: Sequence[str] | None = None) -> "datasets.Dataset":
    """A dataset whose column of texts or whole numbers is a ClassLabel, with -1 for a missing label.

    A ClassLabel is returned unchanged. `names` are the classes; by default they are the values in the column. Raises
    ConfigError, naming the row, for a value that is not in `names`.
    """
    if isinstance(dataset.features[label], datasets.ClassLabel):
        return dataset
    texts = [label_text(value) for value in label_values(dataset, label)]
    names = in_order({text for text in texts if text is not None}) if names is None else list(names)
    numbers = {name: number for number, name in enumerate(names)}
    for row, text in enumerate(texts):
        if text is not None and text not in numbers:
            raise ConfigError("label", text, f"row {row}: must be one of {shorten(names, 200)}")
    return _with_labels(dataset, label, [-1 if text is None else numbers[text] for text in texts], names)


def by_number(dataset: "datasets.Dataset", label: str, id2label: Mapping[int, str]) -> "datasets.Dataset":
    """A dataset whose column of texts or whole numbers is a ClassLabel of a model's classes.

    Texts are class names of the model. Whole numbers are its class names where each of them is a name, or all names are
    numbers; else, and where names repeat, its class numbers. With a text that the model does not know, the texts become
    the classes, and `match_classes` reports the difference. Raises ConfigError, naming the row, for a number beyond the
    model's classes.
    """
    feature, names = dataset.features[label], model_names(id2label)
    if isinstance(feature, datasets.ClassLabel):
        return dataset
    values = label_values(dataset, label)
    texts, repeated = {name for name in map(label_text, set(values)) if name is not None}, _repeated(names)
    if is_text(feature):
        if unclear := sorted(texts & set(repeated)):
            raise ConfigError("label", unclear[0], f"is the name of several classes of the model: {_GIVE_NUMBERS}")
        return as_classes(dataset, label, names if texts <= set(names) else None)
    are_names = texts <= set(names) or (feature.dtype != "bool" and all(map(_is_number, names)))
    if are_names and not repeated:
        return as_classes(dataset, label, names)
    numbers = [-1 if label_text(value) is None else int(value) for value in values]
    for row, number in enumerate(numbers):
        if number >= len(names):
            raise ConfigError("label", number, f"row {row}: out of range, the model has {len(names)} classes from 0 on")
    return _with_labels(dataset, label, numbers, names)


def by_number_in_name(dataset: "datasets.Dataset", id2label: Mapping[int, str]) -> "datasets.Dataset":
    """A dataset whose classes are called by class numbers of a model -> the same dataset with the model's classes.

    It is returned unchanged where they are class names of the model or all its class names are numbers, and where not
    every name of a class is a class number of the model.
    """
    texts, names = class_names(dataset), model_names(id2label)
    if set(texts) <= set(names) or all(map(_is_number, names)):
        return dataset
    if not all(_is_number(text) and 0 <= int(text) < len(names) for text in texts):
        return dataset
    return _with_labels(dataset, "label", [int(texts[number]) for number in label_values(dataset)], names)


def check_labels(dataset: "datasets.Dataset", label: str) -> None:
    """Raise ConfigError, naming the first row, for missing labels and for labels out of range."""
    classes, numbers = dataset.features[label].num_classes, label_values(dataset, label)
    missing = [row for row, number in enumerate(numbers) if number is None or number < 0]
    if missing:
        rule = f"{len(missing)} of {len(numbers)} examples have no class, the first is row {missing[0]}"
        raise ConfigError("label_column_name", label, f"{rule}: use another split, or leave these rows out")
    beyond = [row for row, number in enumerate(numbers) if number >= classes]
    if beyond:
        rule = f"{len(beyond)} labels are out of range, the first is {numbers[beyond[0]]} in row {beyond[0]}"
        raise ConfigError("label_column_name", label, f"{rule}: there are {classes} classes, from 0 on")


def _with_labels(
    dataset: "datasets.Dataset", label: str, numbers: list[int], names: Sequence[str]
) -> "datasets.Dataset":
    """A dataset with new labels (N,) in a ClassLabel of these names, or of their numbers where names repeat.

    The labels are added to the whole table: for a selection, datasets would copy the images to disk.
    """
    rows, column = table_rows(dataset), np.asarray(numbers, np.int64)
    if rows is not None:
        column = np.full(dataset.data.num_rows, -1, np.int64)
        column[rows.to_numpy()] = numbers
    whole = datasets.Dataset(dataset.data, dataset.info.copy(), dataset.split)
    names = _number_names(len(names)) if _repeated(names) else list(names)
    feature = datasets.ClassLabel(names=names)
    whole = whole.remove_columns(label).add_column(label, column.tolist(), feature=feature)  # pyright: ignore[reportCallIssue]
    return whole if rows is None else whole.select(rows.to_numpy(), keep_in_memory=True)


def _default_names(classes: int) -> list[str]:
    return [f"LABEL_{number}" for number in range(classes)]


def _number_names(classes: int) -> list[str]:
    return [str(number) for number in range(classes)]


def _are_whole(names: Iterable[str]) -> bool:
    return all(re.fullmatch(r"-?[0-9]+", name) for name in names)


def _are_numbers_from_0(names: Sequence[str]) -> bool:
    return set(names) == set(_number_names(len(names)))


def _is_number(name: str) -> bool:
    return re.fullmatch(r"0|-?[1-9][0-9]*", name) is not None


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _list_of(names: Sequence[str]) -> str:
    return shorten(list(names), 200)
