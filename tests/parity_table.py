"""The table of checkpoint families for docs/families.md, as measured now: `make parity` prints it.

A row is a family: what it was tested against, where it can be exported to, the largest difference from its own library.
On the golden files of tests/golden, without VIT_CLS_GOLDEN, it also writes benchmarks/results/parity.md: run it as
`make parity` does, without that variable.
"""

import contextlib
import logging
import os
import re
import tempfile
from collections import defaultdict
from pathlib import Path

import cpu_torchvision  # noqa: F401 (before transformers, which imports torchvision)
from test_families import FOLDERS, differences, load, weights

from benchmarks.report import write
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
    """Print the table, or print and write it."""
    logging.disable()  # what an export says of each is no part of the table
    rows = defaultdict(list)
    for folder in FOLDERS:
        rows[open_checkpoint(weights(folder)).family.name].append(folder)
    lines = ["| family | tested with | goes out to | largest difference | at another size |", "|---|---|---|---|---|"]
    for family, folders in rows.items():
        versions = re.sub(r"\+\w+", "", (folders[0] / "versions.txt").read_text().strip())
        to = sorted(set.union(*(targets(folder) for folder in folders)))
        found = [differences(folder).items() for folder in folders]
        native, other = (
            max((value for items in found for name, value in items if name.startswith(kind)), default=float("nan"))
            for kind in ("native", "other")
        )
        cells = [family, versions, ", ".join([*to, "onnx", "stablehlo"]), f"{native:.1e}", f"{other:.1e}"]
        lines.append(f"| {' | '.join(cells)} |")
    if "VIT_CLS_GOLDEN" in os.environ:
        print("\n".join(lines))
    else:
        write("parity", lines)


if __name__ == "__main__":
    main()
