"""What becomes of damaged files and killed saves, in this package and in transformers' FlaxViT, on the same faults.

`make faults`, where transformers 4.57 is installed. The faults are those of
`tests/test_fault_corruptions.py`; kills come at random instants of a save over a good checkpoint.
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
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from transformers import FlaxViTForImageClassification, ViTConfig
from transformers.utils import logging

from modeling_vit_cls import FlaxViTClsForImageClassification, ViTClsConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from test_fault_corruptions import FAULTS, corrupted

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
SIZES |= {"image_size": 32, "patch_size": 8, "num_labels": 10}


class Package(NamedTuple):
    """A package, as a model of its own: how it saves, what it loads, and where its weights then lie."""

    name: str
    file: str
    model: Any
    save: Callable[[Path, Any], None]
    load: Callable[[Path], Any]


def packages() -> list[Package]:
    """This package, and FlaxViT with each of its two formats."""
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
    """Whether two trees hold the same numbers."""
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b))
    )


def corruptions(package: Package, folder: Path, cases: int) -> Counter[str]:
    """What came of loads after one fault each."""
    params, found, chance = package.model.params, Counter(), random.Random(0)
    package.save(folder, params)
    file = folder / package.file
    whole = file.read_bytes()
    for case in range(cases):
        file.write_bytes(corrupted(whole, FAULTS[case % len(FAULTS)], chance))
        try:
            loaded = package.load(folder)
        except Exception as error:
            found["error that names the file" if str(folder) in str(error) else "error without the file"] += 1
        else:
            found["the same weights" if same(loaded, params) else "other weights, no error"] += 1
    return found


def kills(package: Package, folder: Path, cases: int) -> Counter[str]:
    """What lay in the folder after saves, killed at random instants, over a good checkpoint."""
    old = jax.tree.map(np.asarray, package.model.params)
    new, found, chance = jax.tree.map(lambda leaf: leaf + 1, old), Counter(), random.Random(0)
    package.save(folder, old)
    start = time.perf_counter()
    package.save(folder, old)
    window = time.perf_counter() - start
    while found.total() < cases:
        package.save(folder, old)
        if (child := os.fork()) == 0:
            signal.setitimer(signal.ITIMER_REAL, max(window * chance.random(), 1e-5))  # SIGALRM kills: no handler
            package.save(folder, new)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            continue  # it had ended before
        try:
            loaded = package.load(folder)
        except Exception:
            found["no checkpoint left"] += 1
        else:
            found["the old or the new one" if same(loaded, old) or same(loaded, new) else "a mixture, no error"] += 1
    return found


def main() -> None:
    """Print one table for the corruptions and one for the kills."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corruptions", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=200)
    arguments = parser.parse_args()
    logging.set_verbosity(logging.CRITICAL)
    print(", ".join(f"{package} {version(package)}" for package in ("transformers", "flax", "jax", "safetensors")))
    for what, cases in ((corruptions, arguments.corruptions), (kills, arguments.kills)):
        for package in packages():
            with tempfile.TemporaryDirectory() as name:
                found = what(package, Path(name) / "checkpoint", cases)
            said = ", ".join(f"{count:,} {outcome}" for outcome, count in found.most_common())
            print(f"{cases:,} {what.__name__}, {package.name}: {said}", flush=True)


if __name__ == "__main__":
    main()
