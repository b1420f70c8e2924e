"""Embed the images of a dataset, shard by shard; a run that was killed goes on at the first shard that is not whole."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import datasets
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from ..errors import BadImageError, ConfigError
from ..files.folder import check_writable, to_path
from ..images.fingerprint import table_fingerprint
from ..images.kinds import check_dataset
from ..images.processor import ViTClsImageProcessor
from ..images.sources import image_column
from ..modeling_vit_cls import FlaxViTClsModel, embedding_of, reread
from ..predict import predict
from ..pretrained.processor_fit import fitting_processor
from ..scores import unit
from .manifest import agree, begun, digest_of_model, versions
from .shards import EMBEDDING, ROW, Shards, table_of

_ROWS_OF_A_SHARD, _MAX_SHARDS = 1000, 1000  # if the user does not choose
_log = logging.getLogger(__name__)

Batch = tuple[np.ndarray, np.ndarray]  # embeddings (n, F) and their rows (n,)


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """The state of a folder after a call of `embed`.

    `written` are the shards of this call, and `whole` all whole ones in the folder, of `shards`. `rows` images have an
    embedding of `width` numbers, and `left_out` {row: error} are broken; both count this worker's shards.
    """

    shards: int
    whole: int
    written: int
    rows: int
    width: int
    left_out: Mapping[int, str]


def embed(
    model: FlaxViTClsModel,
    dataset: "datasets.Dataset",
    folder: str | os.PathLike[str],
    *,
    image_column_name: str | None = None,
    processor: ViTClsImageProcessor | None = None,
    readout: str | None = None,
    normalize: bool = False,
    batch_size: int = 32,
    shards: int | None = None,
    worker: tuple[int, int] = (0, 1),
    max_bad_images: int = 100,
    origin: Mapping[str, Mapping[str, Any]] | None = None,
    disable_tqdm: bool | None = False,
) -> Embedded:
    """Embed the images of a dataset into parquet files, for `datasets.load_dataset("parquet", data_dir=folder)`.

    The files have the columns of the dataset, `row`, the number of the row in the dataset, and `embedding`, a list of
    fixed length: float32, or float16 for a model that computes in bfloat16 or float16. Images are stored as in the
    dataset: bytes as bytes, paths as paths. Broken images have no row; the metadata `left_out` of a file lists them.

    A killed run is continued by the same call: it begins at the first shard that is not whole, and the files have the
    same bytes as without the interruption (on a GPU, as long as XLA chooses the same kernels in every process). Workers
    of several machines need no connection, only the same folder.

    Args:
        model: the backbone.
        dataset: a dataset with a column of images and any other columns.
        folder: a new folder, or that of an earlier run. `.embed.json` in it records model, processor and dataset.
        image_column_name: default: the only column of images.
        processor: the image processor; default: the model's.
        readout: another readout than the model's own, of those of the config. The embedding is the projection of the
            readout for a model with a projection (CLIP), as in `get_image_features`.
        normalize: give each embedding length 1.
        batch_size: number of images in a batch.
        shards: number of files; default: that of an earlier run, or one for each 1,000 rows, at most 1,000.
        worker: (k, n): do only shards k, k + n, k + 2n, ...; k from 0.
        max_bad_images: broken images are left out and logged; more than this number, in this worker's shards, stop the
            run.
        origin: what to record of {"model": {...}, "dataset": {...}}, such as name and revision.
        disable_tqdm: True shows no progress bar; None shows it in a terminal only.

    Raises ConfigError, with both values, for a folder of another model, processor, dataset or number of shards;
    BadImageError for too many broken images, FloatingPointError for outputs of the model that are not finite, and
    ValueError for an embedding that float16 cannot hold, or that has no direction to normalise.
    """
    model = _with_readout(model, readout)
    processor = fitting_processor(model, processor, "processor")
    dataset, image = _checked(dataset, image_column_name)
    _check_numbers(batch_size=batch_size, max_bad_images=max_bad_images)
    if not (len(worker) == 2 and all(isinstance(number, int) for number in worker) and 0 <= worker[0] < worker[1]):
        raise ConfigError("worker", worker, "must be (k, n): worker k of n, with k from 0 to n - 1")
    folder = to_path(folder)
    check_writable("output", folder)
    stored = np.dtype(np.float32 if model.dtype == jnp.float32 else np.float16)
    files = Shards(folder, _number_of_shards(shards, begun(folder), len(dataset)), len(dataset), batch_size)
    origin = origin or {}
    manifest = {
        "format": 1,
        "readout": model.config.readout,
        "model": {**origin.get("model", {}), "digest": digest_of_model(model)},
        "normalize": bool(normalize),
        "computed_in": jnp.dtype(model.dtype).name,
        "batch_size": batch_size,
        "width": model.config.embedding_size,
        "processor": processor.to_dict(),
        "dataset": {**origin.get("dataset", {}), **table_fingerprint(dataset, image)},
        "shards": files.count,
        "versions": versions(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    agree(folder, manifest)

    left_out = {shard: files.left_out(shard) for shard in range(worker[0], files.count, worker[1])}
    bad = {row: error for rows in left_out.values() for row, error in (rows or {}).items()}
    to_do = [shard for shard, rows in left_out.items() if rows is None]
    parts = [files.part(shard) for shard in to_do]
    with ThreadPoolExecutor(1) as threads, tqdm(total=sum(map(len, parts)), unit="image", disable=disable_tqdm) as bar:

        def leave_out(row: int, error: BadImageError) -> None:
            bad[row] = str(error)
            _log.warning("left out: %s", error)
            if len(bad) > max_bad_images:
                rule = f"more than max_bad_images={max_bad_images} images cannot be read, the last is"
                raise BadImageError(f"{rule} {error}") from error
            bar.update()

        def batches() -> Iterator[Batch]:
            images = dataset.select_columns(image)[image]
            options = {"processor": processor, "batch_size": batch_size, "parts": parts, "on_bad_image": leave_out}
            for embeddings, rows in predict(model, images, take=embedding_of, **options):
                bar.update(len(rows))
                yield _vectors(embeddings, rows, normalize, stored), rows

        writing: Future[None] | None = None  # of the shard before, in a thread
        nothing = np.zeros((0, model.config.embedding_size), stored), np.zeros(0, np.int64)
        for shard, part, computed in zip(to_do, parts, _by_part(batches(), parts)):
            vectors, rows = map(np.concatenate, zip(nothing, *computed))
            broken = {row: error for row, error in bad.items() if part.start <= row < part.stop}
            if writing is not None:
                writing.result()
            writing = threads.submit(files.write, shard, table_of(dataset, image, part, rows, vectors, broken))
        if writing is not None:
            writing.result()

    rows_of_worker = sum(len(files.part(shard)) for shard in left_out)
    if rows_of_worker and len(bad) == rows_of_worker:
        raise BadImageError(f"none of the {rows_of_worker} images can be read")
    return Embedded(
        shards=files.count,
        whole=sum(files.left_out(shard) is not None for shard in range(files.count)),
        written=len(to_do),
        rows=rows_of_worker - len(bad),
        width=model.config.embedding_size,
        left_out=bad,
    )


def _by_part(batches: Iterator[Batch], parts: Sequence[range]) -> Iterator[list[Batch]]:
    """The batches of each part of the rows. The batch after them was started before they are handed out."""
    batch = next(batches, None)
    for part in parts:
        own = []
        while batch is not None and part.start <= batch[1][0] < part.stop:
            own.append(batch)
            batch = next(batches, None)
        yield own


def _vectors(embeddings: np.ndarray, rows: np.ndarray, normalize: bool, stored: np.dtype) -> np.ndarray:
    """Embeddings (n, F) as they are stored. Raises ValueError, naming the row, if one is not finite."""
    vectors = np.asarray(embeddings, np.float32)
    if normalize:
        vectors = unit(vectors)
    with np.errstate(over="ignore"):  # reported below
        vectors = vectors.astype(stored)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        problem = f"is NaN or infinite in {stored}" + (", or has length 0 and no direction" if normalize else "")
        remedy = "look at the model's weights" + ("" if stored == np.float32 else ", or compute in float32")
        raise ValueError(f"the embedding of row {rows[~finite][0]} {problem}: {remedy}")
    return vectors


def _with_readout(model: Any, readout: str | None) -> FlaxViTClsModel:
    """The model with another readout of its parameters. Raises ConfigError if these would need new ones."""
    if not isinstance(model, FlaxViTClsModel):
        remedy = "FlaxViTClsModel.from_pretrained takes the folder of a classifier too"
        raise ConfigError("model", type(model).__name__, f"must be a FlaxViTClsModel; {remedy}")
    return model if readout is None else reread(model, readout)


def _checked(dataset: Any, image_column_name: str | None) -> tuple["datasets.Dataset", str]:
    """The dataset with undecoded images {"bytes", "path"}, and the name of their column."""
    dataset = check_dataset(dataset)
    if len(dataset) == 0:
        raise ConfigError("dataset", "Dataset", "has no examples")
    image = image_column(dataset, image_column_name)
    for name in (ROW, EMBEDDING):
        if name in dataset.column_names:
            rule = "is a column of the dataset, and embed adds one of this name: rename it (Dataset.rename_column)"
            raise ConfigError("dataset", name, rule)
    return dataset.cast_column(image, datasets.Image(decode=False)), image


def _check_numbers(**numbers: Any) -> None:
    for name, value in numbers.items():
        lowest = 0 if name == "max_bad_images" else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise ConfigError(name, value, f"must be an integer from {lowest} on")


def _number_of_shards(shards: Any, earlier: Mapping[str, Any] | None, rows: int) -> int:
    if shards is None and isinstance(earlier, Mapping):
        shards = earlier.get("shards")
    if shards is None:
        shards = min(-(-rows // _ROWS_OF_A_SHARD), _MAX_SHARDS)
    if isinstance(shards, bool) or not isinstance(shards, int) or not 1 <= shards <= rows:
        raise ConfigError("shards", shards, f"must be an integer from 1 to {rows}, the number of images")
    return shards
