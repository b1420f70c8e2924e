"""Images in, outputs out: the one loop over batches that everything here uses, and the classification pipeline."""

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
    """Images in order -> for each batch, outputs of its n images (n, ...) as NumPy arrays, and their rows (n,).

    All batches are padded to one shape: `batch_size` images, or one where there is a single image, or where the
    processor gives each image a size of its own. Threads decode and preprocess a batch while the device computes the
    one before.

    Args:
        images: anything with a length and slices, as a list or a dataset's column: paths, PIL images, arrays (uint8),
            or rows {"bytes", "path"} of a dataset. A row is an image's place in it.
        processor: one that the model takes (`check_processor`); default: the model's own.
        params: instead of the model's own.
        take: chooses from the outputs of the model an array (B, ...), or a tuple or dict of them.
        on_bad_image: is told of each image that cannot be read, by its row and an error that names it, in order; the
            image is then left out. Default: the error is raised.
    """
    chosen: ViTClsImageProcessor = processor or model.image_processor
    how = {"interpolate_pos_encoding": model.interpolates(chosen), "return_dict": True}
    how |= {"output_attentions": False, "output_hidden_states": False}
    batches = _batches(images, chosen, batch_size, on_bad_image)
    computed: Iterator[Any] = ((take(model(pixels, params=params, **how)), rows) for pixels, rows in batches)
    for (outputs, rows), _ in pairwise(chain(computed, [None])):  # a batch is awaited when the next one is on its way
        yield _fetched(outputs, len(rows)), rows


def _fetched(outputs: Any, count: int) -> Any:
    """The first rows of arrays, from the device."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], outputs)


def _batches(
    images: Sequence[Any], processor: ViTClsImageProcessor, batch_size: int, on_bad_image: OnBadImage | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pixels (B, C, H, W) and the rows (n,) of the images that are the first n of them; zeros fill the rest."""
    if processor.output_hw is None or len(images) == 1:
        batch_size = 1
    one_at_a_time = Lock()

    def prepare(image: Any, row: int) -> np.ndarray | BadImageError:
        try:
            if image is None or isinstance(image, Mapping):
                return processor([open_image(image)])["pixel_values"][0]
            if isinstance(image, Image.Image):  # PIL decodes when it must, which two threads may not do to one image
                with one_at_a_time:
                    image = load_image(image)
            return processor([image])["pixel_values"][0]
        except BadImageError as error:
            return named(error, image, row) if isinstance(image, Mapping | None) else error

    with ThreadPoolExecutor() as threads:
        for start in range(0, len(images), batch_size):
            prepared = threads.map(prepare, images[start : start + batch_size], count(start))
            good: dict[int, np.ndarray] = {}
            for row, pixels in enumerate(prepared, start):
                if not isinstance(pixels, BadImageError):
                    good[row] = pixels
                elif on_bad_image is None:
                    raise pixels
                else:
                    on_bad_image(row, pixels)
            if good:
                padding = (batch_size - len(good), *next(iter(good.values())).shape)
                yield np.concatenate([np.stack(list(good.values())), np.zeros(padding, np.float32)]), np.array([*good])


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

    def __call__(
        self, images: Any, top_k: int | None = None, function_to_apply: str | None = None
    ) -> list[list[Prediction]]:
        """Path, PIL image, array (uint8), or a list of them -> for each the labels and scores, best first.

        `top_k` of them are returned, None for all; `function_to_apply` instead of the pipeline's own. Raises
        BadImageError, naming the file, for an image that cannot be read.
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
        """The row and the predictions of each of the images, as they are computed; `on_bad_image` as in `predict`."""
        function = function_of(self.model.config, function_to_apply or self.function_to_apply)
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise ConfigError("top_k", top_k, "must be a positive integer, or None for all labels")
        labels: Any = self.model.config.id2label
        how = {"processor": self.processor, "batch_size": self.batch_size, "on_bad_image": on_bad_image}
        for logits, rows in predict(self.model, images, **how):
            for row, scores in zip(rows.tolist(), scores_of(logits, function)):
                best = np.argsort(-scores)[:top_k]
                yield row, [{"label": labels[int(i)], "score": float(scores[i])} for i in best]
