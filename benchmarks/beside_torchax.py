"""Beside torchax, which runs models of PyTorch on JAX: `python -m benchmarks.beside_torchax`.

The model is transformers' ViT, in float32. Each peer runs in its own process, and they take turns in rounds. Ratios by
the clock are best / median. All other times are seconds of a processor, which other work on the machine changes least:
of a step and of the import the best. Parity is the largest difference from PyTorch's logits, as a share of the largest
logit, for one checkpoint with random weights that all peers read. Writes results/torchax.md and results/torchax.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

from .report import RESULTS, machine, write
from .speed import measure
from .work import Work

WORKS = {f"{size}/16 float32, B=8": Work("inference", size, "float32", 8) for size in "SB"}
IMPORTS = {
    "ours": "from modeling_vit_cls import FlaxViTClsForImageClassification",
    "FlaxViT": "from transformers import FlaxViTForImageClassification",
    "torchax": "import benchmarks.torchax_peer",
    "HF torch": "from transformers import ViTForImageClassification",
}
HEAD = """| work | peer | ours to it | by processor time | import, s | first call, s | peak GB | parity |
|---|---|---|---|---|---|---|---|"""


def imports(rounds: int) -> dict[str, float]:
    """Processor seconds from the start of Python until each peer's class is imported, the best of some rounds."""
    times: dict[str, list[float]] = {peer: [] for peer in IMPORTS}
    for peer, line in IMPORTS.items():
        for _ in range(rounds):
            start = os.times()
            subprocess.run([sys.executable, "-W", "ignore", "-c", f"import benchmarks; {line}"], check=True)
            end = os.times()
            times[peer].append(end.children_user + end.children_system - start.children_user - start.children_system)
    return {peer: min(each) for peer, each in times.items()}


def parity(work: Work) -> dict[str, float]:
    """The largest difference of each peer's logits from PyTorch's, as a share of the largest logit."""
    import torch
    from transformers import FlaxViTForImageClassification, ViTConfig, ViTForImageClassification

    from modeling_vit_cls import FlaxViTClsForImageClassification

    from .torchax_peer import on_jax

    model = ViTForImageClassification(ViTConfig(**work.sizes, num_labels=1000)).eval()
    pixels = work.pixels[:2]
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        model.save_pretrained(folder)
        logits = {
            "ours": FlaxViTClsForImageClassification.from_pretrained(folder)(pixels).logits,
            "FlaxViT": FlaxViTForImageClassification.from_pretrained(folder, from_pt=True)(pixels).logits,
            "HF torch": model(torch.from_numpy(pixels)).logits.numpy(),
        }
    states, call = on_jax(model)
    logits["torchax"] = call(states, pixels)
    expected = logits["HF torch"]
    return {
        peer: float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())
        for peer, found in logits.items()
    }


def rows(measured: dict[str, Any]) -> list[str]:
    """Lines of the table."""
    lines = []
    for name, results in measured["works"].items():
        ours = results["ours"]
        for peer, item in results.items():
            ratios = {key: f"{ours[key] / item[key]:.2f}" for key in ("best", "median", "processor")}
            lines.append(
                f"| {name} | {peer} | {ratios['best']} / {ratios['median']} | {ratios['processor']} "
                f"| {measured['imports'][peer]:.1f} | {item['first_of_processor']:.1f} | {item['memory'] / 1e9:.2f} "
                f"| {item['parity']:.0e} |"
            )
    return lines


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    rounds = parser.parse_args().rounds
    measured: dict[str, Any] = {"machine": machine(), "imports": imports(rounds), "works": {}}
    for name, work in WORKS.items():
        shares = parity(work)
        results = measure(work, list(IMPORTS), rounds)
        measured["works"][name] = {peer: {**item, "parity": shares[peer]} for peer, item in results.items()}
    measured["load average at the end"] = os.getloadavg()[0]
    (RESULTS / "torchax.json").write_text(json.dumps(measured, indent=1) + "\n")
    write("torchax", [f"load average {os.getloadavg()[0]:.1f} at the end", "", *HEAD.splitlines(), *rows(measured)])


if __name__ == "__main__":
    main()
