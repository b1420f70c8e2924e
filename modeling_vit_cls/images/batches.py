"""Batches of uint8 images in an order that is a pure function of seed, epoch and step."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..errors import BadImageError, ConfigError
from ..install import needs
from .batch import Batch
from .crop import random_crop
from .processor import ViTClsImageProcessor
from .rows import named, open_image, unskipped
from .sources import OnBadImage, check_on_bad_image

try:
    import grain
    from absl import flags
except ImportError as error:
    raise needs("grain", "to read training data", "train") from error

_THREADS = max(2, os.cpu_count() or 1)  # Pillow releases the interpreter's lock while it decodes and resizes


def batches_per_epoch(examples: int, batch_size: int) -> int:
    """Number of batches in an epoch. The last one is filled up, so that every example is used once."""
    return -(-examples // batch_size)


def training_batches(
    dataset: Any,
    processor: ViTClsImageProcessor,
    *,
    batch_size: int,
    num_epochs: int,
    seed: int,
    start_step: int = 0,
    crop_scale: float = 1.0,
    num_workers: int = 0,
    on_bad_image: OnBadImage = "raise",
    places: Sequence[int] | np.ndarray | None = None,
) -> Iterator[Batch]:
    """All batches of a training run from `start_step` on. Each epoch is shuffled anew.

    Args:
        dataset: rows as `load_images` returns them.
        crop_scale: the smallest share of an image's area in a random crop, which takes the place of the processor's
            resizing and central crop; 1 for none.
        num_workers: number of processes that read and resize; 0 uses threads of this process.
        on_bad_image: "raise" stops at a broken image, "skip" puts a black image with `valid` False in its place.
        places: read only the images at these places of each batch, those of this process; default: all.

    Raises BadImageError, naming the file, for a broken image unless `on_bad_image` is "skip".
    """
    places = np.arange(batch_size) if places is None else np.asarray(places)
    examples = _Examples(dataset, processor, seed, crop_scale, on_bad_image, places)
    rows = (
        grain.MapDataset.range(len(dataset))
        .seed(seed)
        .shuffle()
        .batch(batch_size, batch_fn=partial(_filled, batch_size))
    )
    return _read(rows.repeat(num_epochs).map_with_index(examples)[start_step:], num_workers)


def _filled(size: int, rows: Sequence[int]) -> np.ndarray:
    """Row numbers, filled up to `size` by -1."""
    return np.pad(np.asarray(rows, np.int32), (0, size - len(rows)), constant_values=-1)


class _Examples:
    """A function that reads the examples of one process: step, row numbers of a batch (B,) -> Batch of its `places`."""

    def __init__(
        self,
        dataset: Any,
        processor: ViTClsImageProcessor,
        seed: int,
        crop_scale: float,
        on_bad_image: OnBadImage,
        places: np.ndarray,
    ):
        check_on_bad_image(on_bad_image)
        if len(dataset) == 0:
            raise ConfigError("dataset", "Dataset", "has no examples")
        if processor.output_hw is None:
            raise ConfigError("processor", processor, "must resize or crop to one size, so that images fill a batch")
        self._dataset, self._processor, self._skip = dataset, processor, on_bad_image == "skip"
        self._blank = np.zeros((*processor.output_hw, len(processor.image_mean)), np.uint8)
        self._seed, self._crop_scale, self._places = seed, crop_scale, places

    def __call__(self, step: int, rows: np.ndarray) -> Batch:
        draws = np.random.default_rng([self._seed, step]).random((len(rows), 4))  # the same in all processes
        pixels, labels, valid = zip(*map(self._example, rows[self._places].tolist(), draws[self._places]))
        return Batch(np.stack(pixels), np.asarray(labels, np.int32), rows, np.asarray(valid))

    def _example(self, row: int, draws: np.ndarray) -> tuple[np.ndarray, int, bool]:
        """Pixels (H, W, C) uint8, label and whether they are valid; row -1 fills a batch up."""
        if row < 0:
            return self._blank, 0, False
        example = self._dataset[row]
        try:
            image = open_image(example["image"])
            box = random_crop(draws, image.size, self._crop_scale) if self._crop_scale < 1 else None
            return self._processor.resized(image, box), example["label"], True
        except BadImageError as error:
            if not self._skip:
                raise unskipped(named(error, example["image"], row)) from error
            return self._blank, example["label"], False


def _read(batches: Any, num_workers: int) -> Iterator[Batch]:
    if num_workers == 0:
        return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=4)))
    if not flags.FLAGS.is_parsed():  # grain reads absl flags in its workers; only a program of absl has parsed them
        flags.FLAGS.mark_as_parsed()
    options = grain.MultiprocessingOptions(num_workers=num_workers)
    one_at_a_time = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)  # by default a process holds 500 batches
    return iter(batches.to_iter_dataset(one_at_a_time).mp_prefetch(options))
