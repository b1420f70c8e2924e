"""`vit-cls predict MODEL IMAGE...`: the most probable classes of images."""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from modeling_vit_cls import BadImageError, FlaxViTClsForImageClassification, ImageClassificationPipeline
from modeling_vit_cls.images.image_files import images_below


def run(arguments: argparse.Namespace) -> None:
    """Classify all that can be read, then print.

    Raises BadImageError, naming them, for paths that are not there, and where not one image can be read; with
    `--on_bad_image raise` for the first broken one, before anything is printed.
    """
    pipeline = ImageClassificationPipeline(FlaxViTClsForImageClassification.from_pretrained(arguments.model))
    paths, problems = _expand(arguments.images)
    if not paths:
        raise BadImageError("; ".join(problems))
    found: list[dict[str, Any]] = []
    with tqdm(total=len(paths), unit="image", disable=None) as bar:  # None: not where there is no terminal

        def leave_out(_: int, error: BadImageError) -> None:
            if arguments.on_bad_image == "raise":
                raise error
            tqdm.write(f"vit-cls: left out: {error}", file=sys.stderr)
            bar.update()

        for row, predictions in pipeline.iterate(paths, top_k=arguments.top_k, on_bad_image=leave_out):
            found.append({"image": str(paths[row]), "predictions": predictions})
            bar.update()
    if found:
        print(json.dumps(found, indent=2) if arguments.json else "\n".join(map(_lines, found)))
    else:
        problems.append(f"none of the {len(paths)} images can be read")
    if problems:
        raise BadImageError("; ".join(problems))


def _expand(names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Files, and for folders the image files in and below them; and what is wrong with the other names."""
    paths: list[Path] = []
    problems: list[str] = []
    for name in names:
        path = Path(name)
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", name):
            problems.append(f"{name}: is an address; images are read from files: download it first")
        elif path.is_dir():
            inside = list(images_below(path))
            paths += inside
            problems += [] if inside else [f"{name}: there are no image files in this folder, or below it"]
        elif path.exists():
            paths.append(path)
        else:
            problems.append(f"{name}: there is no such file")
    return paths, problems


def _lines(found: dict[str, Any]) -> str:
    rows = [f"  {row['score']:.4f}  {row['label']}" for row in found["predictions"]]
    return "\n".join([found["image"], *rows])
