"""Keywords of transformers that mean nothing here, in tables: some are ignored, others refused with a remedy."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from .errors import ConfigError

# By name: whether a value changes nothing, so that it is taken; and what to do instead of any other value.
Refused = Mapping[str, tuple[Callable[[Any], bool], str]]


def without(keywords: Mapping[str, Any], ignored: Collection[str], refused: Refused) -> dict[str, Any]:
    """The keywords that are in no table. Raises ConfigError, with the remedy, for a value that is refused."""
    for name, value in keywords.items():
        if name in refused and not refused[name][0](value):
            raise ConfigError(name, value, refused[name][1])
    return {name: value for name, value in keywords.items() if name not in (*ignored, *refused)}
