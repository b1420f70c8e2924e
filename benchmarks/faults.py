"""Results of loading damaged files and of killed saves, for this package and transformers' FlaxViT: `make faults`.

Needs transformers 4.57. The faults are those of `tests/test_fault_corruptions.py`. Saves over a good checkpoint are
killed at random instants. Writes results/faults.md.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from transformers import FlaxViTForImageClassification, ViTConfig
from transformers.utils import logging

from modeling_vit_cls import FlaxViTClsForImageClassification, ViTClsConfig

from .report import write

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from test_fault_corruptions import FAULTS, corrupted

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
SIZES |= {"image_size": 32, "patch_size": 8, "num_labels": 10}


class Package(NamedTuple):
    """A package to test: its model, the functions that save and load it, and the name of its weight file."""

    name: str
    file: str
    model: Any
    save: Callable[[Path, Any], None]
    load: Callable[[Path], Any]


def packages() -> list[Package]:
    """This package, and FlaxViT in each of its two file formats."""
    ours, theirs = (
        FlaxViTClsForImageClassification(ViTClsConfig(**SIZES)),
        FlaxViTForImageClassification(ViTConfig(**SIZES)),
    )

    def save(folder: Path, params: Any) -> None:
        ours.save_pretrained(folder, params=params)

    def save_safetensors(folder: Path, params: Any) -> None:
        theirs.save_pretrained(folder, params=params, safe_serialization=True)

    def save_msgpack(folder: Path, params: Any) -> None:
        theirs.save_pretrained(folder, params=params)

    def load(folder: Path) -> Any:
        return FlaxViTClsForImageClassification.from_pretrained(folder).params

    def load_theirs(folder: Path) -> Any:
        return FlaxViTForImageClassification.from_pretrained(folder).params

    return [
        Package("ours", "model.safetensors", ours, save, load),
        Package("FlaxViT, safetensors", "model.safetensors", theirs, save_safetensors, load_theirs),
        Package("FlaxViT, msgpack", "flax_model.msgpack", theirs, save_msgpack, load_theirs),
    ]


def same(a: Any, b: Any) -> bool:
    """Whether two trees have the same structure and numbers."""
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b))
    )


def corruptions(package: Package, folder: Path, cases: int) -> Counter[str]:
    """Load a file with one fault in each case, and count the outcomes."""
    params, outcomes, generator = package.model.params, Counter(), random.Random(0)
    package.save(folder, params)
    file = folder / package.file
    content = file.read_bytes()
    for case in range(cases):
        file.write_bytes(corrupted(content, FAULTS[case % len(FAULTS)], generator))
        try:
            loaded = package.load(folder)
        except Exception as error:
            outcomes["error that names the file" if str(folder) in str(error) else "error without the file"] += 1
        else:
            outcomes["the same weights" if same(loaded, params) else "other weights, no error"] += 1
    return outcomes


def kills(package: Package, folder: Path, cases: int) -> Counter[str]:
    """Kill a save over a good checkpoint at a random instant in each case, and count what is then in the folder."""
    old = jax.tree.map(np.asarray, package.model.params)
    new, outcomes, generator = jax.tree.map(lambda leaf: leaf + 1, old), Counter(), random.Random(0)
    package.save(folder, old)
    start = time.perf_counter()
    package.save(folder, old)
    window = time.perf_counter() - start
    while outcomes.total() < cases:
        package.save(folder, old)
        if (child := os.fork()) == 0:
            signal.setitimer(signal.ITIMER_REAL, max(window * generator.random(), 1e-5))  # SIGALRM kills
            package.save(folder, new)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            continue  # the save ended before the signal
        try:
            loaded = package.load(folder)
        except Exception:
            outcomes["no checkpoint left"] += 1
        else:
            is_complete = same(loaded, old) or same(loaded, new)
            outcomes["the old or the new one" if is_complete else "a mixture, no error"] += 1
    return outcomes


def main() -> None:
    """Print and write the outcomes of the corruptions and of the kills: a row for each, a column for each package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corruptions", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=200)
    arguments = parser.parse_args()
    logging.set_verbosity(logging.CRITICAL)
    names = [package.name for package in packages()]
    lines = [f"| | {' | '.join(names)} |", "|---|---|---|---|"]
    for experiment, cases in ((corruptions, arguments.corruptions), (kills, arguments.kills)):
        outcomes = {}
        for package in packages():
            with tempfile.TemporaryDirectory() as name:
                outcomes[package.name] = experiment(package, Path(name) / "checkpoint", cases)
        for outcome in sorted(set().union(*outcomes.values())):
            counts = [f"{outcomes[name][outcome]:,}" for name in names]
            lines.append(f"| {cases:,} {experiment.__name__}: {outcome} | {' | '.join(counts)} |")
    write("faults", lines)


if __name__ == "__main__":
    main()
