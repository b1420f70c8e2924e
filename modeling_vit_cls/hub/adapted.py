"""Opening a checkpoint that may be an adapter: its base model is another checkpoint, in a folder or on the Hub."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import CheckpointError
from ..families.adapter import adapter_folder, read_adapter, refuse_two_models
from ..families.open import Reader, Source, is_foreign, open_checkpoint
from ..files.weights import holds_standard_weights, read_weights
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
    beside_weights = folder == path and holds_standard_weights(path)
    is_whole = beside_weights and not is_foreign(path)  # weights of this package, saved beside an adapter
    if folder is None or is_whole:
        return open_checkpoint(path, overrides, read=read)
    if beside_weights:
        refuse_two_models(folder)
    adapter = read_adapter(folder, read)
    try:
        base = find(adapter.base, revision=adapter.revision)
    except CheckpointError as error:
        problem = "is a LoRA adapter, and its base model cannot be read"
        raise type(error)(f"{folder}: {problem}: {error}") from error
    return open_checkpoint(base, overrides, read=read, adapter=adapter)
