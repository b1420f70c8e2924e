"""The names that a PATTERN of the command line stands for."""

from collections.abc import Callable
from typing import Any


def matching(names_of: Callable[[str], Any], pattern: str, kind: str, verb: str) -> Any:
    """What `names_of` gives for a shell wildcard, or for a word anywhere in the name. Raises ValueError for nothing."""
    found = names_of(pattern) or (names_of(f"*{pattern}*") if not set(pattern) & set("*?[") else None)
    if not found:
        raise ValueError(f"no {kind} matches {pattern!r}; `vit-cls {verb}` lists them all")
    return found
