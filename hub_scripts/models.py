"""`vit-cls models [PATTERN]`: list the checkpoints of the catalogue."""

import argparse
import json
from dataclasses import asdict

from modeling_vit_cls.catalogue import CatalogueRow, list_pretrained

from .matching import matching

_HEAD = ("Hub id", "family", "variant", "parameters", "image", "top-1", "licence", "pretraining data")


def run(arguments: argparse.Namespace) -> None:
    """Print the matching rows of the catalogue. Raises ValueError if none matches."""
    rows = matching(list_pretrained, arguments.pattern, "checkpoint", "models")
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    lines = [_HEAD, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def _cells(row: CatalogueRow) -> tuple[str, ...]:
    """What is shown of a row; "-" for what is not known."""
    image = "x".join(map(str, row.image_size))
    top1 = "" if row.top1 is None else f"{row.top1:.1f}"
    cells = (row.hub_id, row.family, row.variant, f"{row.parameters:,}", image, top1, row.licence, row.data)
    return tuple(cell or "-" for cell in cells)
