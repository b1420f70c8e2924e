"""`vit-cls variants [PATTERN]`: list the named architectures and their sizes."""

import argparse
import json
from typing import Any

from modeling_vit_cls import ViTClsConfig, list_variants
from modeling_vit_cls.nn.flops import gflops_per_image
from modeling_vit_cls.variants import VARIANTS

from .matching import matching


def run(arguments: argparse.Namespace) -> None:
    """Print the table of matching variants. Raises ValueError if none matches."""
    rows = [_row(name) for name in matching(list_variants, arguments.pattern, "variant", "variants")]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    # The header names the unit, because papers count multiply-adds as GFLOPs, which gives half the number.
    print(f"{'name':<28}{'parameters':>13}{'GFLOPs (2 per multiply-add)':>29}{'GMACs (papers: GFLOPs)':>24}  source")
    for row in rows:
        sizes = f"{row['parameters']:>13,}{row['gflops_per_image']:>29.1f}{row['gmacs_per_image']:>24.1f}"
        print(f"{row['name']:<28}{sizes}  {row['source']}")


def _row(name: str) -> dict[str, Any]:
    gflops = gflops_per_image(ViTClsConfig.from_variant(name, num_labels=1000))
    row = VARIANTS[name]
    work = {"gflops_per_image": round(gflops, 2), "gmacs_per_image": round(gflops / 2, 3)}
    return {"name": name, "parameters": row.parameters, **work, "source": row.source}
