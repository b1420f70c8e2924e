"""The names of splits and their usual spellings."""

_SPELLINGS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_NAMES = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}


def split_name(spelling: str) -> str | None:
    """The split that a name spells ("Val" -> "validation"); None for any other name."""
    return _NAMES.get(spelling.lower())


def find_split(wanted: str, splits: list[str]) -> str | None:
    """The one of `splits` that is wanted: by its own name, or else by another spelling of it."""
    if wanted in splits:
        return wanted
    name = split_name(wanted)
    return next((split for split in splits if name is not None and split_name(split) == name), None)
