"""Images per second of `embed`, as a share of the bare forward pass: `python -m benchmarks.embed`.

The bare forward pass runs on batches that are on the device already, each started before the one before has ended.
`embed` reads images from a dataset in memory, decodes and resizes them, and writes parquet files. Both take turns. On a
CPU they share the cores: there the share of processor time tells what reading and writing cost.
Writes results/embed.md.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import datasets
import jax
import numpy as np
from PIL import Image

from modeling_vit_cls import FlaxViTClsModel, ViTClsConfig
from modeling_vit_cls.embed import embed

from .report import write

IMAGES = {"uncompressed, 224 x 224": ("BMP", (224, 224)), "JPEG, 500 x 375": ("JPEG", (500, 375))}


def dataset_of(count: int, form: str, size: tuple[int, int]) -> datasets.Dataset:
    """Images of smooth noise, as photos are smooth, in memory."""
    files = []
    for seed in range(count):
        coarse = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(file, form)
        files.append({"bytes": file.getvalue(), "path": f"{seed}.{form.lower()}"})
    return datasets.Dataset.from_dict({"image": files}, features=datasets.Features({"image": datasets.Image()}))


def bare(model: FlaxViTClsModel, count: int, batch_size: int) -> None:
    """The forward pass on `count` images that are on the device."""
    batch = jax.numpy.zeros((batch_size, 3, *model.config.image_hw))
    outputs = [model(batch).pooler_output for _ in range(count // batch_size)]
    for output in outputs:
        np.asarray(output)


def seconds(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds of one call: by the clock, and of all processors."""
    start = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def main() -> None:
    """Measure, print and write results/embed.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default="vit_cls_base_patch16_224")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    count, batch_size = given.images, given.batch_size
    model = FlaxViTClsModel(ViTClsConfig.from_variant(given.variant), dtype=given.dtype)
    sources = {name: dataset_of(count, *image) for name, image in IMAGES.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ("bare", *sources)}
    bare(model, batch_size, batch_size)  # compiles
    with tempfile.TemporaryDirectory() as name:
        for number in range(given.rounds):
            times["bare"].append(seconds(lambda: bare(model, count, batch_size)))
            for source, dataset in sources.items():
                folder = Path(name) / f"{source}-{number}"
                options = {"batch_size": batch_size, "shards": 2, "disable_tqdm": True}
                times[source].append(seconds(lambda: embed(model, dataset, folder, **options)))  # noqa: B023
    lines = [f"{given.variant}, {given.dtype}, {count} images, batches of {batch_size}, {given.rounds} rounds"]
    lines += [f"load average {os.getloadavg()[0]:.1f} at the end", ""]
    lines += ["| what | images/s, best | median | share of the forward pass, best | median | of its processor time |"]
    lines += ["|---|---|---|---|---|---|"]
    clocks = {what: [clock for clock, _ in measured] for what, measured in times.items()}
    processors = {what: min(processor for _, processor in measured) for what, measured in times.items()}
    for what, clock in clocks.items():
        speeds = [f"{count / choose(clock):.1f}" for choose in (min, statistics.median)]
        shares = [f"{choose(clocks['bare']) / choose(clock):.1%}" for choose in (min, statistics.median)]
        label = "forward pass, images on the device" if what == "bare" else f"embed, {what}"
        row = [label, *speeds, *shares, f"{processors['bare'] / processors[what]:.1%}"]
        lines.append(f"| {' | '.join(row)} |")
    write("embed", lines)


if __name__ == "__main__":
    main()
