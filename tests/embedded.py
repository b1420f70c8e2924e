"""Datasets of pictures to embed, what is read back, and workers in processes of their own."""

import io
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
from conftest import tiny_model
from PIL import Image

from modeling_vit_cls import (
    FlaxViTClsModel,
)
from modeling_vit_cls.embed import embed


def small_backbone() -> FlaxViTClsModel:
    """The backbone that the workers have."""
    return tiny_model(FlaxViTClsModel, num_register_tokens=2)


def png(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pictures(rows: int, broken: tuple[int, ...] = (), image: str = "image") -> datasets.Dataset:
    """Rows of an image, its class, and two columns of other kinds."""
    images = [{"bytes": b"no image" if row in broken else png(row), "path": f"{row}.png"} for row in range(rows)]
    features = datasets.Features(
        {
            "caption": datasets.Value("string"),
            image: datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "boxes": datasets.List(datasets.Value("float32")),
        }
    )
    columns = {
        "caption": [f"number {row}" for row in range(rows)],
        image: images,
        "label": [row % 2 for row in range(rows)],
        "boxes": [[0.5] * (row % 3) for row in range(rows)],
    }
    return datasets.Dataset.from_dict(columns, features=features)


def read(folder: Path) -> datasets.Dataset:
    return datasets.load_dataset("parquet", data_dir=str(folder), split="train")


def vectors(folder: Path) -> np.ndarray:
    return np.asarray(read(folder).with_format("numpy")["embedding"])


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def constant_backbone(bias: float) -> FlaxViTClsModel:
    """A backbone whose embeddings have this number in each place."""
    model = tiny_model(FlaxViTClsModel)
    norm = {"scale": np.zeros(16, np.float32), "bias": np.full(16, bias, np.float32)}
    model.params = {**model.params, "norm": norm}
    return model


WORKER = """
import sys
sys.path.insert(0, sys.argv[1])
from conftest import tiny_model
from embedded import pictures
from modeling_vit_cls import FlaxViTClsModel
from modeling_vit_cls.embed import embed
model = tiny_model(FlaxViTClsModel, num_register_tokens=2)
print("ready", flush=True)
sys.stdin.readline()
embed(model, pictures(400, (7, 300)), sys.argv[2], shards=50, batch_size=4, worker=(int(sys.argv[3]), int(sys.argv[4])),
      disable_tqdm=True)
"""


def started(folder: Path, worker: int = 0, count: int = 1) -> subprocess.Popen:
    """A process that has its model, and begins to embed when a line is written to it."""
    command = [sys.executable, "-c", WORKER, str(Path(__file__).parent), str(folder), str(worker), str(count)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def whole_shards(folder: Path) -> int:
    return len(list(folder.glob("part-*.parquet")))


def finish(process: subprocess.Popen) -> int:
    process.communicate(timeout=300)
    return process.returncode


def undisturbed(folder: Path) -> dict[str, bytes]:
    """The files of a run that nobody disturbed, in this process."""
    embed(small_backbone(), pictures(400, (7, 300)), folder, shards=50, batch_size=4, disable_tqdm=True)
    rows = read(folder)["row"]
    assert rows == [row for row in range(400) if row not in (7, 300)]
    return content(folder)
