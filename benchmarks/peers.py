"""Measure one peer and one work in this process: `python -m benchmarks.peers PEER WORK`, run by benchmarks/speed.py.

Prints the seconds of the first step, with compilation. Then, for each line on standard input, runs steps for SECONDS,
and prints the seconds of each step and the peak memory so far in bytes. Seconds are given by the clock, and as the time
of all processors.
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
    "torchax": "torchax_peer.hf_torchax",
    "GEMM, XLA": "jax_peers.gemm",
    "GEMM, XLA to float32": "jax_peers.gemm_to_float32",
    "GEMM, torch": "torch_peers.gemm",
}


def main() -> None:
    """Build the step, run it once, then run a round for each line of the input."""
    peer, kind, size, dtype, batch, layers, device = sys.argv[1:]
    os.environ["JAX_PLATFORMS"] = device
    module, name = PEERS[peer].split(".")
    try:
        build = getattr(importlib.import_module(f"benchmarks.{module}"), name)
        step = build(Work(kind, size, dtype, int(batch), int(layers), device))
        start, start_of_processor = time.perf_counter(), time.process_time()
        step(1)
    except Exception as error:  # a missing package or device, or too little memory: the table shows the reason
        sys.exit(f"{type(error).__name__}: {error}".splitlines()[0])
    first = {"first": time.perf_counter() - start, "processor": time.process_time() - start_of_processor}
    print(json.dumps(first), flush=True)
    step(1)
    for _ in sys.stdin:
        seconds, processor, end = [], [], time.perf_counter() + SECONDS
        while not seconds or time.perf_counter() < end:
            start, start_of_processor = time.perf_counter(), time.process_time()
            step(1)
            seconds.append(time.perf_counter() - start)
            processor.append(time.process_time() - start_of_processor)
        print(json.dumps({"seconds": seconds, "processor": processor, "memory": peak_memory()}), flush=True)


if __name__ == "__main__":
    main()
