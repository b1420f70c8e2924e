"""A model and its image processor as one function: from images to labels with scores, or to features."""

import operator
import os
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np

from .errors import CheckpointError, ConfigError
from .images.processor import ViTClsImageProcessor
from .images.rgb import is_one_image
from .label_maps import numbered
from .modeling_vit_cls import FlaxViTClsForImageClassification, FlaxViTClsModel, embedding_of
from .predict import OnBadImage, predict
from .pretrained.processor_fit import fitting_processor
from .scores import function_of, scores_of, unit

Prediction = dict[str, Any]


class _ImagePipeline:
    """A model, its image processor and the number of images that the model processes at once."""

    model_class: ClassVar[Any]

    def __init__(
        self,
        model: Any,
        processor: ViTClsImageProcessor | None = None,
        batch_size: int = 8,
    ):
        if isinstance(model, str | os.PathLike):
            model = load_trained(self.model_class, model)
        if not isinstance(model, self.model_class):
            rule = f"must be a {self.model_class.__name__}, a folder or a Hub id"
            raise ConfigError("model", type(model).__name__, rule)
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError("batch_size", batch_size, "must be a positive integer")
        self.model, self.processor = model, fitting_processor(model, processor, "processor")
        self.batch_size = batch_size


def load_trained(model_class: Any, name_or_path: str | os.PathLike[str], **options: Any) -> Any:
    """A model to be used as it is, by `from_pretrained`. Raises CheckpointError if a head of it would be random."""
    model, report = model_class.from_pretrained(name_or_path, output_loading_info=True, **options)
    if report.new_keys:
        head = report.new_keys[0].split(".")[0]
        remedy = "`vit-cls train` or `vit-cls benchmark --method probe` trains one"
        raise CheckpointError(f"{name_or_path}: it has no {head}, and a random one would be used: {remedy}")
    return model


def _several(images: Any) -> Iterable[Any]:
    """One image or several, as an iterable of images."""
    if is_one_image(images):
        return [images]
    return images


class ImageClassificationPipeline(_ImagePipeline):
    """A model and its image processor as one function from images to labels with scores.

    It returns a list of predictions for each image, also for a single image.

    Args:
        model: a classifier, or its folder or Hub id.
        processor: the image processor; default: the model's.
        batch_size: number of images that the model processes at once.
        function_to_apply: function from logits to scores: "sigmoid", "softmax" or "none". None chooses it by the
            model's `problem_type`, as transformers does: sigmoid for multi-label models and models with one label,
            none for regression, else softmax.
    """

    model_class = FlaxViTClsForImageClassification
    task = "image-classification"

    def __init__(
        self,
        model: FlaxViTClsForImageClassification | str | os.PathLike[str],
        processor: ViTClsImageProcessor | None = None,
        batch_size: int = 8,
        function_to_apply: str | None = None,
    ):
        super().__init__(model, processor, batch_size)
        self.function_to_apply = function_to_apply
        function_of(self.model.config, function_to_apply)

    def __call__(
        self, images: Any, top_k: int | None = 5, function_to_apply: str | None = None
    ) -> list[list[Prediction]]:
        """Classify images: a path, PIL image or array (uint8), or several of them -> labels and scores, best first.

        Args:
            images: one image, a list, a column of a dataset, or any iterable; it is read batch by batch.
            top_k: largest number of labels for each image, as in transformers; None for all.
            function_to_apply: replaces the pipeline's own.

        Raises BadImageError, naming the file, for an image that cannot be read, and FloatingPointError, naming it too,
        for logits that are NaN or infinite.
        """
        return [predictions for _, predictions in self.iterate(images, top_k, function_to_apply)]

    def iterate(
        self,
        images: Any,
        top_k: int | None = 5,
        function_to_apply: str | None = None,
        on_bad_image: OnBadImage | None = None,
    ) -> Iterator[tuple[int, list[Prediction]]]:
        """Yield row and predictions of each image while the next batch is computed; `on_bad_image` as in `predict`."""
        function = function_of(self.model.config, function_to_apply or self.function_to_apply)
        if top_k is not None and (not hasattr(top_k, "__index__") or operator.index(top_k) < 1):
            raise ConfigError("top_k", top_k, "must be a positive integer, or None for all labels")
        labels = numbered(self.model.config.id2label)
        options = {"processor": self.processor, "batch_size": self.batch_size, "on_bad_image": on_bad_image}
        for logits, rows in predict(self.model, _several(images), **options):
            for row, scores in zip(rows.tolist(), scores_of(logits, function)):
                best = np.argsort(-scores)[:top_k]
                yield row, [{"label": labels[i], "score": float(scores[i])} for i in best]


class ImageFeatureExtractionPipeline(_ImagePipeline):
    """A backbone and its image processor as one function from images to features.

    It returns a list with the features of each image, also for a single image. Names and meanings are those of
    transformers' pipeline, without its extra axis of length 1 for each image of a list.

    Args:
        model: a FlaxViTClsModel, or a folder or Hub id; of a classifier the backbone is taken.
        processor: the image processor; default: the model's.
        batch_size: number of images that the model processes at once.
        pool: True gives one vector (F,) for each image, that of `get_image_features`; False all tokens (T, D).
        normalize: give each vector length 1, so that a dot product is a cosine similarity.
        return_tensors: return NumPy arrays instead of lists of floats.
    """

    model_class = FlaxViTClsModel
    task = "image-feature-extraction"

    def __init__(
        self,
        model: FlaxViTClsModel | str | os.PathLike[str],
        processor: ViTClsImageProcessor | None = None,
        batch_size: int = 8,
        pool: bool = False,
        normalize: bool = False,
        return_tensors: bool = False,
    ):
        super().__init__(model, processor, batch_size)
        self.pool, self.normalize, self.return_tensors = pool, normalize, return_tensors

    def __call__(
        self,
        images: Any,
        pool: bool | None = None,
        normalize: bool | None = None,
        return_tensors: bool | None = None,
    ) -> Any:
        """Features of images: a path, PIL image or array (uint8), or several of them, read batch by batch.

        `pool`, `normalize` and `return_tensors` replace the pipeline's own. With `return_tensors` the result is one
        array, (n, F) or (n, T, D); a list of arrays (T, D) where the images have different numbers of tokens.

        Raises BadImageError, naming the file, for an image that cannot be read, and FloatingPointError, naming it too,
        for features that are NaN or infinite.
        """
        pool = self.pool if pool is None else pool
        normalize = self.normalize if normalize is None else normalize
        return_tensors = self.return_tensors if return_tensors is None else return_tensors
        take = embedding_of if pool else lambda outputs: outputs.last_hidden_state
        options = {"processor": self.processor, "batch_size": self.batch_size, "take": take}
        batches = predict(self.model, _several(images), **options)
        features = [row for batch, _ in batches for row in np.asarray(batch, np.float32)]
        if normalize:
            features = [unit(row) for row in features]
            for number, row in enumerate(features):
                if not np.isfinite(row).all():
                    raise ValueError(f"image {number}: features that are all zero cannot be normalised")
        if not return_tensors:
            return [row.tolist() for row in features]
        return np.stack(features) if len({row.shape for row in features}) == 1 else features
