"""Time and memory of the exact search over N features of width 384, for 100 queries: `python -m benchmarks.search`."""

import resource
import time

import numpy as np

from modeling_vit_cls.evaluation.neighbours import search


def main() -> None:
    """Print a row for each N: seconds of the processor, and the peak memory of the process beyond the features."""
    generator = np.random.default_rng(0)
    queries = generator.standard_normal((100, 384), dtype=np.float32)
    for count in (10_000, 100_000, 1_000_000):
        features = generator.standard_normal((count, 384), dtype=np.float32)
        list(search(queries, features[: min(count, 20_000)], 200))  # compiles
        start = time.process_time()
        list(search(queries, features, 200))
        seconds = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - features.nbytes
        print(f"{count:>9,} features: {seconds:.2f} s, {peak / 1e9:.2f} GB beyond them", flush=True)


if __name__ == "__main__":
    main()
