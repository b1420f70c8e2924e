"""Which files of a model folder we wrote and may remove with its weights, and which belong to the user and stay."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..names import (
    CARD,
    PICTURES,
    PROCESSOR,
    RECIPE,
    RESULTS,
    is_checkpoint_file,
    is_measured_file,
    is_program_file,
    is_training_file,
    is_weight_file,
)
from .json_file import read_json
from .weights import read_weights
from .yaml_text import parse_yaml

# The last line of a card, with the digest of the text above it. A card that was edited since belongs to the user.
_SIGNATURE = "<!-- Written by vit-cls ({}). Once edited, it is left alone. -->\n"


def signed(card: str) -> str:
    """A card with our signature as its last line."""
    return card + _SIGNATURE.format(hashlib.sha256(card.encode()).hexdigest()[:16])


def is_signed(card: str) -> bool:
    """Whether we wrote a card and nobody edited it since."""
    text, _, last = card.rpartition("<!--")
    return f"<!--{last}" == signed(text)[len(text) :]


def is_our_card(file: Path) -> bool:
    """Whether we wrote a README.md and nobody edited it since."""
    return is_signed(file.read_text(encoding="utf-8", errors="replace"))


def pictures_of(card: Path) -> set[str]:
    """Names of the pictures in a README.md that is our card; none for any other README.md, and where it is missing."""
    if not (card.is_file() and is_our_card(card)):
        return set()
    text = card.read_text(encoding="utf-8")
    return {name for name in PICTURES if f"]({name})" in text}


class Outdated:
    """Which files of a folder are removed when a new model is saved into it.

    - The old checkpoint, its programs and a trainer's state are always removed.
    - What was measured of the old model (results, card, pictures, recipe) is removed with its weights. It stays if
      there are no weights, or if the new weights and image processor are the same.
    - README.md, results.json and recipe.yaml stay if the user wrote or edited them. Pictures are removed with the card
      that shows them.

    `new` is the folder that the new model is written to.
    """

    def __init__(self, folder: Path):
        self.folder, self.new = folder, folder

    def __call__(self, name: str) -> bool:
        """Whether a file is removed, by its path relative to the folder."""
        if is_checkpoint_file(name) or is_program_file(name) or is_training_file(name):
            return True
        return is_measured_file(name) and self._holds_weights and self._is_ours(name) and not self._is_same_model

    def _is_ours(self, name: str) -> bool:
        file = self.folder / name
        if not file.is_file():  # a pipe, or a link to nothing
            return False
        if name == CARD:
            return is_our_card(file)
        if name == RESULTS:
            return _is_results(_read(file))
        if name == RECIPE:
            results = _read(self.folder / RESULTS)
            return _is_results(results) and _recipe(file) == results["recipe"]
        return name not in PICTURES or name in self._card_pictures

    @cached_property
    def _holds_weights(self) -> bool:
        return any(is_weight_file(entry.name) for entry in self.folder.iterdir())

    @cached_property
    def _card_pictures(self) -> set[str]:
        return pictures_of(self.folder / CARD)

    @cached_property
    def _is_same_model(self) -> bool:
        stamps = _stamps(self.new)
        return (
            None not in stamps
            and stamps == _stamps(self.folder)
            and _read(self.new / PROCESSOR) == _read(self.folder / PROCESSOR)
        )


def _stamps(folder: Path) -> set[str | None]:
    """The stamps of a folder's weight files; {None} where they cannot be read or are not ours."""
    try:
        return {tensor.stamp for tensor in read_weights(folder).values()}
    except CheckpointError:
        return {None}


def _is_results(fields: dict[str, Any]) -> bool:
    """Whether the fields are those of our results.json."""
    return {"model", "dataset", "metrics", "recipe", "versions", "hardware"} <= set(fields)


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except CheckpointError:  # not a file that we wrote
        return {}


def _recipe(file: Path) -> Any:
    try:
        return parse_yaml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
