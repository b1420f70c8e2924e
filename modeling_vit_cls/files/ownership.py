"""Whose the files of a model folder are: those of an earlier save of ours go with its weights, the user's own stay."""

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

# The last line of a card: who wrote it, and the digest of what stands above. A card that was edited is somebody's own.
_SIGNATURE = "<!-- Written by vit-cls ({}). Once edited, it is left alone. -->\n"


def signed(card: str) -> str:
    """A card with its last line."""
    return card + _SIGNATURE.format(hashlib.sha256(card.encode()).hexdigest()[:16])


def is_our_card(file: Path) -> bool:
    """Whether a README.md is as we wrote it."""
    text, _, last = file.read_text(encoding="utf-8", errors="replace").rpartition("<!--")
    return f"<!--{last}" == signed(text)[len(text) :]


def pictures_of(card: Path) -> set[str]:
    """Names of the pictures that a README.md shows, as we wrote it; none where it is somebody's own, or not there."""
    if not (card.is_file() and is_our_card(card)):
        return set()
    text = card.read_text(encoding="utf-8")
    return {name for name in PICTURES if f"]({name})" in text}


class Outdated:
    """Which files of a folder go when a new model is saved into it.

        Those of the old checkpoint, its programs and a trainer's state always do. What was measured of the old model
        (results, card, pictures, recipe) goes with its weights, and stays where there are none, or the new ones and
    their image processor are the same. README.md, results.json and recipe.yaml go only as we wrote them: one that
    somebody else wrote or edited stays. Pictures go with the card that shows them. `new` is the folder that the new
    model is written to.
    """

    def __init__(self, folder: Path):
        self.folder, self.new = folder, folder

    def __call__(self, name: str) -> bool:
        """Whether a file goes, by its path relative to the folder."""
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
        return name not in PICTURES or name in self._shown

    @cached_property
    def _holds_weights(self) -> bool:
        return any(is_weight_file(entry.name) for entry in self.folder.iterdir())

    @cached_property
    def _shown(self) -> set[str]:
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
    """What the weight files say that they belong to; {None} where they cannot be read or are not ours."""
    try:
        return {tensor.stamp for tensor in read_weights(folder).values()}
    except CheckpointError:
        return {None}


def _is_results(fields: dict[str, Any]) -> bool:
    """Whether a results.json is one of ours."""
    return {"model", "dataset", "metrics", "recipe", "versions", "hardware"} <= set(fields)


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except CheckpointError:  # it is nothing of ours
        return {}


def _recipe(file: Path) -> Any:
    try:
        return parse_yaml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
