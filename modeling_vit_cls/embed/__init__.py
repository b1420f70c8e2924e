"""Embeddings of a dataset's images, as a folder of parquet shards that `datasets` reads."""

from ..install import needs

try:
    import datasets as datasets
    import pyarrow as pyarrow
except ImportError as error:
    raise needs("datasets", "to embed a dataset", "train") from error

from .run import Embedded, embed

__all__ = ["Embedded", "embed"]
