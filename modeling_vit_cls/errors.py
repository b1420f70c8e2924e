"""The three errors of the package: each says what was expected, what came, and what to do."""


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
    if "\n" in text:  # of an array
        text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
