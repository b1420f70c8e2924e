"""Images in, labels and scores out."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from .errors import ConfigError
from .images.processor import ViTClsImageProcessor
from .modeling_vit_cls import FlaxViTClsForImageClassification
from .pretrained.processor_fit import check_processor
from .scores import function_of, scores_of

Prediction = dict[str, Any]


class ImageClassificationPipeline:
    """A model and its image processor as one call; a list of predictions for each image, also for a single one.

    Args:
        model: a classifier, or the folder or Hub id of one.
        processor: default: the one that came with the model.
        batch_size: images that go through the model at once.
        function_to_apply: what makes scores of logits, "sigmoid", "softmax" or "none"; None for what the model's
            `problem_type` says, as in transformers: sigmoid for multi-label models and for a single label, the logits
            themselves for regression, else softmax.
    """

    task = "image-classification"

    def __init__(
        self,
        model: FlaxViTClsForImageClassification | str | os.PathLike[str],
        processor: ViTClsImageProcessor | None = None,
        batch_size: int = 8,
        function_to_apply: str | None = None,
    ):
        if isinstance(model, str | os.PathLike):
            model = FlaxViTClsForImageClassification.from_pretrained(model)
        if not isinstance(model, FlaxViTClsForImageClassification):
            raise ConfigError(
                "model", type(model).__name__, "must be a FlaxViTClsForImageClassification, a folder or a Hub id"
            )
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError("batch_size", batch_size, "must be a positive integer")
        self.model, self.processor, self.batch_size = model, processor or model.image_processor, batch_size
        self.function_to_apply = function_to_apply
        function_of(model.config, function_to_apply)
        check_processor(model, self.processor, "processor")
        if self.processor.output_hw is None:  # each image has a size of its own
            self.batch_size = 1

    def __call__(
        self, images: Any, top_k: int | None = None, function_to_apply: str | None = None
    ) -> list[list[Prediction]]:
        """Path, PIL image, array (uint8), or a list of them -> for each the labels and scores, best first.

        `top_k` of them are returned, None for all; `function_to_apply` instead of the pipeline's own. Raises
        BadImageError, naming the file, for an image that cannot be read.
        """
        function = function_of(self.model.config, function_to_apply or self.function_to_apply)
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise ConfigError("top_k", top_k, "must be a positive integer, or None for all labels")
        single = isinstance(images, str | os.PathLike | Image.Image) or (hasattr(images, "ndim") and images.ndim < 4)
        batch = [images] if single else list(images)  # pyright: ignore[reportArgumentType]
        found: list[list[Prediction]] = []
        for start in range(0, len(batch), self.batch_size):
            found.extend(self._predict(batch[start : start + self.batch_size], top_k, function))
        return found

    def _predict(self, images: Sequence[Any], top_k: int | None, function: str) -> Iterable[list[Prediction]]:
        pixels = self.processor(list(images))["pixel_values"]
        padding = (
            self.batch_size - len(pixels) if len(pixels) > 1 else 0
        )  # two compiled shapes: one image, a full batch
        pixels = np.pad(pixels, ((0, padding), (0, 0), (0, 0), (0, 0)))
        size: dict[str, Any] = {"interpolate_pos_encoding": self.model.interpolates(self.processor)}
        scores = scores_of(self.model(pixels, return_dict=True, **size).logits, function)[: len(images)]
        labels: Any = self.model.config.id2label
        for row in scores:
            yield [{"label": labels[int(i)], "score": float(row[i])} for i in np.argsort(-row)[:top_k]]
