"""One file with the digests of all other files in a checkpoint-N folder, so that mixed or damaged files are noticed."""

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
    """Write the digests of all files that are in a folder now."""
    files = {entry.name: _digest(entry) for entry in sorted(folder.iterdir()) if entry.name != DIGESTS}
    (folder / DIGESTS).write_text(_text(files), encoding="utf-8")


def check_digests(folder: Path, names: Iterable[str] | None = None) -> None:
    """Compare the files of a checkpoint-N folder with their digests; all of them, or only `names`.

    Raises CheckpointError, naming the file, if one is missing, damaged or from another checkpoint, and if the digests
    are missing.
    """
    digests = _read_digests(folder)
    for name in digests if names is None else digests.keys() & set(names):
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file}: is missing, but {DIGESTS} names it. {_remedy(folder)}")
        if _digest(file) != digests[name]:
            problem = "it is damaged, was edited, or belongs to another checkpoint"
            raise CheckpointError(
                f"{file}: differs from what was saved in this checkpoint: {problem}. {_remedy(folder)}"
            )


def _read_digests(folder: Path) -> dict[str, str]:
    file = folder / DIGESTS
    if not file.is_file():
        problem = "it was lost, or an earlier version without digests wrote the checkpoint"
        remedy = "training cannot be resumed from it; load its model to begin a new run in another output_dir"
        raise CheckpointError(f"{file}: is missing: {problem}; {remedy}")
    try:
        text = file.read_bytes().decode()
        fields: Any = json.loads(text)
        if text == _text(fields["files"]):  # the text ends with its own digest
            return fields["files"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    raise CheckpointError(f"{file}: is damaged or was edited. {_remedy(folder)}")


def _remedy(folder: Path) -> str:
    return f"Restore {folder.name} from a copy, or use an earlier checkpoint"


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
