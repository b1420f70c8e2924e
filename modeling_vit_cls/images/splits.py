"""Names of splits and their usual spellings."""

_SPELLINGS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_NAMES = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}


def split_name(spelling: str) -> str | None:
    """The name of a split from one of its spellings ("Val" -> "validation"); None for any other text."""
    return _NAMES.get(spelling.lower())


def find_split(wanted: str, splits: list[str]) -> str | None:
    """The name in `splits` that equals `wanted`, or else is another spelling of it; None where there is none."""
    if wanted in splits:
        return wanted
    name = split_name(wanted)
    return next((split for split in splits if name is not None and split_name(split) == name), None)
