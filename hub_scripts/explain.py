"""`vit-cls explain MODEL IMAGE... --output FOLDER`: pictures of what a model sees in images."""

import argparse
import json
import sys
from itertools import chain, count
from pathlib import Path

from tqdm.auto import tqdm

from modeling_vit_cls import BadImageError, FlaxViTClsModel
from modeling_vit_cls.errors import ConfigError
from modeling_vit_cls.files.folder import replace_file

from .predict import image_paths


def run(arguments: argparse.Namespace) -> None:
    """Draw four pictures of each image that can be read, and print their paths.

    Raises BadImageError, naming the paths, for paths that do not exist, and if no image can be read.
    """
    from modeling_vit_cls import pictures  # imported here because matplotlib takes a second

    output = Path(arguments.output)
    if output.exists() and not output.is_dir():
        raise ConfigError("output", arguments.output, "is a file: give a folder")
    patch = None if arguments.patch is None else tuple(arguments.patch)
    model = FlaxViTClsModel.from_pretrained(arguments.model, revision=arguments.revision)
    paths, problems = image_paths(arguments.images)
    paths = list(dict.fromkeys(paths))  # also an image that is named beside its folder is drawn once
    names, images, features, results = _names(paths), [], [], []
    for path in tqdm(paths, unit="image", disable=None):
        try:
            view = pictures.view(model, path)
        except BadImageError as error:
            tqdm.write(f"vit-cls: left out: {error}", file=sys.stderr)
            continue
        drawn = {
            "attention": pictures.attention_picture(view),
            "rollout": pictures.rollout_picture(view),
            "similarity": pictures.similarity_picture(view, patch),
        }
        files = {kind: output / f"{names[path]}.{kind}.png" for kind in (*drawn, "features")}
        for kind, png in drawn.items():
            replace_file(files[kind], png)
        images.append(view.image)
        features.append(view.features)
        results.append({"image": str(path), **{kind: str(file) for kind, file in files.items()}})
    # Last, because one colour means the same in all images.
    colours = pictures.patch_colours(features) if features else []
    for result, image, colour in zip(results, images, colours, strict=True):
        replace_file(Path(result["features"]), pictures.features_picture(image, colour))
    if results:
        lines = [file for result in results for kind, file in result.items() if kind != "image"]
        print(json.dumps(results, indent=2) if arguments.json else "\n".join(lines))
    elif paths:
        problems.append(f"none of the {len(paths)} images can be read")
    if problems:
        raise BadImageError("; ".join(problems))


def _names(paths: list[Path]) -> dict[Path, str]:
    """A name for each image's pictures: the file's, without its ending, or a number more where that is given."""
    names: dict[Path, str] = {}
    given: set[str] = set()
    for path in paths:
        candidates = chain([path.stem], (f"{path.stem}-{number}" for number in count(2)))
        names[path] = next(name for name in candidates if name.casefold() not in given)
        given.add(names[path].casefold())  # some file systems do not tell capitals apart
    return names
