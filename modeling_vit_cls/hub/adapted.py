"""Opening a checkpoint that may be an adapter: its base model is another checkpoint, in a folder or on the Hub."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import CheckpointError
from ..families.adapter import adapter_folder, read_adapter
from ..families.open import Reader, Source, open_checkpoint
from ..files.weights import read_weights
from .download import checkpoint_path


def open_with_base(
    path: Path,
    find: Callable[..., Path] = checkpoint_path,
    overrides: Mapping[str, Any] = MappingProxyType({}),
    read: Reader = read_weights,
) -> Source:
    """Open a checkpoint as `open_checkpoint` does; an adapter of PEFT is merged into its base model.

    `find` gives the path of the base: `checkpoint_path`, with the user's options for the Hub.
    """
    folder = adapter_folder(path)
    if folder is None:
        return open_checkpoint(path, overrides, read=read)
    adapter = read_adapter(folder, read)
    try:
        base = find(adapter.base, revision=adapter.revision)
    except CheckpointError as error:
        problem = "is a LoRA adapter, and its base model cannot be read"
        raise type(error)(f"{folder}: {problem}: {error}") from error
    return open_checkpoint(base, overrides, read=read, adapter=adapter)
