"""Writing one safetensors file: the right numbers, the usual permissions, and the same bytes for the same content."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file


def write_safetensors(file: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write named arrays and metadata. Raises OSError if the disk is full or fails."""
    # for an array that is not contiguous, safetensors writes wrong numbers without an error
    contiguous = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in tensors.items()}
    file.touch()  # gets the usual permissions; safetensors alone would write 0600
    mode = file.stat().st_mode & 0o777
    try:
        save_file(contiguous, file, metadata=dict(metadata))
    except SafetensorError as error:  # usually a full disk
        raise OSError(str(error)) from error
    file.chmod(mode)
    _sort_metadata(file)


def _sort_metadata(file: Path) -> None:
    """Sort the metadata by name; safetensors writes it in a random order."""
    with open(file, "r+b") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) > length:
            raise ValueError(f"{file}: a header of {len(text)} bytes does not fit into {length}")
        opened.seek(8)
        opened.write(text.ljust(length))
