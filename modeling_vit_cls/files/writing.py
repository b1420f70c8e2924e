"""Writing one safetensors file: the right numbers, an ordinary mode, and the same bytes for the same content."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file


def write_safetensors(file: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write named arrays. Raises OSError where the disk does not take them."""
    # safetensors writes the wrong numbers, without a word, for an array that is not contiguous
    whole = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in tensors.items()}
    file.touch()  # with the mode of any new file; safetensors alone would write 0600
    mode = file.stat().st_mode & 0o777
    try:
        save_file(whole, file, metadata=dict(metadata))
    except SafetensorError as error:  # a full disk, as a rule
        raise OSError(str(error)) from error
    file.chmod(mode)
    _sort_metadata(file)


def _sort_metadata(file: Path) -> None:
    """Put the metadata, which safetensors writes in an order of chance, in the order of its names."""
    with open(file, "r+b") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) > length:
            raise ValueError(f"{file}: a header of {len(text)} bytes has no place in {length}")
        opened.seek(8)
        opened.write(text.ljust(length))
