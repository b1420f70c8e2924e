"""The digests of all files of a checkpoint-N folder, in one file of their own: what ties them together."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import xxhash

from ..errors import CheckpointError
from ..names import DIGESTS

_BLOCK = 1 << 20
_FORMAT = 1


def write_digests(folder: Path) -> None:
    """Write the digests of every file that a folder holds by now."""
    files = {entry.name: _digest(entry) for entry in sorted(folder.iterdir()) if entry.name != DIGESTS}
    (folder / DIGESTS).write_text(_text(files), encoding="utf-8")


def check_digests(folder: Path, names: Iterable[str] | None = None) -> None:
    """Compare the files of a checkpoint-N folder, or those of these names, with their digests.

    Raises CheckpointError, naming the file, where one is missing, damaged, or of another checkpoint; also where there
    are no digests.
    """
    digests = _read_digests(folder)
    for name in digests if names is None else digests.keys() & set(names):
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file}: is missing; {DIGESTS} names it. {_remedy(folder)}")
        if _digest(file) != digests[name]:
            problem = "is damaged, was edited, or is of another checkpoint"
            raise CheckpointError(f"{file}: is not what was saved in this checkpoint: it {problem}. {_remedy(folder)}")


def _read_digests(folder: Path) -> dict[str, str]:
    file = folder / DIGESTS
    if not file.is_file():
        problem = "it was lost, or the checkpoint is of an earlier version, which kept no digests"
        remedy = "training cannot be resumed from it; its model can be loaded, to begin a new run in another output_dir"
        raise CheckpointError(f"{file}: is missing: {problem}; {remedy}")
    try:
        text = file.read_bytes().decode()
        fields: Any = json.loads(text)
        if text == _text(fields["files"]):  # its own digest is part of the text
            return fields["files"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    raise CheckpointError(f"{file}: is damaged or was edited. {_remedy(folder)}")


def _remedy(folder: Path) -> str:
    return f"Put back a copy of {folder.name}, or use an earlier checkpoint"


def _text(files: dict[str, str]) -> str:
    content = {"format": _FORMAT, "algorithm": "xxh3_128", "files": dict(sorted(files.items()))}
    whole = xxhash.xxh3_128_hexdigest(json.dumps(content).encode())
    return json.dumps({**content, "digest": whole}, indent=2) + "\n"


def _digest(file: Path) -> str:
    digest = xxhash.xxh3_128()
    with open(file, "rb") as opened:
        while block := opened.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
