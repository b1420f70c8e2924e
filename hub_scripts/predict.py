"""`vit-cls predict MODEL IMAGE...`: the most probable classes of images."""

import argparse
import json
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from modeling_vit_cls import BadImageError, FlaxViTClsForImageClassification, ImageClassificationPipeline

from .verbs import add_verb


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        verbs,
        "predict",
        run,
        help="the most probable classes of images",
        description="Classify images: for each the most probable classes and their probabilities.",
        example="predict my-vit cat.jpg photos/ --top_k 3",
    )
    parser.add_argument("model", help="a folder or a Hub id")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="an image file, or a folder of them")
    parser.add_argument("--top_k", type=int, default=5, help="classes for each image (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Classify all, then print. Raises BadImageError, naming the file, for the first that is broken."""
    paths = [path for name in arguments.images for path in _expand(Path(name))]
    pipeline = ImageClassificationPipeline(FlaxViTClsForImageClassification.from_pretrained(arguments.model))
    found: list[dict[str, Any]] = []
    with tqdm(total=len(paths), unit="image", disable=None) as bar:  # None: not where there is no terminal
        for start in range(0, len(paths), pipeline.batch_size):
            batch = paths[start : start + pipeline.batch_size]
            predictions = pipeline(batch, top_k=arguments.top_k)
            found += [{"image": str(path), "predictions": rows} for path, rows in zip(batch, predictions)]
            bar.update(len(batch))
    print(json.dumps(found, indent=2) if arguments.json else "\n".join(map(_lines, found)))


def _expand(path: Path) -> list[Path]:
    """A file, or the image files of a folder by name."""
    if not path.is_dir():
        return [path]
    known = Image.registered_extensions()
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in known)
    if not found:
        raise BadImageError(f"{path}: there are no image files in this folder")
    return found


def _lines(found: dict[str, Any]) -> str:
    rows = [f"  {row['score']:.4f}  {row['label']}" for row in found["predictions"]]
    return "\n".join([found["image"], *rows])
