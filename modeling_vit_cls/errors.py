"""The three errors of the package. Their messages tell what was expected, what came, and what to do."""

import difflib
import re
from collections.abc import Iterable


class ConfigError(ValueError):
    """A wrong setting or contradictory settings. The message has the field, its value and the rule that it breaks."""

    def __init__(self, field: str, value: object, rule: str):
        self.field, self.value, self.rule = field, value, rule
        super().__init__(f"{field}={shorten(value)}: {rule}")

    def __reduce__(self):
        return type(self), (self.field, self.value, self.rule)


class CheckpointError(OSError):
    """A checkpoint that cannot be found, read, trusted or written. The message names the file and often the tensor."""


class BadImageError(ValueError):
    """An image or a batch of pixels that cannot be used. The message has what was expected and what came."""


def shorten(value: object, limit: int = 80) -> str:
    """The `repr` of any value on one line, cut to `limit` characters, for messages."""
    try:
        text = repr(value)
    except Exception as error:  # a repr that fails, or an integer too long to print
        text = f"<{type(value).__name__}: {type(error).__name__}>"
    text = " ".join(line.strip() for line in text.splitlines())  # the repr of a dataset has several
    return text if len(text) <= limit else text[: limit - 3] + "..."


def nearest(name: object, names: Iterable[str]) -> str | None:
    """The most similar of `names`, or None if none is similar."""
    return next(iter(difflib.get_close_matches(str(name), list(names), 1)), None)


def did_you_mean(name: object, names: Iterable[str], form: str = "{!r}") -> str:
    """ "; did you mean 'name'?" with the most similar of `names` in `form`, or ""."""
    near = nearest(name, names)
    return "" if near is None else f"; did you mean {form.format(near)}?"


def one_line(text: object) -> str:
    """Any text on one line, without unprintable characters: control codes, and marks that reverse the direction."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())


def without_token(text: str, token: str | None) -> str:
    """A text with `token` and all others of the Hub replaced by ***: the answer of a server may repeat the request."""
    return re.sub(r"hf_[A-Za-z0-9]{8,}", "***", text.replace(token, "***") if token else text)
