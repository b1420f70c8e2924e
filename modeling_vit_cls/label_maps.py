"""The label maps of a config.json as people have them: read as transformers reads them, and what is odd is said."""

import operator
from collections.abc import Mapping
from typing import Any

from .config_rules import MAX_LABELS, RULES
from .errors import ConfigError, shorten

LABEL_FIELDS = ("id2label", "label2id", "num_labels")


class LabelMap(dict[int, str]):
    """{class: name} as a file has it; a class that it leaves out is called LABEL_i, as in transformers."""

    def __missing__(self, index: Any) -> str:
        try:
            return f"LABEL_{operator.index(index)}"
        except TypeError:
            raise KeyError(index) from None


def read_labels(fields: Mapping[str, Any], classes: int | None = None) -> tuple[dict[str, Any], list[str]]:
    """id2label, label2id and num_labels of a config.json -> these three in agreement, and what was not.

    `id2label` says; `label2id` is its inverse, whatever the file has. Without it `label2id` says, where it leads to
    each class once. `classes` is the number of outputs that the weights have, where it is known: names of another head
    give way to it. Raises ConfigError for what is no map from numbers to names.
    """
    count, said = fields.get("num_labels"), []
    if count is not None and not RULES["num_labels"][0](count):
        raise ConfigError("num_labels", count, RULES["num_labels"][1])
    names, inverse = _names(fields.get("id2label")), _indices(fields.get("label2id"))
    if not names and inverse and sorted(inverse.values()) == list(range(len(inverse))):
        names = {index: name for name, index in inverse.items()}
    elif not names and inverse:
        said.append(f"label2id={shorten(inverse)} does not lead to each class once, and there is no id2label: not read")
    if names and classes is not None and len(names) != classes:
        if set(names) <= set(range(classes)):
            names = {index: names.get(index, f"LABEL_{index}") for index in range(classes)}
        elif count == classes:
            said.append(f"id2label has {len(names)} names, the classifier {classes} outputs: LABEL_0 ... instead")
            names = {}
    if not names:
        return ({} if count is None else {"num_labels": count}), said
    names = dict(sorted(names.items()))
    if count not in (None, len(names)):
        said.append(f"num_labels={count}, but id2label has {len(names)} names: these are taken")
    unnamed = [index for index in range(len(names)) if index not in names]
    if unnamed:
        beyond = [f"{index}: {name!r}" for index, name in names.items() if not 0 <= index < len(names)]
        said.append(
            f"id2label has no name for class {shorten(unnamed)[1:-1]}, which is called LABEL_{unnamed[0]}; "
            f"no output has the numbers of {shorten(', '.join(beyond))[1:-1]}"
        )
    right = {name: index for index, name in names.items()}
    if inverse and set(inverse) == set(right) and all(names.get(i) == name for name, i in inverse.items()):
        right = inverse  # a text may stand for two classes, as ImageNet's crane: the way back leads to one of them
    elif inverse:
        said.append(f"label2id={shorten(inverse)} is not the inverse of id2label, which is taken")
    return {"id2label": LabelMap(names), "label2id": right, "num_labels": len(names)}, said


def _names(value: Any) -> dict[int, str]:
    """{class: name} of an id2label; numbers are names in words, a name that is null is LABEL_i."""
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
    """{name: class} of a label2id; -1 where there is no number."""
    if not value:
        return {}
    if not isinstance(value, dict) or len(value) > MAX_LABELS:
        raise ConfigError("label2id", value, "must map names to numbers of classes")
    return {str(name): _index(index) for name, index in value.items()}


def _index(value: Any) -> int:
    """A class's number, also from text that holds one, as JSON has it; -1 for anything else."""
    whole = isinstance(value, int | str) and str(value)[:9].isdecimal() and len(str(value)) < 9
    return int(value) if whole else -1
