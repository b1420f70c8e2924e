"""Throughput on one GPU: `make bench-gpu`, or `python -m benchmarks.gpu [PEER ...]`.

Each peer has its own processes. All import what they need at the start; then one after the other builds and measures.
Steps are started without waiting for the previous one, so that the device is never idle. Needs JAX and PyTorch for the
GPU, timm and transformers; the rows that read JPEG files also need grain and datasets, and find their step in the
compilation cache. Ends within `--minutes`. Without PEER, writes results/gpu.md and results/gpu.json.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from .report import NO_CARD, RESULTS, card, machine, write
from .work import Work

# FLOP/s of dense bfloat16 products, from NVIDIA's data sheets. A model's share of it is its MFU.
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
WORKS = {
    f"{kind} {size}/16, B={batch}": Work(kind, size, "bfloat16", batch, 12 if size == "B" else 24, "cuda")
    for batch in (128, 256)
    for size in "BL"
    for kind in ("inference", "training")
}
ALL, SMALLER = [*WORKS], [name for name in WORKS if name.endswith("=128")]
PEERS = {  # in order of weight, since the last ones may find no time: what builds a step, and the works to measure
    "ours": ("jax_peers.ours", ALL),
    "timm compiled": ("torch_peers.timm_compiled", ALL),
    "ours, JPEGs by processes": ("jax_peers.ours_read_by_processes", ["training B/16, B=128"]),
    "ours, plain attention": ("jax_peers.ours_plain", [name for name in SMALLER if "B/16" in name]),
    "timm": ("torch_peers.timm", SMALLER),
    "ours, JPEGs by threads": ("jax_peers.ours_read", ["training B/16, B=128"]),
    "HF torch compiled": ("torch_peers.hf_compiled", [name for name in SMALLER if "B/16" in name]),
}
HEAD = """| work | peer | images/s, best | median | ours to it | MFU | first step, s | peak GB |
|---|---|---|---|---|---|---|---|"""
SECONDS, REPEATS = 0.5, 4
USED = {"jax_peers": ["modeling_vit_cls"], "torch_peers": ["timm", "transformers"]}  # imported before anything is timed


def measure_here(peer: str, names: list[str]) -> None:
    """Measure one peer in this process, when a line comes in, and print a line of JSON for each work."""
    module, function = PEERS[peer][0].split(".")
    build = getattr(importlib.import_module(f"benchmarks.{module}"), function)
    for used in USED[module]:
        importlib.import_module(used)
    print("ready", flush=True)
    if not sys.stdin.readline():
        sys.exit("the process that measures has ended")
    for name in names:
        work = WORKS[name]
        try:
            step, start = build(work), time.perf_counter()
            step(1)
            first = time.perf_counter() - start
            step(3)
            start = time.perf_counter()
            step(3)
            times = max(3, round(SECONDS / ((time.perf_counter() - start) / 3)))
            seconds = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                step(times)
                seconds.append((time.perf_counter() - start) / times)
            speeds = {"best": work.batch / min(seconds), "median": work.batch / statistics.median(seconds)}
            item: dict[str, Any] = {**speeds, "first": first, "memory": device_memory(peer)}
        except Exception as error:  # a missing package or too little memory: the table shows the reason
            item = {"not measured": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        print(json.dumps({"work": name, "item": item}), flush=True)


def device_memory(peer: str) -> int:
    """Peak of the GPU memory that the framework of this process allocated, in bytes, over all works so far."""
    if PEERS[peer][0].startswith("jax"):
        import jax

        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    import torch

    return torch.cuda.max_memory_allocated()


def start(peer: str, names: list[str], cache: str) -> "subprocess.Popen[str]":
    """A process that will measure one peer when a line comes in. `cache` is the folder of compiled programs."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu", "--here", peer, *names]
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "JAX_COMPILATION_CACHE_DIR": cache}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)


def measure(process: "subprocess.Popen[str]", names: list[str], until: float) -> dict[str, Any]:
    """Let a process measure: {work: results}. Works not done by the time `until` are "not measured"."""
    missing = {"not measured": "no time was left"}
    try:
        output, errors = process.communicate("\n", timeout=max(until - time.time(), 1))
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
    else:
        missing = {"not measured": (errors.strip().splitlines() or ["ended early"])[-1]}
    lines = [json.loads(line) for line in output.splitlines() if line.startswith('{"work"')]
    return dict.fromkeys(names, missing) | {line["work"]: line["item"] for line in lines}


def rows(name: str, results: dict[str, dict[str, Any]], peak: float) -> list[str]:
    """Lines of the table for one work. Training counts as three forward passes, without recomputation."""
    from modeling_vit_cls import ViTClsConfig
    from modeling_vit_cls.nn.flops import gflops_per_image

    work, lines = WORKS[name], []
    flops = 1e9 * gflops_per_image(ViTClsConfig(**work.sizes)) * (3 if work.kind == "training" else 1)
    for peer, item in results.items():
        if "best" not in item:
            lines.append(f"| {name} | {peer} | not measured: {item['not measured']} | | | | | |")
            continue
        ours = results.get("ours", {})
        ratio = " / ".join(f"{ours[key] / item[key]:.2f}" for key in ("best", "median") if key in ours)
        lines.append(
            f"| {name} | {peer} | {item['best']:,.0f} | {item['median']:,.0f} | {ratio} "
            f"| {item['median'] * flops / peak:.1%} | {item['first']:.1f} | {item['memory'] / 1e9:.1f} |"
        )
    return lines


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", nargs="*", help=f"of {', '.join(map(repr, PEERS))}; all without")
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--here", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        measure_here(arguments.here[0], arguments.here[1:])
    else:
        measure_all(arguments.peers, time.time() + 60 * arguments.minutes)


def measure_all(chosen: list[str], until: float) -> None:
    """Measure the chosen peers and print the table; without any, measure all and write it."""
    peers = chosen or [*PEERS]
    parts = [
        (peer, [name for name in PEERS[peer][1] if WORKS[name].batch == size]) for peer in peers for size in (128, 256)
    ]
    parts = [(peer, names) for peer, names in parts if names]
    results: dict[str, dict[str, Any]] = {name: {} for name in WORKS}
    for peer, names in parts:
        for name in names:
            results[name][peer] = {"not measured": NO_CARD}
    if card() != NO_CARD:
        with tempfile.TemporaryDirectory() as cache:
            processes = [start(peer, names, cache) for peer, names in parts]
            for process in processes:
                assert process.stdout is not None
                process.stdout.readline()  # it has imported everything, or ended
            for process, (peer, names) in zip(processes, parts, strict=True):
                for name, item in measure(process, names, until).items():
                    results[name][peer] = item
                    print(name, peer, item, flush=True)
    peak = next((flops for name, flops in PEAK.items() if name in card()), float("nan"))
    lines = [*HEAD.splitlines(), *(line for name in results for line in rows(name, results[name], peak))]
    if chosen:
        print("\n".join(lines))
    else:
        write("gpu", lines)
        (RESULTS / "gpu.json").write_text(json.dumps({"machine": machine(), "works": results}, indent=1))


if __name__ == "__main__":
    main()
