"""Images per second of this package beside its peers: `make bench`, or `python -m benchmarks.speed [WORK ...]`.

Each peer runs in its own process, all wait while one runs a round, and the rounds take turns. A peer that is not
installed is skipped and named. Writes a table to benchmarks/results/, and the numbers behind it as JSON.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from modeling_vit_cls import ViTClsConfig
from modeling_vit_cls.flops import gflops_per_image

from .peers import Work

RESULTS = Path(__file__).parent / "results"
BACKBONES = ["ours", "FlaxViT", "jimm", "timm", "HF torch"]
TRAINERS = ["ours", "FlaxViT", "timm", "timm compiled"]
WORKS = {
    "S/16 float32, B=8": (Work("inference", "S", "float32", 8), BACKBONES),
    "B/16 float32, B=8": (Work("inference", "B", "float32", 8), BACKBONES),
    "B/16 float32, B=1": (Work("inference", "B", "float32", 1), BACKBONES),
    "S/16 bfloat16, B=8": (Work("inference", "S", "bfloat16", 8), BACKBONES),
    "B/16 bfloat16, B=8": (Work("inference", "B", "bfloat16", 8), BACKBONES),
    "training S/16 float32, B=16": (Work("training", "S", "float32", 16), TRAINERS),
    "training S/16 bfloat16, B=16": (Work("training", "S", "bfloat16", 16), TRAINERS),
    "compiling a step, Ti/16, 12 layers": (Work("training", "Ti", "float32", 2, 12), ["ours", "FlaxViT"]),
    "compiling a step, Ti/16, 24 layers": (Work("training", "Ti", "float32", 2, 24), ["ours", "FlaxViT"]),
}


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
    """By peer: best and median images per second, seconds of the first step, peak memory; or why there are none."""
    running, found = {}, {}
    for peer in peers:
        try:
            running[peer] = Running(peer, work)
        except RuntimeError as error:
            found[peer] = {"skipped": str(error)}
    for _ in range(rounds):
        for peer in running.values():
            peer.round()
    for name, peer in running.items():
        peer.end()
        best, median = work.batch / min(peer.seconds), work.batch / statistics.median(peer.seconds)
        found[name] = {"best": best, "median": median, "first": peer.first, "memory": peer.memory}
    return found


def limits(dtype: str, rounds: int) -> float:
    """Operations per second of the faster of XLA's and PyTorch's matrix product."""
    found = measure(Work("inference", "B", dtype, 1), ["GEMM, XLA", "GEMM, torch"], rounds)
    return max(item.get("best", 0.0) for item in found.values()) * 2 * 8 * 197 * 768 * 3072


def rows(name: str, work: Work, found: dict[str, dict[str, Any]], limit: float) -> list[str]:
    """Lines of the table: work, peer, images per second, ours to it, share of the limit, first step, memory."""
    flops = 1e9 * gflops_per_image(ViTClsConfig(**work.sizes)) * (3 if work.kind == "training" else 1)
    lines = []
    for peer, item in found.items():
        if "skipped" in item:
            lines.append(f"| {name} | {peer} | skipped: {item['skipped']} | | | | | |")
            continue
        ratios = [f"{found['ours'][key] / item[key]:.2f}" for key in ("best", "median")]
        share = item["best"] * flops / limit
        lines.append(
            f"| {name} | {peer} | {item['best']:.1f} | {item['median']:.1f} | {' / '.join(ratios)} | {share:.0%} "
            f"| {item['first']:.1f} | {item['memory'] / 1e9:.2f} |"
        )
    return lines


def machine() -> str:
    """What the numbers hold for."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), "unknown processor")
    flags = next((line for line in info if line.startswith("flags")), "")
    units = [unit for unit in ("avx512_bf16", "amx_bf16") if unit in flags]
    names = ("jax", "flax", "transformers", "torch", "timm", "jax-image-models")
    versions = []
    for name in names:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"no {name}")
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {model} ({', '.join(units)}); {', '.join(versions)}; {datetime.date.today()}"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("works", nargs="*", help=f"of {', '.join(map(repr, WORKS))}; all without")
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    chosen = {name: WORKS[name] for name in (arguments.works or WORKS)}
    limit = {dtype: limits(dtype, arguments.rounds) for dtype in ("float32", "bfloat16")}
    said = [machine(), "", *(f"Limit, {dtype}: {limit[dtype] / 1e9:,.0f} GFLOP/s.  " for dtype in limit), ""]
    said += ["| work | peer | images/s, best | median | ours to it | of the limit | first step, s | peak GB |"]
    said += ["|---|---|---|---|---|---|---|---|"]
    print("\n".join(said), flush=True)
    results = {}
    for name, (work, peers) in chosen.items():
        results[name] = measure(work, peers, arguments.rounds)
        lines = rows(name, work, results[name], limit[work.dtype])
        said += lines
        print("\n".join(lines), flush=True)
    if not arguments.works:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "speed.md").write_text("\n".join(said) + "\n")
        (RESULTS / "speed.json").write_text(
            json.dumps({"machine": machine(), "limit": limit, "works": results}, indent=1)
        )


if __name__ == "__main__":
    main()
