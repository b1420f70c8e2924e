"""Time and peak memory of loading a checkpoint, compared with the raw read of its file: `python -m benchmarks.load`.

A ViT-L/16 with random weights is saved in a temporary folder. Then the ways of reading it take turns, each time in a
new process. With transformers 4.57, FlaxViT reads a file of its own of the same size. Writes results/load.md.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from .report import peak_memory, write

WAYS = ("raw read", "ours", "FlaxViT", "FlaxViT, _do_init=False")


def save_both(folder: Path, hidden_size: int, layers: int) -> None:
    """Save a model of this package, and with transformers 4.57 one of FlaxViT of the same size, in two folders."""
    import jax

    from modeling_vit_cls import FlaxViTClsForImageClassification, ViTClsConfig

    sizes = {"hidden_size": hidden_size, "num_hidden_layers": layers, "num_attention_heads": hidden_size // 64}
    sizes |= {"intermediate_size": 4 * hidden_size, "image_size": 224, "patch_size": 16, "num_labels": 1000}
    FlaxViTClsForImageClassification(ViTClsConfig(**sizes)).save_pretrained(folder / "ours")
    if version("transformers").startswith("4."):
        from transformers import FlaxViTForImageClassification, ViTConfig

        theirs = FlaxViTForImageClassification(ViTConfig(**sizes), _do_init=False)
        params = theirs.init_weights(jax.random.PRNGKey(0), theirs.input_shape)
        theirs.save_pretrained(folder / "theirs", params=params, safe_serialization=True)


def read(way: str, folder: Path) -> Callable[[], object]:
    """The function that reads the checkpoint in one way; its imports are done before."""
    import jax

    jax.numpy.zeros(3).block_until_ready()  # starts the device before the measurement
    if way == "raw read":
        from safetensors.numpy import load_file

        return lambda: load_file(folder / "ours" / "model.safetensors")
    if way == "ours":
        from modeling_vit_cls import FlaxViTClsForImageClassification

        return lambda: jax.block_until_ready(FlaxViTClsForImageClassification.from_pretrained(folder / "ours").params)
    from transformers import FlaxViTForImageClassification

    options = {} if way == "FlaxViT" else {"_do_init": False}
    return lambda: jax.block_until_ready(
        jax.tree.leaves(FlaxViTForImageClassification.from_pretrained(folder / "theirs", **options))
    )


def measure(way: str, folder: Path) -> dict[str, float]:
    """Seconds of one read, and the bytes that it added to the peak memory of the process."""
    action = read(way, folder)
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak, which the imports may have set: man 5 proc
    before = peak_memory()
    start = time.perf_counter()
    checkpoint = action()
    seconds = time.perf_counter() - start
    del checkpoint
    return {"seconds": seconds, "bytes": peak_memory() - before}


def main() -> None:
    """Measure all ways in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden-size", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[0], Path(arguments.measure[1]))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_both(folder, arguments.hidden_size, arguments.layers)
        size = (folder / "ours" / "model.safetensors").stat().st_size
        ways = WAYS if (folder / "theirs").exists() else WAYS[:2]
        results: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(arguments.rounds):
            for way in ways:
                command = [sys.executable, "-m", "benchmarks.load", "--measure", way, name]
                results[way].append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    raw = statistics.median(item["seconds"] for item in results["raw read"])
    lines = [f"{size / 1e6:,.0f} MB, {arguments.rounds} rounds", ""]
    lines += ["| way | median s | best s | of the raw read | peak memory of the weights |", "|---|---|---|---|---|"]
    for way, items in results.items():
        seconds = [item["seconds"] for item in items]
        median, peak = statistics.median(seconds), statistics.median(item["bytes"] for item in items)
        lines.append(f"| {way} | {median:.2f} | {min(seconds):.2f} | {median / raw:.2f} | {peak / size:.2f} |")
    write("load", lines)


if __name__ == "__main__":
    main()
