"""Classes by name: what a dataset calls them, what a model calls them, and the model's number of each."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError, shorten
from ..install import needs

try:
    import datasets
except ImportError as error:
    raise needs("datasets", "to load images", "train") from error

_GIVE_NUMBERS = "give the dataset a column of the model's numbers, or the model an id2label without repetitions"
_WHOLE = ("bool", "int", "uint", "float")  # floats too: a missing label made floats of whole numbers


def class_name(text: str) -> str:
    """A name in Unicode's composed form: macOS writes the same letters in another one."""
    return unicodedata.normalize("NFC", text)


def class_names(dataset: "datasets.Dataset") -> list[str]:
    """Names of the classes, by their numbers."""
    return list(dataset.features["label"].names)


def model_names(id2label: Mapping[int, str]) -> list[str]:
    """A model's names, by their numbers."""
    return [str(id2label[number]) for number in range(len(id2label))]


def named_after(id2label: Mapping[int, str], names: Sequence[str]) -> Mapping[int, str]:
    """{class: name} of a model, and the names of the first dataset that it meets -> what later ones are matched with.

    A model whose classes were never named ("LABEL_0") has the dataset's names from then on; any other keeps its own.
    """
    known = model_names(id2label)
    if known != _unnamed(len(known)) or len(names) != len(known):
        return id2label
    return dict(enumerate(names))


def match_classes(names: Sequence[str], id2label: Mapping[int, str]) -> np.ndarray:
    """Names of a dataset's classes, names of a model's -> the model's number of each class of the dataset, (K,).

    The names are the same, in any order; a model whose classes were never named ("LABEL_0") is taken by number, and so
    is one of repeated names, from a column of numbers. Raises ConfigError, with the names of both, where they do not
    fit.
    """
    known = model_names(id2label)
    if len(names) != len(known):
        rule = f"the dataset has {len(names)} classes, the model {len(known)}: {_shown(known)}"
        raise ConfigError("classes", list(names), rule)
    given, own = [class_name(name) for name in names], [class_name(name) for name in known]
    twice = _repeated(own)
    if given == own or own == _unnamed(len(own)) or (twice and given == _numbers(len(own))):
        return np.arange(len(known))
    if twice:
        rule = f"the model has several classes called {shorten(twice, 200)}, which names cannot tell apart"
        raise ConfigError("classes", list(names), f"{rule}: not the model's by name; {_GIVE_NUMBERS}: {_shown(known)}")
    if sorted(given) != sorted(own):
        rule = "the dataset's classes are not the model's by name, and those may not be numbered alike"
        remedy = "pass the model an id2label with the dataset's names, or rename those"
        raise ConfigError("classes", list(names), f"{rule}: {_shown(known)}; {remedy}")
    numbers = {name: number for number, name in enumerate(own)}
    return np.asarray([numbers[name] for name in given])


def renumbered(dataset: "datasets.Dataset", id2label: Mapping[int, str]) -> "datasets.Dataset":
    """A dataset with a column "label" of classes -> the same with the model's numbers and names."""
    numbers = match_classes(class_names(dataset), id2label)
    if np.array_equal(numbers, np.arange(len(id2label))):
        return dataset
    return _with_labels(dataset, "label", numbers[np.asarray(label_values(dataset))].tolist(), model_names(id2label))


def label_values(dataset: "datasets.Dataset", label: str = "label") -> list[Any]:
    """A column's values, as Python's; no other column is read or copied."""
    column = dataset.data.column(label)
    rows = table_rows(dataset)
    return (column if rows is None else column.take(rows)).to_pylist()


def table_rows(dataset: "datasets.Dataset") -> Any:
    """The rows of a dataset's table that it has, (N,) as pyarrow's; None for all, in order.

    `select` and `shuffle` change these alone.
    """
    return None if dataset._indices is None else dataset._indices.column(0).combine_chunks()


def in_order(names: Iterable[str]) -> list[str]:
    """Names sorted; by value where all of them are whole numbers."""
    names = list(names)
    whole = all(re.fullmatch(r"-?[0-9]+", name) for name in names)
    return sorted(names, key=int) if whole else sorted(names)


def is_label_column(feature: Any) -> bool:
    """Whether a column holds classes, texts or whole numbers."""
    if isinstance(feature, datasets.ClassLabel):
        return True
    return isinstance(feature, datasets.Value) and feature.dtype.startswith(("string", "large_string", *_WHOLE))


def names_in(columns: Iterable["datasets.Dataset"], label: str) -> list[str] | None:
    """The classes of a column of texts or numbers in all splits together; None where it is a ClassLabel."""
    names: set[str] = set()
    for dataset in columns:
        if isinstance(dataset.features.get(label), datasets.ClassLabel):
            return None
        if label in dataset.features:
            names |= {name for name in map(_text, set(label_values(dataset, label))) if name is not None}
    return in_order(names)


def as_classes(dataset: "datasets.Dataset", label: str, names: Sequence[str] | None = None) -> "datasets.Dataset":
    """A column of texts or whole numbers as a ClassLabel, -1 where there is none; a ClassLabel as it is.

    `names` are the classes, default those that there are. Raises ConfigError for a value that is none of them.
    """
    if isinstance(dataset.features[label], datasets.ClassLabel):
        return dataset
    texts = [_text(value) for value in label_values(dataset, label)]
    names = in_order({text for text in texts if text is not None}) if names is None else list(names)
    numbers = {name: number for number, name in enumerate(names)}
    for row, text in enumerate(texts):
        if text is not None and text not in numbers:
            raise ConfigError("label", text, f"row {row}: must be one of {shorten(names, 200)}")
    return _with_labels(dataset, label, [-1 if text is None else numbers[text] for text in texts], names)


def by_number(dataset: "datasets.Dataset", label: str, id2label: Mapping[int, str]) -> "datasets.Dataset":
    """A column without names of its own, for a model: whole numbers are the model's, texts are its names.

    So are numbers where the model's names are numbers. Texts that are none of its names keep their own, for
    `match_classes` to judge. Raises ConfigError, naming the row, for a number that the model has not.
    """
    feature, known = dataset.features[label], model_names(id2label)
    if isinstance(feature, datasets.ClassLabel):
        return dataset
    values = label_values(dataset, label)
    if feature.dtype in ("string", "large_string"):
        texts = {name for name in map(_text, values) if name is not None}
        if twice := sorted(texts & set(_repeated(known))):
            raise ConfigError("label", twice[0], f"is the name of several classes of the model: {_GIVE_NUMBERS}")
        return as_classes(dataset, label, known if texts <= set(known) else None)
    if feature.dtype != "bool" and all(map(_is_number, known)):
        return as_classes(dataset, label, known)
    numbers = [-1 if _text(value) is None else int(value) for value in values]
    for row, number in enumerate(numbers):
        if number >= len(known):
            raise ConfigError("label", number, f"row {row}: out of range, the model has {len(known)} classes from 0 on")
    return _with_labels(dataset, label, numbers, known)


def check_labels(dataset: "datasets.Dataset", label: str) -> None:
    """Raise ConfigError, naming the first row, for examples without a class and for numbers that no class has."""
    classes, numbers = dataset.features[label].num_classes, label_values(dataset, label)
    without = [row for row, number in enumerate(numbers) if number is None or number < 0]
    if without:
        rule = f"{len(without)} of {len(numbers)} examples have no class, the first is {without[0]}"
        raise ConfigError("label_column_name", label, f"{rule}: take another split, or leave them out")
    beyond = [row for row, number in enumerate(numbers) if number >= classes]
    if beyond:
        rule = f"{len(beyond)} labels are out of range, the first is {numbers[beyond[0]]} in row {beyond[0]}"
        raise ConfigError("label_column_name", label, f"{rule}: there are {classes} classes, from 0 on")


def _text(value: Any) -> str | None:
    """A label as a class's name; None for -1, NaN and what is empty. Raises ConfigError for a fraction."""
    if isinstance(value, float):
        if value != value:
            return None
        if not value.is_integer():
            raise ConfigError("label", value, "must be a whole number or a text: is this a column of classes?")
        value = int(value)
    if value is None or value == "" or (value == -1 and not isinstance(value, bool)):
        return None
    return class_name(str(value))


def _with_labels(
    dataset: "datasets.Dataset", label: str, numbers: list[int], names: Sequence[str]
) -> "datasets.Dataset":
    """A dataset with other labels (N,), as classes of these names, or of their numbers where names repeat.

    The images stay where they are: datasets would copy those of a selection to disk to add a column.
    """
    rows, column = table_rows(dataset), np.asarray(numbers, np.int64)
    if rows is not None:
        column = np.full(dataset.data.num_rows, -1, np.int64)
        column[rows.to_numpy()] = numbers
    whole = datasets.Dataset(dataset.data, dataset.info.copy(), dataset.split)
    names = _numbers(len(names)) if _repeated(names) else list(names)
    feature = datasets.ClassLabel(names=names)
    whole = whole.remove_columns(label).add_column(label, column.tolist(), feature=feature)  # pyright: ignore[reportCallIssue]
    return whole if rows is None else whole.select(rows.to_numpy(), keep_in_memory=True)


def _unnamed(classes: int) -> list[str]:
    return [f"LABEL_{number}" for number in range(classes)]


def _numbers(classes: int) -> list[str]:
    return [str(number) for number in range(classes)]


def _is_number(name: str) -> bool:
    return re.fullmatch(r"0|[1-9][0-9]*", name) is not None


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _shown(names: Sequence[str]) -> str:
    return shorten(list(names), 200)
