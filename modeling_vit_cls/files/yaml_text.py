"""Reading YAML, which may come from anyone: every problem is a ValueError."""

import re
from typing import Any

import yaml

_FLOAT, _MERGE = "tag:yaml.org,2002:float", "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which refuses a key that a mapping has twice; PyYAML takes the last one."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # here, before `<<` merges in keys, which may be those of the mapping
        node: Any = super().compose_mapping_node(anchor)
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                name, line = self.construct_object(key), key.start_mark.line + 1
                if name in lines:
                    raise ValueError(
                        f"line {line}: the key {name!r} is given twice, first in line {lines[name]}: keep one"
                    )
                lines[name] = line
        return node


class _JSONLoader(_Loader):
    """A loader that also reads the numbers of JSON and YAML 1.2 that YAML 1.1 takes for texts: 1e-6."""


_JSONLoader.add_implicit_resolver(
    _FLOAT, re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def parse_yaml(text: str, numbers_of_json: bool = False) -> Any:
    """The value of a YAML text. 1e-6 is a text, as in YAML 1.1, or with `numbers_of_json` a number.

    Raises ValueError, in one line, if the text is invalid, has a key twice, or is nested too deeply.
    """
    try:
        return yaml.load(text, _JSONLoader if numbers_of_json else _Loader)  # both are safe loaders
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
