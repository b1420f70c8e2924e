"""Images per second of this package beside its peers: `make bench`, or `python -m benchmarks.speed [WORK ...]`.

Each peer runs in its own process, all wait while one runs a round, and the rounds take turns. A peer that cannot run
is named with its reason. Without WORK, writes results/speed.md, and the numbers behind it as JSON.
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
LIMITS = ["GEMM, XLA", "GEMM, XLA to float32", "GEMM, torch"]  # the fastest is the machine's
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
    """A peer in its process, ready for rounds."""

    def __init__(self, peer: str, work: Work) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.peers", peer, *map(str, work)]
        options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, cwd=Path(__file__).parents[1], **options)
        self.first: float = self.answer()["first"]
        self.seconds: list[float] = []
        self.memory = 0

    def answer(self) -> dict[str, Any]:
        """What the process says next. Raises RuntimeError with its last words where it ends instead."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line.startswith("{"):
                return json.loads(line)
        assert self.process.stderr is not None
        raise RuntimeError(self.process.stderr.read().strip().splitlines()[-1])

    def round(self) -> None:
        """Some seconds of steps."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self.answer()
        self.seconds += answer["seconds"]
        self.memory = answer["memory"]

    def end(self) -> None:
        """End the process."""
        self.process.communicate()


def measure(work: Work, peers: list[str], rounds: int) -> dict[str, dict[str, Any]]:
    """By peer: images per second, best and median, seconds of compiling, peak memory; or why there are none.

    Compiling is the first step less the best one.
    """
    running, found = {}, {}
    for peer in peers:
        try:
            running[peer] = Running(peer, work)
        except RuntimeError as error:
            found[peer] = {"not measured": str(error)}
    for _ in range(rounds):
        for peer in running.values():
            peer.round()
    for name, peer in running.items():
        peer.end()
        best, median = min(peer.seconds), statistics.median(peer.seconds)
        found[name] = {"best": work.batch / best, "median": work.batch / median}
        found[name] |= {"compiling": peer.first - best, "memory": peer.memory}
    return {peer: found[peer] for peer in peers}


def rows(name: str, work: Work, found: dict[str, dict[str, Any]]) -> list[str]:
    """Lines of the table. Training counts as three forward passes, whatever is computed again."""
    flops = 1e9 * gflops_per_image(ViTClsConfig(**work.sizes)) * (3 if work.kind == "training" else 1)
    limit = max(found[peer].get("best", 0.0) for peer in LIMITS) / work.batch * work.product_flops
    lines = []
    for peer in [peer for peer in found if peer not in LIMITS]:
        item = found[peer]
        if "best" not in item:
            lines.append(f"| {name} | {peer} | not measured: {item['not measured']} | | | | | |")
            continue
        ratios = [f"{found['ours'][key] / item[key]:.2f}" for key in ("best", "median") if key in found["ours"]]
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
