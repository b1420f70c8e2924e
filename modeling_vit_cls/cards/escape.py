"""Any text in Markdown, read as it is written: no link, mention, formula, picture, tag or heading comes of it."""

import re
from typing import Any

from ..errors import one_line

# What renderers act on wherever it stands, however it is escaped: in code alone they do not.
_ACTIVE = re.compile(
    r"@|://|www\.|mailto:|\w\.[a-z]{2,}(/|\b)|:\w[\w+-]*:|\\|\$.*\$|&#?\w+;|(javascript|data|vbscript):", re.IGNORECASE
)


def markdown(text: Any, in_table: bool = False) -> str:
    """One line of Markdown that reads as `text`; what could become a link, a mention or a formula is set as code."""
    line = one_line(text)
    if _ACTIVE.search(line):
        parts = line.split("|") if in_table else [line]
        return r"\|".join(_code(part) if part else "" for part in parts)
    return re.sub(r"([\\`*_\[\]<>|#~&$!{}=])", r"\\\1", line)


def cell(text: Any) -> str:
    """The same for a cell of a table, where a bar ends the cell even in code."""
    return markdown(text, in_table=True)


def _code(line: str) -> str:
    """A span of code, between more backticks than stand in it."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"
