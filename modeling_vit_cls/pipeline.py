"""Images in, labels and scores out."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from .errors import ConfigError
from .modeling_vit_cls import FlaxViTClsForImageClassification
from .processing import ViTClsImageProcessor

Prediction = dict[str, Any]


class ImageClassificationPipeline:
    """A model and its image processor as one call; a list of predictions for each image, also for a single one.

    Args:
        processor: default: the one that came with the model.
        batch_size: images that go through the model at once.
    """

    task = "image-classification"

    def __init__(
        self,
        model: FlaxViTClsForImageClassification,
        processor: ViTClsImageProcessor | None = None,
        batch_size: int = 8,
    ):
        if not isinstance(model, FlaxViTClsForImageClassification):
            raise ConfigError("model", type(model).__name__, "must be a FlaxViTClsForImageClassification")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError("batch_size", batch_size, "must be a positive integer")
        self.model, self.processor, self.batch_size = model, processor or model.image_processor, batch_size
        if self.processor.output_hw is None:  # each image has a size of its own
            self.batch_size = 1

    def __call__(self, images: Any, top_k: int | None = None) -> list[list[Prediction]]:
        """Path, PIL image, array (uint8), or a list of them -> for each the labels and scores, best first.

        Scores are probabilities and sum to 1 over all labels; `top_k` of them are returned, None for all. Raises
        BadImageError, naming the file, for an image that cannot be read.
        """
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise ConfigError("top_k", top_k, "must be a positive integer, or None for all labels")
        single = isinstance(images, str | os.PathLike | Image.Image) or (hasattr(images, "ndim") and images.ndim < 4)
        batch = [images] if single else list(images)  # pyright: ignore[reportArgumentType]
        found: list[list[Prediction]] = []
        for start in range(0, len(batch), self.batch_size):
            found.extend(self._predict(batch[start : start + self.batch_size], top_k))
        return found

    def _predict(self, images: Sequence[Any], top_k: int | None) -> Iterable[list[Prediction]]:
        pixels = self.processor(list(images))["pixel_values"]
        padding = (
            self.batch_size - len(pixels) if len(pixels) > 1 else 0
        )  # two compiled shapes: one image, a full batch
        pixels = np.pad(pixels, ((0, padding), (0, 0), (0, 0), (0, 0)))
        size: dict[str, Any] = {"interpolate_pos_encoding": self.model.interpolates(self.processor)}
        scores = np.asarray(jax.nn.softmax(self.model(pixels, return_dict=True, **size).logits))[: len(images)]
        labels: Any = self.model.config.id2label
        for row in scores:
            yield [{"label": labels[int(i)], "score": float(row[i])} for i in np.argsort(-row)[:top_k]]
