"""One peer and one work in this process: `python -m benchmarks.peers PEER WORK`, driven by benchmarks/speed.py.

Says how long the first step took, compilation included; then, for each line on the standard input, runs steps for
SECONDS and prints the seconds of each, and bytes of the largest resident set so far.
"""

import importlib
import json
import os
import sys
import time

from .report import peak_memory
from .work import Work

SECONDS = 3.0
PEERS = {
    "ours": "jax_peers.ours",
    "ours, reading JPEGs": "jax_peers.ours_read",
    "FlaxViT": "jax_peers.flax_vit",
    "jimm": "jax_peers.jimm",
    "timm": "torch_peers.timm",
    "timm compiled": "torch_peers.timm_compiled",
    "HF torch": "torch_peers.hf_torch",
    "GEMM, XLA": "jax_peers.gemm",
    "GEMM, XLA to float32": "jax_peers.gemm_to_float32",
    "GEMM, torch": "torch_peers.gemm",
}


def main() -> None:
    """Build, run the first step, then one round for each line."""
    peer, kind, size, dtype, batch, layers, device = sys.argv[1:]
    os.environ["JAX_PLATFORMS"] = device
    module, name = PEERS[peer].split(".")
    try:
        build = getattr(importlib.import_module(f"benchmarks.{module}"), name)
        step = build(Work(kind, size, dtype, int(batch), int(layers), device))
        start = time.perf_counter()
        step(1)
    except Exception as error:  # no package, no device, no memory: the table says which
        sys.exit(f"{type(error).__name__}: {error}".splitlines()[0])
    print(json.dumps({"first": time.perf_counter() - start}), flush=True)
    step(1)
    for _ in sys.stdin:
        seconds, end = [], time.perf_counter() + SECONDS
        while not seconds or time.perf_counter() < end:
            start = time.perf_counter()
            step(1)
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds, "memory": peak_memory()}), flush=True)


if __name__ == "__main__":
    main()
