"""Seconds of `vit-cls predict` on one image, from the start of the process: `python -m benchmarks.start`.

The model is a ViT-B/16 with random weights. The first run compiles; later runs use its cached programs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from modeling_vit_cls import FlaxViTClsForImageClassification, ViTClsConfig

from .report import write


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Seconds of one run of a command. Raises CalledProcessError if it fails."""
    start = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Measure, print and write results/start.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = ViTClsConfig.from_variant("vit_cls_base_patch16_224")
        FlaxViTClsForImageClassification(config).save_pretrained(folder / "model")
        pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "image.png")
        environment = os.environ | {"HF_HOME": str(folder / "home"), "TRANSFORMERS_VERBOSITY": "error"}
        predict = [sys.executable, "-m", "hub_scripts", "predict", str(folder / "model"), str(folder / "image.png")]
        first = seconds(predict, environment)
        later = statistics.median(seconds(predict, environment) for _ in range(rounds))
        imports = [sys.executable, "-c", "import modeling_vit_cls"]
        imported = statistics.median(seconds(imports, environment) for _ in range(rounds))
    lines = ["| from the start of the process | seconds |", "|---|---|", f"| first predict | {first:.2f} |"]
    lines += [
        f"| later ones, median of {rounds} | {later:.2f} |",
        f"| import alone, median of {rounds} | {imported:.2f} |",
    ]
    write("start", lines)


if __name__ == "__main__":
    main()
