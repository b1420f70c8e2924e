"""The catalogue: checkpoints of the Hub in the families that load, with published facts about each."""

import csv
import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("catalogue.csv")  # written by `make catalogue`


@dataclass(frozen=True)
class CatalogueRow:
    """One checkpoint. What is not known is "" or None.

    Attributes:
        hub_id: its repository on the Hub.
        family: library and kind, as `check_pretrained` names them.
        variant: the architecture, by the name that its library has for it.
        parameters: number of parameters, with the head if it has one.
        image_size: height and width in pixels.
        patch_size: side of a patch in pixels.
        hidden_size: width of the tokens.
        num_hidden_layers: number of blocks.
        intermediate_size: hidden features of the MLP.
        num_labels: number of outputs of the head, 0 without one.
        data: what it was pretrained on, then what it was fine-tuned on.
        licence: the identifier of its licence on the Hub.
        top1: published accuracy of its head on the validation images of ImageNet-1k, in percent.
        top1_source: who published it.
        keywords: arguments for `from_pretrained`: what config.json leaves out, or the readout that the card uses.
        source: where the other facts come from.
    """

    hub_id: str
    family: str
    variant: str
    parameters: int
    image_size: tuple[int, int]
    patch_size: int
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_labels: int
    data: str
    licence: str
    top1: float | None
    top1_source: str
    keywords: dict[str, Any]
    source: str


def list_pretrained(pattern: str = "*") -> list[CatalogueRow]:
    """The rows of the catalogue whose Hub id matches a shell wildcard, in the order of the table.

    The facts are published ones. Which rows load is a question to `check_pretrained`.
    """
    return [row for row in _rows() if fnmatchcase(row.hub_id, pattern)]


@cache
def _rows() -> tuple[CatalogueRow, ...]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(_row(**cells) for cells in csv.DictReader(file))


def _row(image_size: str, top1: str, keywords: str, **cells: str) -> CatalogueRow:
    """A row from the texts of its cells."""
    height, width = map(int, image_size.split("x"))
    numbers = {name: int(text) for name, text in cells.items() if CatalogueRow.__annotations__[name] is int}
    pairs = (pair.split("=") for pair in keywords.split())
    return CatalogueRow(
        **{**cells, **numbers},  # pyright: ignore[reportArgumentType]
        image_size=(height, width),
        top1=float(top1) if top1 else None,
        keywords={name: json.loads(value) for name, value in pairs},
    )
