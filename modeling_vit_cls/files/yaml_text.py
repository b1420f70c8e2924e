"""Reading YAML, which may come from anyone: every problem is a ValueError."""

from typing import Any

import yaml


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises ValueError, in one line, if the text is invalid or nested too deeply."""
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
    ) as error:  # also impossible dates and keys
        raise ValueError(" ".join(str(error).split())[:200]) from error
