"""Reading YAML that anyone may have written: one kind of error for all that can be wrong with it."""

from typing import Any

import yaml


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises ValueError, in one line, where it is none, or nested too deeply to be read."""
    try:
        return yaml.safe_load(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
    ) as error:  # dates and keys that cannot be
        raise ValueError(" ".join(str(error).split())[:200]) from error
