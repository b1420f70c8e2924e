"""The table of checkpoint families for docs/families.md, as measured now: `make parity` prints it.

A row is a family: what it was tested against, where it can be exported to, the largest difference from its own library.
"""

import contextlib
import logging
import re
import tempfile
from collections import defaultdict
from pathlib import Path

import cpu_torchvision  # noqa: F401 (before transformers, which imports torchvision)
from test_families import FOLDERS, differences, load, weights

from modeling_vit_cls import ConfigError, export_pretrained
from modeling_vit_cls.families.open import open_checkpoint


def targets(folder: Path) -> set[str]:
    """Where a golden checkpoint can go."""
    model, found = load(folder)[0], set()
    for to in ("transformers", "timm"):
        with contextlib.suppress(ConfigError), tempfile.TemporaryDirectory() as out:
            export_pretrained(model, out, to)
            found.add(to)
    return found


def main() -> None:
    """Print the table."""
    logging.disable()  # what an export says of each is no part of the table
    rows = defaultdict(list)
    for folder in FOLDERS:
        rows[open_checkpoint(weights(folder)).family.name].append(folder)
    print("| family | tested with | goes out to | largest difference | at another size |\n|---|---|---|---|---|")
    for family, folders in rows.items():
        versions = re.sub(r"\+\w+", "", (folders[0] / "versions.txt").read_text().strip())
        to = sorted(set.union(*(targets(folder) for folder in folders)))
        found = [differences(folder).items() for folder in folders]
        native, other = (
            max((value for items in found for name, value in items if name.startswith(kind)), default=float("nan"))
            for kind in ("native", "other")
        )
        print(f"| {family} | {versions} | {', '.join([*to, 'onnx', 'stablehlo'])} | {native:.1e} | {other:.1e} |")


if __name__ == "__main__":
    main()
