"""`vit-cls predict MODEL IMAGE...`: classify images and print their most probable classes."""

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
from modeling_vit_cls.pipelines import load_trained


def run(arguments: argparse.Namespace) -> None:
    """Classify all images that can be read, and print the predictions.

    Raises BadImageError, naming the paths, for paths that do not exist, and if no image can be read. With
    `--on_bad_image raise`, raises it for the first broken image, before anything is printed.
    """
    model = load_trained(FlaxViTClsForImageClassification, arguments.model, revision=arguments.revision)
    pipeline = ImageClassificationPipeline(model)
    paths, problems = image_paths(arguments.images)
    if not paths:
        raise BadImageError("; ".join(problems))
    results: list[dict[str, Any]] = []
    with tqdm(total=len(paths), unit="image", disable=None) as bar:  # None: a progress bar in a terminal only

        def leave_out(_: int, error: BadImageError) -> None:
            if arguments.on_bad_image == "raise":
                raise error
            tqdm.write(f"vit-cls: left out: {error}", file=sys.stderr)
            bar.update()

        for row, predictions in pipeline.iterate(paths, top_k=arguments.top_k, on_bad_image=leave_out):
            results.append({"image": str(paths[row]), "predictions": predictions})
            bar.update()
    if results:
        print(json.dumps(results, indent=2) if arguments.json else "\n".join(map(_lines, results)))
    else:
        problems.append(f"none of the {len(paths)} images can be read")
    if problems:
        raise BadImageError("; ".join(problems))


def image_paths(names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Paths of image files, for folders those in and below them; and the problems with other names."""
    paths: list[Path] = []
    problems: list[str] = []
    for name in names:
        path = Path(name)
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", name):
            problems.append(f"{name}: is an address; images are read from files: download it first")
        elif path.is_dir():
            files = list(images_below(path))
            paths += files
            problems += [] if files else [f"{name}: there are no image files in this folder, or below it"]
        elif path.exists():
            paths.append(path)
        else:
            problems.append(f"{name}: there is no such file")
    return paths, problems


def _lines(result: dict[str, Any]) -> str:
    """An image's path, and a line for each prediction."""
    rows = [f"  {row['score']:.4f}  {row['label']}" for row in result["predictions"]]
    return "\n".join([result["image"], *rows])
