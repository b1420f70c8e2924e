"""Prediction: the one loop from images to outputs that the whole package uses."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from threading import Lock
from typing import Any

import jax
import numpy as np
from PIL import Image

from .errors import BadImageError
from .images.processor import ViTClsImageProcessor
from .images.rgb import load_image
from .images.rows import named, open_image
from .nn.mesh import mesh_of, ways

OnBadImage = Callable[[int, BadImageError], None]


def predict(
    model: Any,
    images: Sequence[Any],
    *,
    processor: ViTClsImageProcessor | None = None,
    params: Any = None,
    batch_size: int = 32,
    parts: Sequence[range] | None = None,
    take: Callable[[Any], Any] = lambda outputs: outputs.logits,
    on_bad_image: OnBadImage | None = None,
) -> Iterator[tuple[Any, np.ndarray]]:
    """Run a model over images, in order. Yields for each batch its outputs (n, ...) and its rows (n,), in NumPy arrays.

    All batches are padded to one shape. A batch has `batch_size` images, or one if there is only one image or the
    processor's image size depends on the image. On a mesh, that of the parameters, each batch is divided, and
    `batch_size` is rounded up to a multiple of the parts. Threads decode and preprocess a batch while the device
    computes the previous one.

    Args:
        model: a model of this package.
        images: a sequence, such as a list or a column of a dataset: paths, PIL images, arrays (uint8), or dataset rows
            {"bytes", "path"}. The row of an image is its index in the sequence.
        processor: the image processor, which must fit the model (`check_processor`); default: the model's.
        params: parameters to use instead of the model's.
        batch_size: number of images in a batch.
        parts: the rows to run over, in this order; a batch has images of one part only. Default: all, as one part.
        take: function from the model's outputs to an array (B, ...), or to a tuple or dict of arrays.
        on_bad_image: called for each image that cannot be read, in order, with its row and an error that names it; the
            image is left out. Default: the error is raised.
    """
    fitting: ViTClsImageProcessor = processor or model.image_processor
    options = {"interpolate_pos_encoding": model.interpolates(fitting), "return_dict": True}
    options |= {"output_attentions": False, "output_hidden_states": False}
    parts = [range(len(images))] if parts is None else parts
    count = ways(mesh_of(model.params if params is None else params))
    batches = _batches(images, fitting, -(-batch_size // count) * count, parts, on_bad_image)
    computed: Iterator[Any] = ((take(model(pixels, params=params, **options)), rows) for pixels, rows in batches)
    for (outputs, rows), _ in pairwise(chain(computed, [None])):  # fetch a batch after the next one was started
        yield _fetched(outputs, len(rows)), rows


def _fetched(outputs: Any, count: int) -> Any:
    """The first `count` rows of each array, copied from the device to NumPy."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], outputs)


def _batches(
    images: Sequence[Any],
    processor: ViTClsImageProcessor,
    batch_size: int,
    parts: Sequence[range],
    on_bad_image: OnBadImage | None,
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
        batches = (part[start : start + batch_size] for part in parts for start in range(0, len(part), batch_size))
        for rows in batches:
            prepared = threads.map(prepare, images[rows.start : rows.stop], rows)
            readable: dict[int, np.ndarray] = {}
            for row, pixels in zip(rows, prepared):
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
