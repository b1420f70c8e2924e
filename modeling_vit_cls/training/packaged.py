"""The recipes that come with the package, by name, and what the head of each says: cost, accuracy, command."""

from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path

from ..errors import ConfigError, did_you_mean
from ..files.yaml_text import parse_yaml

HEAD = "about"  # the key of a recipe's head, which is no field of the run


@dataclass(frozen=True)
class Head:
    """What a recipe trains, what it costs, the accuracy to expect ("not measured" where it was not), its command."""

    trains: str
    cost: str
    accuracy: str
    command: str


def find_recipe(name: str | Path) -> Path:
    """A recipe's file, by its path or its name in the package. Raises ConfigError where there is neither."""
    path = Path(name)
    named = {recipe.stem: recipe for recipe in packaged_recipes()}
    if not path.is_file() and str(name) in named:  # a folder of the name may be that of an earlier run
        return named[str(name)]
    if not path.exists():
        hint = did_you_mean(path.stem, named)
        rule = f"there is no such file; recipes of the package are {', '.join(named)}{hint}; see `vit-cls recipes`"
        raise ConfigError("recipe", str(name), rule)
    return path


def packaged_recipes(pattern: str = "*") -> list[Path]:
    """The package's recipes whose name matches a shell wildcard, or has `pattern` in it.

    They are inside the package where it was installed from a wheel, and beside it in a checkout.
    """
    package = Path(__file__).parents[1]
    folders = (package / "configuration", package.parent / "configuration")
    everything = next((recipes for folder in folders if (recipes := sorted(folder.glob("*.yaml")))), [])
    return [recipe for recipe in everything if fnmatchcase(recipe.stem, pattern) or pattern in recipe.stem]


def read_head(recipe: Path) -> Head:
    """The head of a recipe of the package. Raises ConfigError, naming the file, where it has none or not all of it."""
    head, names = parse_yaml(recipe.read_text(encoding="utf-8")).get(HEAD), [field.name for field in fields(Head)]
    if not isinstance(head, dict) or list(head) != names or not all(isinstance(text, str) for text in head.values()):
        raise ConfigError(HEAD, head, f"{recipe}: must have the texts {', '.join(names)}, in this order")
    return Head(**head)
