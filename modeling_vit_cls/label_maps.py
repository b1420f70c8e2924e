"""The label maps of any config.json, read as transformers reads them, with notes about inconsistencies."""

import operator
from collections.abc import Mapping
from contextlib import suppress
from numbers import Integral
from typing import Any

from .config_rules import MAX_LABELS, RULES
from .errors import ConfigError, shorten

LABEL_FIELDS = ("id2label", "label2id", "num_labels")


class LabelMap(dict[int, str]):
    """{class: name} from a file. A missing class has the name LABEL_i, as in transformers."""

    def __missing__(self, index: Any) -> str:
        try:
            return f"LABEL_{operator.index(index)}"
        except TypeError:
            raise KeyError(index) from None


def numbered(id2label: Any) -> LabelMap:
    """{class: name} of a config's `id2label`, whose keys are texts where a program took it from JSON.

    Raises ConfigError for anything but names by numbers.
    """
    return LabelMap(_names(id2label))


def read_labels(fields: Mapping[str, Any], classes: int | None = None) -> tuple[dict[str, Any], list[str]]:
    """Make id2label, label2id and num_labels of a config.json consistent: -> (these fields, notes on what was not).

    `id2label` decides, and `label2id` becomes its inverse. Without an `id2label`, a `label2id` with each class once
    decides. `classes` is the number of outputs of the weights, if known: names for another number of classes are
    dropped. Raises ConfigError for a label map that does not map numbers to names.
    """
    count, notes = fields.get("num_labels"), []
    if count is not None and not RULES["num_labels"][0](count):
        raise ConfigError("num_labels", count, RULES["num_labels"][1])
    names, inverse = _names(fields.get("id2label")), _indices(fields.get("label2id"))
    if not names and inverse and sorted(inverse.values()) == list(range(len(inverse))):
        names = {index: name for name, index in inverse.items()}
    elif not names and inverse:
        problem = "does not have each class once, and there is no id2label: it is ignored"
        notes.append(f"label2id={shorten(inverse)} {problem}")
    if names and classes is not None and len(names) != classes:
        if set(names) <= set(range(classes)):
            notes.append(f"id2label has {len(names)} names, the classifier {classes} outputs: the others are LABEL_i")
            names = {index: names.get(index, f"LABEL_{index}") for index in range(classes)}
        elif count == classes:
            notes.append(f"id2label has {len(names)} names, the classifier {classes} outputs: names are LABEL_0, ...")
            names = {}
    if not names:
        return ({} if count is None else {"num_labels": count}), notes
    names = dict(sorted(names.items()))
    if count not in (None, len(names)):
        notes.append(f"num_labels={count}, but id2label has {len(names)} names: id2label is used")
    unnamed = [index for index in range(len(names)) if index not in names]
    if unnamed:
        beyond = [f"{index}: {name!r}" for index, name in names.items() if not 0 <= index < len(names)]
        notes.append(
            f"id2label has no name for class {shorten(unnamed)[1:-1]}: its name is LABEL_{unnamed[0]}; "
            f"these names have numbers beyond the outputs: {shorten(', '.join(beyond))[1:-1]}"
        )
    label2id = {name: index for index, name in names.items()}
    if inverse and set(inverse) == set(label2id) and all(names.get(i) == name for name, i in inverse.items()):
        label2id = inverse  # two classes may have one name, as ImageNet's crane: label2id has one of them
    elif inverse:
        notes.append(f"label2id={shorten(inverse)} is not the inverse of id2label: id2label is used")
    return {"id2label": LabelMap(names), "label2id": label2id, "num_labels": len(names)}, notes


def labels_that_stay(fields: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields about labels of a config.json that stay where the fields in `given` replace them.

    All stay if none is given, or only the number of classes that there are. Else the head is new, and none stays.
    """
    if not given:
        return read_labels(fields)[0]
    if set(given) == {"num_labels"}:
        with suppress(ConfigError):  # of label maps that are replaced
            labels, _ = read_labels(fields)
            if len(labels.get("id2label", ())) == given["num_labels"]:
                return labels
    return {}


def _names(value: Any) -> dict[int, str]:
    """{class: name} of an id2label. A number as a name becomes text, and null becomes LABEL_i."""
    if not value:
        return {}
    rule = "must map numbers of classes to names"
    if not isinstance(value, dict) or len(value) > MAX_LABELS:
        raise ConfigError("id2label", value, rule)
    if not all(name is None or isinstance(name, str | int | float) for name in value.values()):
        raise ConfigError("id2label", value, rule)
    try:
        names = {int(index): name for index, name in value.items()}
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError("id2label", value, rule) from error
    if len(names) < len(value) or max(map(abs, names)) > 10 * MAX_LABELS:
        raise ConfigError("id2label", value, rule)
    return {index: f"LABEL_{index}" if name is None else str(name) for index, name in names.items()}


def _indices(value: Any) -> dict[str, int]:
    """{name: class} of a label2id; -1 for a value that is not a number."""
    if not value:
        return {}
    if not isinstance(value, dict) or len(value) > MAX_LABELS:
        raise ConfigError("label2id", value, "must map names to numbers of classes")
    return {str(name): class_index(index) for name, index in value.items()}


def class_index(value: Any) -> int:
    """The number of a class, also from text as in JSON; -1 for anything else."""
    is_number = isinstance(value, Integral | str) and str(value)[:9].isdecimal() and len(str(value)) < 9
    return int(value) if is_number else -1
