"""Time and memory of the exact search over N features of width 384, for 100 queries: `python -m benchmarks.search`.

Writes results/search.md.
"""

import resource
import time

import numpy as np

from modeling_vit_cls.evaluation.neighbours import search

from .report import write


def main() -> None:
    """Measure, print and write a row for each N."""
    lines = ["100 queries of width 384, k = 200; the memory is the peak of the process, without the features", ""]
    lines += ["| features | seconds of the processor | GB |", "|---|---|---|"]
    generator = np.random.default_rng(0)
    queries = generator.standard_normal((100, 384), dtype=np.float32)
    for count in (10_000, 100_000, 1_000_000):
        features = generator.standard_normal((count, 384), dtype=np.float32)
        list(search(queries, features[: min(count, 20_000)], 200))  # compiles
        start = time.process_time()
        list(search(queries, features, 200))
        seconds = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - features.nbytes
        lines.append(f"| {count:,} | {seconds:.2f} | {peak / 1e9:.2f} |")
    write("search", lines)


if __name__ == "__main__":
    main()
