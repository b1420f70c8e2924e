"""The nearest images of an embedded dataset: a folder that `vit-cls embed` has written with a model of the page."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from ..embed.manifest import begun, digest_of_model
from ..embed.shards import EMBEDDING, ROW, Shards
from ..errors import BadImageError, CheckpointError, ConfigError
from ..evaluation.neighbours import search
from ..images.rgb import load_image
from ..images.rows import open_image
from ..images.sources import image_column, load_with_columns
from ..modeling_vit_cls import embedding_of
from ..names import EMBED
from ..predict import predict
from .seen import PageModel


@dataclass(frozen=True)
class Neighbour:
    """An image of the dataset: its row, class (None without classes) and cosine similarity.

    `image` is None if it cannot be read any more.
    """

    row: int
    label: str | None
    similarity: float
    image: Image.Image | None


class Neighbours:
    """An embedded dataset and the model that embedded it. The vectors (N, F) are kept in memory; images stay on disk.

    Args:
        folder: the folder of `vit-cls embed`.
        models: the models of the page.

    Raises ConfigError for a folder that is none, is not complete, or was written with another model or image processor.
    """

    def __init__(self, folder: str | os.PathLike[str], models: Sequence[PageModel]):
        self.folder = Path(folder)
        manifest = begun(self.folder) if (self.folder / EMBED).is_file() else None
        if manifest is None:
            rule = f"has no {EMBED}: give a folder that `vit-cls embed` has written"
            raise ConfigError("neighbours", str(folder), rule)
        try:
            self._readout, shards = manifest["readout"], Shards(self.folder, manifest["shards"], 0)
            self.model = self._model_of(manifest, models)
            whole = sum(shards.left_out(shard) is not None for shard in range(shards.count))
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{self.folder / EMBED}: is damaged ({type(error).__name__}: {error})") from error
        if whole < shards.count:
            rule = f"has {whole} of {shards.count} shards: give the same command of `vit-cls embed` again"
            raise ConfigError("neighbours", str(folder), rule)
        dataset = load_with_columns(str(self.folder), "train")
        self._image, self._label = image_column(dataset), _label_column(dataset)
        self._dataset = dataset.cast_column(self._image, datasets.Image(decode=False))
        self._vectors = np.asarray(dataset.with_format("numpy")[EMBEDDING][:], np.float32)

    def _model_of(self, manifest: Mapping[str, Any], models: Sequence[PageModel]) -> PageModel:
        digest = manifest["model"]["digest"]
        for model in models:
            if self._readout not in model.readouts:
                continue
            backbone = model.backbone(self._readout)
            if digest_of_model(backbone) != digest:
                continue
            if json.loads(json.dumps(backbone.image_processor.to_dict())) != manifest["processor"]:
                rule = f"was embedded with another image processor than that of {model.name}: embed it again"
                raise ConfigError("neighbours", str(self.folder), rule)
            return model
        name = manifest["model"].get("name", "a model without a name")
        rule = f"was embedded by {name}, whose weights are those of no model here: embed it with one of these"
        raise ConfigError("neighbours", str(self.folder), rule)

    def nearest(self, content: bytes, count: int = 6) -> list[Neighbour]:
        """The nearest images to that of a file's content, nearest first. Raises BadImageError for no image."""
        backbone = self.model.backbone(self._readout)
        ((query, _),) = predict(backbone, [load_image(content, name="This file")], take=embedding_of)
        count = min(count, len(self._vectors))
        ((_, similarities, rows),) = search(np.asarray(query, np.float32), self._vectors, count)
        return [self._neighbour(int(row), float(number)) for row, number in zip(rows[0], similarities[0])]

    def _neighbour(self, row: int, similarity: float) -> Neighbour:
        example = self._dataset[row]
        number = None if self._label is None else example[self._label]
        label = None if number is None or number < 0 else self._dataset.features[self._label].int2str(number)
        try:
            image = open_image(example[self._image])
        except BadImageError:
            image = None
        return Neighbour(example[ROW], label, similarity, image)


def _label_column(dataset: "datasets.Dataset") -> str | None:
    """The first column of classes."""
    return next((name for name, kind in dataset.features.items() if isinstance(kind, datasets.ClassLabel)), None)
