"""`vit-cls embed MODEL DATASET --output FOLDER`: embed the images of a dataset into parquet shards."""

import argparse
import json
import os
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modeling_vit_cls import ConfigError, FlaxViTClsModel
from modeling_vit_cls.errors import one_line
from modeling_vit_cls.hub.download import checkpoint_path
from modeling_vit_cls.provenance import dataset_record, record

from .dataset import place
from .messages import no_bars_in_files


def run(arguments: argparse.Namespace) -> None:
    """Load model and dataset, embed the shards of this worker that are not whole, and print the state of the folder."""
    # Imported here because datasets takes a second, which other verbs do not need.
    from modeling_vit_cls.embed import embed
    from modeling_vit_cls.images.sources import load_with_columns

    no_bars_in_files()
    worker = _worker(arguments.worker)
    _check_output(Path(arguments.output), Path(arguments.dataset))
    path = checkpoint_path(arguments.model, revision=arguments.revision)
    dataset = load_with_columns(arguments.dataset, arguments.split, **place(arguments))
    embedded = embed(
        FlaxViTClsModel.from_pretrained(path, dtype=arguments.dtype),
        dataset,
        arguments.output,
        image_column_name=arguments.image_column_name,
        readout=arguments.readout,
        normalize=arguments.normalize,
        batch_size=arguments.batch_size,
        shards=arguments.shards,
        worker=worker,
        max_bad_images=arguments.max_bad_images,
        origin={
            "model": record(arguments.model, _commit(path)),
            "dataset": {**dataset_record(arguments.dataset, arguments.dataset_revision), "split": arguments.split},
        },
        disable_tqdm=None,
    )
    if arguments.json:
        print(json.dumps({"folder": arguments.output, **asdict(embedded)}))
        return
    mine = f"worker {worker[0]}/{worker[1]}: " if worker[1] > 1 else ""
    broken = f", {len(embedded.left_out):,} broken ones left out" if embedded.left_out else ""
    print(f"{mine}{embedded.rows:,} images embedded, {embedded.width} numbers each{broken}")
    print(f"{one_line(arguments.output)}: {embedded.whole} of {embedded.shards} shards are whole")


def _check_output(output: Path, dataset: Path) -> None:
    """Raise ConfigError for a file, and for a folder inside the dataset, whose shards would become its images."""
    if (output.exists() or output.is_symlink()) and not output.is_dir():
        raise ConfigError("output", str(output), "is a file or a broken link: give a folder")
    if dataset.is_dir() and output.resolve().is_relative_to(dataset.resolve()):
        raise ConfigError("output", str(output), f"is inside the dataset {dataset}: give a folder outside of it")


def _worker(text: str | None) -> tuple[int, int]:
    """The worker (k, n) of `--worker K/N`, or else of Slurm's variables, or else the only one."""
    if text is not None:
        if not re.fullmatch(r"\d+/\d+", text):
            raise ConfigError("worker", text, "must be K/N, as 3/16 for the worker 3 of 16, which are 0 to 15")
        number, count = map(int, text.split("/"))
        return number, count
    if "SLURM_PROCID" not in os.environ:
        return 0, 1
    process = os.environ["SLURM_PROCID"]
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", os.environ.get("SLURM_NTASKS", "1"))
    if not (process.isdecimal() and tasks.isdecimal() and int(process) < int(tasks)):
        rule = f"is given by Slurm's variables, with {tasks!r} tasks, and is no worker of these: give --worker K/N"
        raise ConfigError("SLURM_PROCID", process, rule)
    worker = int(process), int(tasks)
    if worker[1] > 1:
        remedy = "start all of them with srun, or give --worker 0/1 for a single one"
        print(f"vit-cls: worker {worker[0]} of {worker[1]}, by Slurm's variables; {remedy}", file=sys.stderr)
    return worker


def _commit(path: Path) -> Any:
    """The commit of a checkpoint in the cache of huggingface_hub; None elsewhere."""
    _, found, commit = str(path.as_posix()).partition("/snapshots/")
    return commit.split("/")[0] if found else None
