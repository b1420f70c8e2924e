"""Checks of a dataclass's values against their annotations, the same in Python and on the command line."""

import dataclasses
import os
from enum import Enum
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from ..errors import ConfigError, did_you_mean

_LARGEST = 2**53  # the largest integer range that a float holds exactly


def check_fields(instance: Any) -> None:
    """Convert each field's value to its annotated type. Raises ConfigError, naming the field, if that is not possible.

    NumPy's numbers, members of transformers' enums, paths and tuples are converted. A text is never a number or a
    bool, a bool is never a number, and 2.5 is not an int. Fields of other types, in a subclass, are not changed.
    """
    for name, kind in _kinds(type(instance)).items():
        setattr(instance, name, _converted(name, getattr(instance, name), kind))


@cache
def _kinds(cls: type) -> dict[str, Any]:
    """The annotations of a dataclass's fields. `field.type` is not used, because HfArgumentParser overwrites it."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _converted(name: str, value: Any, kind: Any) -> Any:
    if get_origin(kind) in (Union, UnionType):
        if value is None:
            return None
        kind, *more = (part for part in get_args(kind) if part is not NoneType)
        if more:
            return value
    value = value.value if isinstance(value, Enum) else value
    if get_origin(kind) is Literal:
        return _choice(name, value, get_args(kind))
    if get_origin(kind) is list:
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise ConfigError(name, value, "must be a list of texts")
        return list(value)
    convert = {bool: _truth, int: _whole, float: _number, str: _text}.get(kind)
    return value if convert is None else convert(name, value)


def _choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        hint = did_you_mean(value, allowed) if isinstance(value, str) else ""
        raise ConfigError(name, value, f"must be one of {', '.join(map(repr, allowed))}{hint}")
    return value


def _truth(name: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise ConfigError(name, value, "must be True or False, without quotes")
    return bool(value)


def _whole(name: str, value: Any) -> int:
    number = _number(name, value, "must be a whole number")
    if number != int(number):
        raise ConfigError(name, value, "must be a whole number")
    return int(number)


def _number(name: str, value: Any, rule: str = "must be a number") -> int | float:
    if isinstance(value, str):
        raise ConfigError(name, value, f"{rule}: write it without quotes")
    number: Any = value
    if isinstance(value, bool) or not isinstance(value, Real) or number != number:  # NaN
        raise ConfigError(name, value, rule)
    if not -_LARGEST < number < _LARGEST:
        raise ConfigError(name, value, f"{rule} between -2**53 and 2**53")
    return int(value) if isinstance(value, Integral) else float(value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(name, value, "must be a text")
    return os.fspath(value)
