"""The numbered parquet files of an embedded dataset: rows, names, which are whole, and how one is written."""

import json
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from ..files.folder import replacing

ROW, EMBEDDING = "row", "embedding"  # the columns that are added to those of the dataset
_LEFT_OUT = b"left_out"  # in a file's metadata: the broken images, as JSON {row: error}
_ROW_GROUP = 1000  # rows that a reader of the file holds in memory at once


class Shards:
    """`count` shards of a dataset of `rows` rows, in a folder. Each has consecutive rows, in order.

    Shards end where batches of `batch_size` rows end, so that no batch is filled up within the dataset; where there are
    fewer batches than shards, they end anywhere.
    """

    def __init__(self, folder: Path, count: int, rows: int, batch_size: int = 1):
        self.folder, self.count, self._rows = folder, count, rows
        self._unit = batch_size if count * batch_size <= rows else 1

    def file(self, shard: int) -> Path:
        """The file of a shard, such as part-00017-of-00512.parquet."""
        return self.folder / f"part-{shard:05d}-of-{self.count:05d}.parquet"

    def part(self, shard: int) -> range:
        """The rows of the dataset that belong to a shard."""
        units = self._rows / (self.count * self._unit)
        start, stop = (round(units * number) * self._unit for number in (shard, shard + 1))
        return range(start, self._rows if shard + 1 == self.count else stop)

    def left_out(self, shard: int) -> dict[int, str] | None:
        """The broken images of a shard, {row: error}; None if the shard is not whole.

        A file gets its name when it is whole. One that was damaged later, as by a copy that was cut, has no footer.
        """
        for file in (self.file(shard), _hidden(self.file(shard))):
            with suppress(OSError, pa.ArrowInvalid, TypeError, KeyError, ValueError):
                metadata = parquet.read_metadata(file).metadata
                return {int(row): error for row, error in json.loads(metadata[_LEFT_OUT]).items()}
        return None

    def write(self, shard: int, table: pa.Table) -> None:
        """Write a shard under a temporary name, then give it its own; one without rows is hidden from `datasets`.

        Some versions of `datasets` cannot read a file without rows. Raises OSError if it cannot be written.
        """
        file = self.file(shard) if table.num_rows else _hidden(self.file(shard))
        for leftover in self.folder.glob(f".{file.name}.tmp-*"):  # of a process that was killed
            leftover.unlink(missing_ok=True)
        with replacing(file) as opened:
            parquet.write_table(table, opened, row_group_size=_ROW_GROUP)


def _hidden(file: Path) -> Path:
    return file.with_name(f".{file.name}")


def table_of(
    dataset: "datasets.Dataset", image: str, part: range, rows: np.ndarray, embeddings: np.ndarray, bad: Mapping
) -> pa.Table:
    """The rows of a shard as an Arrow table: the dataset's columns, `row`, and `embedding` (n, F).

    Args:
        dataset: the dataset, whose column `image` holds {"bytes", "path"}.
        image: name of the column of images; in the table it has the type Image.
        part: the rows of the shard.
        rows: the rows that have an embedding, in order.
        embeddings: their embeddings (n, F), float32 or float16.
        bad: the other rows, {row: error}, which become metadata.
    """
    features = datasets.Features(
        {
            **dataset.features,
            image: datasets.Image(),
            ROW: datasets.Value("int64"),
            EMBEDDING: datasets.List(datasets.Value(str(embeddings.dtype)), length=embeddings.shape[1]),
        }
    )
    whole: Any = dataset.with_format("arrow")[part.start : part.stop]
    stops = [part.start - 1, *sorted(bad), part.stop]  # slices between broken rows: taking rows would copy all images
    whole = pa.concat_tables([whole.slice(a + 1 - part.start, b - a - 1) for a, b in pairwise(stops)])
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.reshape(-1)), embeddings.shape[1])
    schema: Any = features.arrow_schema
    schema = schema.with_metadata({**schema.metadata, _LEFT_OUT: json.dumps(dict(bad)).encode()})
    columns = [whole.column(name) for name in dataset.features]
    return pa.table([*columns, pa.array(rows, pa.int64()), vectors], schema=schema)
