"""Prediction: the one loop from images to outputs that the whole package uses."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice, pairwise
from threading import Lock
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from PIL import Image

from . import processes
from .errors import BadImageError, shorten
from .files.finite import is_finite
from .files.host import to_host
from .images.processor import ViTClsImageProcessor
from .images.rgb import load_image
from .images.rows import named, open_image, row_name
from .nn.mesh import batch_sharding, divisible, mesh_of, own_places
from .pretrained.processor_fit import fitting_processor

_COMPILING_MINUTES = 60
_PIL_LOCK = Lock()  # PIL decodes an image on first access, which is not safe in two threads, of two calls neither
OnBadImage = Callable[[int, BadImageError], None]


def predict(
    model: Any,
    images: Iterable[Any],
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
    computes the previous one. On a mesh of several processes all of them must call this: each reads the images of its
    own devices, and all get all outputs.

    Args:
        model: a model of this package.
        images: paths, PIL images, arrays (uint8), or dataset rows {"bytes", "path"}, in a sequence, such as a list or a
            column of a dataset, or in any iterable, such as a generator, which is read batch by batch. The row of an
            image is its place, counted from 0.
        processor: the image processor, which must fit the model; default: the model's.
        params: parameters to use instead of the model's.
        batch_size: number of images in a batch.
        parts: the rows of a sequence to run over, in this order; a batch has images of one part only. Default: all, as
            one part.
        take: function from the model's outputs to an array (B, ...), or to a tuple or dict of arrays.
        on_bad_image: called for each image that cannot be read, in order, with its row and an error that names it; the
            image is left out. Default: the error is raised.

    Raises FloatingPointError, naming the image, for outputs that are NaN or infinite.
    """
    fitting = fitting_processor(model, processor, "processor")
    options = {"interpolate_pos_encoding": model.interpolates(fitting), "return_dict": True}
    options |= {"output_attentions": False, "output_hidden_states": False}
    mesh = mesh_of(model.params if params is None else params)
    if parts is None and isinstance(images, Sequence):
        parts = [range(len(images))]
    first: Any = images
    if parts is None:  # not a sequence: read once, forwards
        first = [*islice(images := iter(images), 2)]
        images = chain(first, images)
    alone = fitting.output_hw is None or len(first) == 1
    batch_size = 1 if alone else divisible(batch_size, mesh)

    def computed() -> Iterator[Any]:
        for number, batch in enumerate(_batches(images, fitting, batch_size, parts, mesh)):
            if batch.pixels is None:
                yield None, batch
                continue
            outputs = take(model(batch.pixels, params=params, **options))
            if number == 0 and not batch.is_whole:
                processes.wait("first prediction", _COMPILING_MINUTES)
            yield processes.settled(outputs), batch

    for (outputs, batch), _ in pairwise(chain(computed(), [None])):  # fetch a batch after the next one was started
        readable = _fetched(batch.readable)[: len(batch.rows)]
        for place in np.flatnonzero(~readable):
            row = batch.rows[place]
            error = batch.errors.get(row) or BadImageError(f"{_name(images, row)}: another process cannot read it")
            if on_bad_image is None:
                raise error
            on_bad_image(row, error)
        if readable.any():
            places = slice(len(readable)) if readable.all() else np.flatnonzero(readable)
            outputs = jax.tree.map(lambda leaf: _fetched(leaf)[places], outputs)  # noqa: B023
            rows = np.array(batch.rows)[readable]
            _check_finite(outputs, rows, images)
            yield outputs, rows


class _Batch(NamedTuple):
    """Pixels (B, C, H, W) of the images of `rows`, zero for those that are not `readable` (B,) and after the last one.

    In a run of several processes, a process reads only its own part of the batch unless the batch `is_whole`, and has
    only the `errors` of its own images, by row. A whole batch without a readable image has no pixels.
    """

    rows: range
    pixels: Any
    readable: Any
    errors: dict[int, BadImageError]
    is_whole: bool


def _check_finite(outputs: Any, rows: np.ndarray, images: Iterable[Any]) -> None:
    """Raise FloatingPointError, naming the image, for outputs (n, ...) of these rows (n,) that are NaN or infinite."""
    for leaf in jax.tree.leaves(outputs):
        if not is_finite(leaf):
            row = next(row for row, values in zip(rows, leaf) if not is_finite(values))
            problem = "the model's outputs are NaN or infinite"
            remedy = "look at its weights, or compute in float32"
            raise FloatingPointError(f"{_name(images, row)}: {problem}: {remedy}")


def _name(images: Iterable[Any], row: int) -> str:
    """The name of an image in errors: its path, or the number of its row."""
    image = images[row] if isinstance(images, Sequence) else None
    if isinstance(image, str | os.PathLike):
        return str(image)
    return row_name(image if isinstance(image, Mapping) else None, row)


def _fetched(array: Any) -> np.ndarray:
    """An array, copied from the devices to NumPy."""
    return np.asarray(array) if getattr(array, "is_fully_addressable", True) else to_host(array)


def _read(
    images: Any, parts: Sequence[range] | None, batch_size: int, places: np.ndarray
) -> Iterator[tuple[range, list[int], list[Any]]]:
    """The rows of each batch, those of them at these `places` of the batch, and the images of the latter."""
    if parts is None:  # an iterator
        start = 0
        while read := list(islice(images, batch_size)):
            own = [int(place) for place in places if place < len(read)]
            yield range(start, start + len(read)), [start + place for place in own], [read[place] for place in own]
            start += len(read)
        return
    for rows in (part[start : start + batch_size] for part in parts for start in range(0, len(part), batch_size)):
        own = [rows[place] for place in places if place < len(rows)]
        read = _sliced(images, own[0], own[-1] + 1) if own else []
        yield rows, own, [read[row - own[0]] for row in own]


def _sliced(images: Sequence[Any], start: int, stop: int) -> Sequence[Any]:
    """Images of some rows. One that its sequence cannot decode, such as a column of `datasets`, is a BadImageError."""
    try:
        return images[start:stop]
    except Exception:  # for damaged files Pillow raises nearly everything
        return [_read_one(images, row) for row in range(start, stop)]


def _read_one(images: Sequence[Any], row: int) -> Any:
    try:
        return images[row]
    except Exception as error:
        reason = shorten(str(error) or type(error).__name__, 300)[1:-1]
        return BadImageError(f"row {row}: cannot be read as an image ({reason})")


def _batches(
    images: Iterable[Any],
    processor: ViTClsImageProcessor,
    batch_size: int,
    parts: Sequence[range] | None,
    mesh: Mesh | None,
) -> Iterator[_Batch]:
    """Read and preprocess the images of this process, batch by batch."""
    places = own_places(mesh, batch_size)
    is_whole, is_shared = len(places) == batch_size, mesh is not None and mesh.is_multi_process

    def prepare(image: Any, row: int) -> np.ndarray | BadImageError:
        if isinstance(image, BadImageError):
            return image
        try:
            if image is None or isinstance(image, Mapping):
                return processor([open_image(image)])["pixel_values"][0]
            if isinstance(image, Image.Image):
                with _PIL_LOCK:
                    image = load_image(image)
            return processor([image])["pixel_values"][0]
        except BadImageError as error:
            return named(error, image, row) if isinstance(image, Mapping | None) else error

    def placed(values: np.ndarray) -> Any:
        if not is_shared:
            return values
        assert mesh is not None
        return jax.make_array_from_process_local_data(batch_sharding(mesh, batch_size), values)

    # Not in a `with`: that of a generator which nobody ended would end with Python, too late to wait for threads. They
    # end with the generator.
    threads = ThreadPoolExecutor()
    for rows, own, read in _read(images, parts, batch_size, places):
        prepared = [*threads.map(prepare, read, own)]
        errors = {row: error for row, error in zip(own, prepared) if isinstance(error, BadImageError)}
        readable = np.zeros(len(places), bool)
        readable[: len(own)] = [row not in errors for row in own]
        if is_whole and not readable.any():
            yield _Batch(rows, None, readable, errors, is_whole)
            continue
        shape = next((pixels.shape for pixels in prepared if isinstance(pixels, np.ndarray)), None)
        shape = shape or (len(processor.image_mean), *processor.output_hw)  # pyright: ignore[reportOptionalIterable]
        pixels = np.zeros((len(places), *shape), np.float32)
        for place, values in enumerate(prepared):
            if isinstance(values, np.ndarray):
                pixels[place] = values
        yield _Batch(rows, placed(pixels), readable if is_whole else placed(readable), errors, is_whole)
