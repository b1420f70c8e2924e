"""Escape text for Markdown: it is shown as it is, never as a link, mention, formula, picture, tag or heading."""

import re
from typing import Any

from ..errors import one_line

# Renderers act on these even if they are escaped, except in code.
_ACTIVE = re.compile(
    r"@|://|www\.|mailto:|\w\.[a-z]{2,}(/|\b)|:\w[\w+-]*:|\\|\$.*\$|&#?\w+;|(javascript|data|vbscript):", re.IGNORECASE
)


def markdown(text: Any, in_table: bool = False) -> str:
    """One line of Markdown that shows `text`. A text that could become a link, mention or formula is set as code."""
    line = one_line(text)
    if _ACTIVE.search(line):
        parts = line.split("|") if in_table else [line]
        return r"\|".join(_code(part) if part else "" for part in parts)
    return re.sub(r"([\\`*_\[\]<>|#~&$!{}=])", r"\\\1", line)


def cell(text: Any) -> str:
    """As `markdown`, for a cell of a table, where a bar ends the cell even in code."""
    return markdown(text, in_table=True)


def _code(line: str) -> str:
    """A code span, between more backticks than it contains in a row."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"
