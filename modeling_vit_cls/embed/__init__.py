"""Embeddings of a dataset's images, as a folder of parquet shards that `datasets` reads."""

from .run import Embedded, embed

__all__ = ["Embedded", "embed"]
