"""Prediction: the one loop from images to outputs that the whole package uses, and the classification pipeline."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, count, pairwise
from threading import Lock
from typing import Any

import jax
import numpy as np
from PIL import Image

from .errors import BadImageError, ConfigError
from .images.processor import ViTClsImageProcessor
from .images.rgb import load_image
from .images.rows import named, open_image
from .modeling_vit_cls import FlaxViTClsForImageClassification
from .pretrained.processor_fit import check_processor
from .scores import function_of, scores_of

Prediction = dict[str, Any]
OnBadImage = Callable[[int, BadImageError], None]


def predict(
    model: Any,
    images: Sequence[Any],
    *,
    processor: ViTClsImageProcessor | None = None,
    params: Any = None,
    batch_size: int = 32,
    take: Callable[[Any], Any] = lambda outputs: outputs.logits,
    on_bad_image: OnBadImage | None = None,
) -> Iterator[tuple[Any, np.ndarray]]:
    """Run a model over images, in order. Yields for each batch its outputs (n, ...) and its rows (n,), in NumPy arrays.

    All batches are padded to one shape. A batch has `batch_size` images, or one if there is only one image or the
    processor's image size depends on the image. Threads decode and preprocess a batch while the device computes the
    previous one.

    Args:
        model: a model of this package.
        images: a sequence, such as a list or a column of a dataset: paths, PIL images, arrays (uint8), or dataset rows
            {"bytes", "path"}. The row of an image is its index in the sequence.
        processor: the image processor, which must fit the model (`check_processor`); default: the model's.
        params: parameters to use instead of the model's.
        batch_size: number of images in a batch.
        take: function from the model's outputs to an array (B, ...), or to a tuple or dict of arrays.
        on_bad_image: called for each image that cannot be read, in order, with its row and an error that names it; the
            image is left out. Default: the error is raised.
    """
    fitting: ViTClsImageProcessor = processor or model.image_processor
    options = {"interpolate_pos_encoding": model.interpolates(fitting), "return_dict": True}
    options |= {"output_attentions": False, "output_hidden_states": False}
    batches = _batches(images, fitting, batch_size, on_bad_image)
    computed: Iterator[Any] = ((take(model(pixels, params=params, **options)), rows) for pixels, rows in batches)
    for (outputs, rows), _ in pairwise(chain(computed, [None])):  # fetch a batch after the next one was started
        yield _fetched(outputs, len(rows)), rows


def _fetched(outputs: Any, count: int) -> Any:
    """The first `count` rows of each array, copied from the device to NumPy."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], outputs)


def _batches(
    images: Sequence[Any], processor: ViTClsImageProcessor, batch_size: int, on_bad_image: OnBadImage | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of pixels (B, C, H, W) and rows (n,), those of the first n images; the other images are zero."""
    if processor.output_hw is None or len(images) == 1:
        batch_size = 1
    pil_lock = Lock()

    def prepare(image: Any, row: int) -> np.ndarray | BadImageError:
        try:
            if image is None or isinstance(image, Mapping):
                return processor([open_image(image)])["pixel_values"][0]
            if isinstance(image, Image.Image):  # PIL decodes on first access, which is not safe in two threads
                with pil_lock:
                    image = load_image(image)
            return processor([image])["pixel_values"][0]
        except BadImageError as error:
            return named(error, image, row) if isinstance(image, Mapping | None) else error

    with ThreadPoolExecutor() as threads:
        for start in range(0, len(images), batch_size):
            prepared = threads.map(prepare, images[start : start + batch_size], count(start))
            readable: dict[int, np.ndarray] = {}
            for row, pixels in enumerate(prepared, start):
                if not isinstance(pixels, BadImageError):
                    readable[row] = pixels
                elif on_bad_image is None:
                    raise pixels
                else:
                    on_bad_image(row, pixels)
            if readable:
                batch = np.stack(list(readable.values()))
                padding = np.zeros((batch_size - len(batch), *batch.shape[1:]), np.float32)
                yield np.concatenate([batch, padding]), np.array([*readable])


class ImageClassificationPipeline:
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

    def __call__(
        self, images: Any, top_k: int | None = None, function_to_apply: str | None = None
    ) -> list[list[Prediction]]:
        """Classify images: a path, PIL image or array (uint8), or a list of them -> labels and scores, best first.

        Args:
            images: one image or a list.
            top_k: number of labels for each image; None for all.
            function_to_apply: replaces the pipeline's own.

        Raises BadImageError, naming the file, for an image that cannot be read.
        """
        if isinstance(images, str | os.PathLike | Image.Image) or (hasattr(images, "ndim") and images.ndim < 4):
            images = [images]
        elif not isinstance(images, Sequence):
            images = list(images)
        return [predictions for _, predictions in self.iterate(images, top_k, function_to_apply)]

    def iterate(
        self,
        images: Sequence[Any],
        top_k: int | None = None,
        function_to_apply: str | None = None,
        on_bad_image: OnBadImage | None = None,
    ) -> Iterator[tuple[int, list[Prediction]]]:
        """Yield row and predictions of each image as soon as they are computed; `on_bad_image` as in `predict`."""
        function = function_of(self.model.config, function_to_apply or self.function_to_apply)
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise ConfigError("top_k", top_k, "must be a positive integer, or None for all labels")
        labels: Any = self.model.config.id2label
        options = {"processor": self.processor, "batch_size": self.batch_size, "on_bad_image": on_bad_image}
        for logits, rows in predict(self.model, images, **options):
            for row, scores in zip(rows.tolist(), scores_of(logits, function)):
                best = np.argsort(-scores)[:top_k]
                yield row, [{"label": labels[int(i)], "score": float(scores[i])} for i in best]
