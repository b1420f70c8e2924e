"""Throughput of this package and its peers: `make bench`, or `python -m benchmarks.speed [WORK ...]`.

Each peer runs in its own process. The peers take turns in rounds; the others wait meanwhile. For a peer that cannot
run, the table shows the reason. Without WORK, writes results/speed.md and results/speed.json.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from modeling_vit_cls import ViTClsConfig
from modeling_vit_cls.nn.flops import gflops_per_image

from .report import RESULTS, machine, write
from .work import Work

BACKBONES = ["ours", "FlaxViT", "jimm", "timm", "HF torch"]
TRAINERS = ["ours", "FlaxViT", "timm", "timm compiled"]
LIMITS = ["GEMM, XLA", "GEMM, XLA to float32", "GEMM, torch"]  # the fastest of these is the machine's limit
WORKS = {
    "S/16 float32, B=8": (Work("inference", "S", "float32", 8), BACKBONES),
    "B/16 float32, B=8": (Work("inference", "B", "float32", 8), BACKBONES),
    "B/16 float32, B=1": (Work("inference", "B", "float32", 1), BACKBONES),
    "S/16 bfloat16, B=8": (Work("inference", "S", "bfloat16", 8), BACKBONES),
    "B/16 bfloat16, B=8": (Work("inference", "B", "bfloat16", 8), BACKBONES),
    "training S/16 float32, B=16": (Work("training", "S", "float32", 16), [*TRAINERS, "ours, reading JPEGs"]),
    "training S/16 bfloat16, B=16": (Work("training", "S", "bfloat16", 16), TRAINERS),
    "training Ti/16, 12 layers, B=2": (Work("training", "Ti", "float32", 2, 12), ["ours", "FlaxViT"]),
    "training Ti/16, 24 layers, B=2": (Work("training", "Ti", "float32", 2, 24), ["ours", "FlaxViT"]),
}
HEAD = """| work | peer | images/s, best | median | ours to it | of the limit, GFLOP/s | compiling, s | peak GB |
|---|---|---|---|---|---|---|---|"""


class Running:
    """A peer in its own process, ready for rounds."""

    def __init__(self, peer: str, work: Work) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.peers", peer, *map(str, work)]
        options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, cwd=Path(__file__).parents[1], **options)
        first = self.answer()
        self.first: float = first["first"]
        self.first_of_processor: float = first["processor"]
        self.seconds: list[float] = []
        self.processor: list[float] = []
        self.memory = 0

    def answer(self) -> dict[str, Any]:
        """The next line of JSON from the process. Raises RuntimeError with its error message if it has ended."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line.startswith("{"):
                return json.loads(line)
        assert self.process.stderr is not None
        raise RuntimeError(self.process.stderr.read().strip().splitlines()[-1])

    def round(self) -> None:
        """Run steps for some seconds, and record their times."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self.answer()
        self.seconds += answer["seconds"]
        self.processor += answer["processor"]
        self.memory = answer["memory"]

    def end(self) -> None:
        """End the process."""
        self.process.communicate()


def measure(work: Work, peers: list[str], rounds: int) -> dict[str, dict[str, Any]]:
    """Best and median throughput, compile time in seconds and peak memory of each peer, or "not measured": the reason.

    The compile time is that of the first step minus that of the best one. `processor` are the images for each second of
    a processor, the best, and `first_of_processor` its seconds for the first step: other work on the machine changes
    these least.
    """
    running, results = {}, {}
    for peer in peers:
        try:
            running[peer] = Running(peer, work)
        except RuntimeError as error:
            results[peer] = {"not measured": str(error)}
    for _ in range(rounds):
        for peer in running.values():
            peer.round()
    for name, peer in running.items():
        peer.end()
        best, median = min(peer.seconds), statistics.median(peer.seconds)
        results[name] = {"best": work.batch / best, "median": work.batch / median}
        results[name] |= {"compiling": peer.first - best, "memory": peer.memory}
        results[name] |= {"processor": work.batch / min(peer.processor), "first_of_processor": peer.first_of_processor}
    return {peer: results[peer] for peer in peers}


def rows(name: str, work: Work, results: dict[str, dict[str, Any]]) -> list[str]:
    """Lines of the table for one work. Training counts as three forward passes, without recomputation."""
    flops = 1e9 * gflops_per_image(ViTClsConfig(**work.sizes)) * (3 if work.kind == "training" else 1)
    limit = max(results[peer].get("best", 0.0) for peer in LIMITS) / work.batch * work.product_flops
    lines = []
    for peer in [peer for peer in results if peer not in LIMITS]:
        item = results[peer]
        if "best" not in item:
            lines.append(f"| {name} | {peer} | not measured: {item['not measured']} | | | | | |")
            continue
        ours = results["ours"]
        ratios = [f"{ours[key] / item[key]:.2f}" for key in ("best", "median") if key in ours]
        lines.append(
            f"| {name} | {peer} | {item['best']:.1f} | {item['median']:.1f} | {' / '.join(ratios)} "
            f"| {item['best'] * flops / limit:.0%} of {limit / 1e9:,.0f} | {item['compiling']:.1f} "
            f"| {item['memory'] / 1e9:.2f} |"
        )
    return lines


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("works", nargs="*", help=f"of {', '.join(map(repr, WORKS))}; all without")
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    results, lines = {}, HEAD.splitlines()
    print(machine(), HEAD, sep="\n\n", flush=True)
    for name in arguments.works or WORKS:
        work, peers = WORKS[name]
        results[name] = measure(work, [*peers, *LIMITS], arguments.rounds)
        lines += rows(name, work, results[name])
        print("\n".join(lines[-len(peers) :]), flush=True)
    if not arguments.works:
        write("speed", lines)
        (RESULTS / "speed.json").write_text(json.dumps({"machine": machine(), "works": results}, indent=1))


if __name__ == "__main__":
    main()
