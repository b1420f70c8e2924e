"""One timed pass of a model over the images of a dataset, with a progress bar; the benchmark's and the features'."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..errors import BadImageError, ConfigError
from ..images.processor import ViTClsImageProcessor
from ..images.rows import unskipped
from ..images.sources import OnBadImage, check_on_bad_image
from ..install import needs
from ..nn.mesh import divisible, mesh_of
from ..predict import predict
from ..pretrained.processor_fit import fitting_processor

try:
    from tqdm.auto import tqdm
except ImportError as error:
    raise needs("tqdm", "to show progress", "train") from error

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ForwardPass:
    """What a pass over a dataset gave.

    Attributes:
        batches: the results of each batch, in order.
        rows: the rows of the dataset that they belong to, (N,); broken images are left out.
        seconds: the time for decoding, preprocessing and the forward pass, without compilation.
        throughput: the conditions, for `Results`.
    """

    batches: list[Any]
    rows: np.ndarray
    seconds: float
    throughput: dict[str, Any]


def forward_pass(
    model: Any,
    dataset: Any,
    take: Callable[[Any], Any],
    each: Callable[[Any], Any],
    *,
    processor: ViTClsImageProcessor | None,
    batch_size: int,
    on_bad_image: OnBadImage,
    disable_tqdm: bool | None,
) -> ForwardPass:
    """Run a model over the column "image" of a dataset.

    Args:
        model: a model of this package.
        dataset: rows as `load_images` returns them.
        take: as in `predict`.
        each: function from what was taken of a batch to its result; it is timed too.
        processor: the image processor; default: the model's.
        batch_size: number of images in a batch.
        on_bad_image: "skip" leaves broken images out and logs each; "raise" stops.
        disable_tqdm: True shows no progress bar; None shows it in a terminal only.

    Raises ConfigError for wrong arguments, BadImageError for a broken image, or if no image can be read, and
    FloatingPointError, as `predict`, for outputs that are not finite.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError("batch_size", batch_size, "must be a positive integer")
    check_on_bad_image(on_bad_image)
    fitting = fitting_processor(model, processor, "processor")
    # as `predict` makes them, so that it is recorded; without one size the size depends on the image
    batch_size = 1 if fitting.output_hw is None else divisible(batch_size, mesh_of(model.params))
    options: dict[str, Any] = {"processor": fitting, "batch_size": batch_size, "take": take}
    blank = np.zeros((*model.config.image_hw, 3), np.uint8)
    with suppress(FloatingPointError):  # raised below if the dataset's images overflow too
        list(predict(model, [blank] * min(len(dataset), 2), **options))  # compiles for the shape of the batches

    def leave_out(row: int, error: BadImageError) -> None:
        if on_bad_image == "raise":
            raise unskipped(error) from error
        _log.warning("left out: %s", error)

    batches, rows = [], []
    start = time.perf_counter()
    with tqdm(total=len(dataset), unit="image", disable=disable_tqdm) as bar:
        for outputs, batch_rows in predict(model, dataset["image"], on_bad_image=leave_out, **options):
            batches.append(each(outputs))
            rows.append(batch_rows)
            bar.update(len(batch_rows))
    seconds = time.perf_counter() - start
    if not rows:
        raise BadImageError(f"none of the {len(dataset)} images can be read")
    count = sum(map(len, rows))
    throughput = {"images_per_second": count / seconds, "batch_size": batch_size, "dtype": jnp.dtype(model.dtype).name}
    throughput["includes"] = "decode, preprocess, forward"
    return ForwardPass(batches, np.concatenate(rows), seconds, throughput)
