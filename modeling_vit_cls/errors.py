"""The three errors of the package: each says what was expected, what came, and what to do."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A configuration that contradicts itself: names the field, the value found and the rule it breaks."""

    def __init__(self, field: str, value: object, rule: str):
        self.field, self.value, self.rule = field, value, rule
        super().__init__(f"{field}={shorten(value)}: {rule}")

    def __reduce__(self):
        return type(self), (self.field, self.value, self.rule)


class CheckpointError(OSError):
    """Weights that cannot be read, found, trusted or written: names the file and, where it has one, the tensor."""


class BadImageError(ValueError):
    """An image or a batch of pixels that the model cannot take: names what was expected and what came."""


def shorten(value: object, limit: int = 80) -> str:
    """`repr` of any value, cut to `limit` characters, so that a message stays one readable line."""
    try:
        text = repr(value)
    except Exception as error:  # a value whose own repr fails, or an integer too long to print
        text = f"<{type(value).__name__}: {type(error).__name__}>"
    text = " ".join(line.strip() for line in text.splitlines())  # a dataset's repr has several
    return text if len(text) <= limit else text[: limit - 3] + "..."


def nearest(name: object, names: Iterable[str]) -> str | None:
    """The one of `names` that is spelt most like `name`, if one is."""
    return next(iter(difflib.get_close_matches(str(name), list(names), 1)), None)


def did_you_mean(name: object, names: Iterable[str], form: str = "{!r}") -> str:
    """ "; did you mean 'name'?" for the nearest of `names`, written in `form`, or nothing."""
    near = nearest(name, names)
    return "" if near is None else f"; did you mean {form.format(near)}?"


def one_line(text: object) -> str:
    """Any text on one line, without what cannot be printed: control characters, and marks that reverse its order."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())
