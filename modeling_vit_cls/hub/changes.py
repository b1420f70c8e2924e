"""What a push changes: the files of ours in a folder, compared with those in a repository."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from huggingface_hub.hf_api import RepoFile

from ..errors import CheckpointError
from ..families.open import open_checkpoint
from ..files.json_file import read_json
from ..files.yaml_text import parse_yaml
from ..names import (
    CARD,
    CONFIG,
    EVAL_RESULTS,
    PICTURES,
    PROCESSOR,
    RECIPE,
    RESULTS,
    TRAINER_STATE,
    is_checkpoint_file,
    is_weight_file,
)
from ..provenance import public_json, public_recipe, public_results
from ..results import Results

Content = Path | bytes

# What lies beside the weights of a model that was trained or measured here.
_OF_CARD = {*PICTURES, EVAL_RESULTS}  # made with the card from one results.json, and pushed with it or not at all
_REPLACED = {RESULTS, RECIPE, TRAINER_STATE, *_OF_CARD}
_TOKEN = re.compile(rb"hf_[A-Za-z0-9]{30,}")


@dataclass(frozen=True)
class Change:
    """What a push does to one file; `size` in bytes is that of the new content, of a deleted file that of the old.

    "push" where the Hub was not asked what it holds.
    """

    action: Literal["add", "replace", "delete", "unchanged", "push"]
    path: str
    size: int


def files_to_push(
    folder: Path, with_results: bool, card: Mapping[str, bytes | None] | None = None
) -> dict[str, Content]:
    """The checkpoint in a folder, by path in the repository; with the results also what training and benchmark left.

    `card` holds contents by path that are pushed instead of what the folder has there; None keeps that file back. The
    pictures and `.eval_results` belong to a card: without a README.md they are kept back too. Whatever else is in the
    folder stays there. Paths of this machine, in any JSON and in the recipe, are pushed as the last name alone. Raises
    CheckpointError for a folder without a whole checkpoint, and for a text that holds a token of the Hub.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder")
    open_checkpoint(folder)
    found: dict[str, Content] = {e.name: e for e in sorted(folder.iterdir()) if is_checkpoint_file(e.name)}
    if CONFIG not in found or not any(map(is_weight_file, found)):
        raise CheckpointError(f"{folder}: holds no checkpoint of ours; `vit-cls import` makes one of another library's")
    if with_results:
        found |= {name: folder / name for name in sorted(_REPLACED | {CARD}) if (folder / name).is_file()}
        chosen: dict[str, Content | None] = {**found, **(card or {})}
        if chosen.get(CARD) is None:
            chosen |= dict.fromkeys(_OF_CARD)
        found = {name: content for name, content in chosen.items() if content is not None}
    found |= _without_paths(folder, found)
    for name, content in found.items():
        if not is_weight_file(name) and _TOKEN.search(_read(content)):
            raise CheckpointError(f"{folder / name}: holds a token of the Hub; remove it there, and revoke the token")
    return found


def _without_paths(folder: Path, files: Mapping[str, Content]) -> dict[str, bytes]:
    """Those of the JSON files and the recipe that hold paths of this machine, without them; in the folder they stay."""
    changed: dict[str, bytes] = {}
    results = Results.read(folder / RESULTS) if RESULTS in files else Results(metrics={})
    origins = {"dataset_name": results.dataset, "model_name_or_path": results.training.base_model}
    local = [name for name, origin in origins.items() if origin.source == "folder"]
    for name in (CONFIG, PROCESSOR, RESULTS, TRAINER_STATE):
        fields = read_json(folder / name) if name in files else {}
        try:
            shown = public_results(fields, local) if name == RESULTS else public_json(fields)
        except RecursionError as error:
            raise CheckpointError(f"{folder / name}: is nested too deeply; mend it, or remove it") from error
        if shown != fields:
            changed[name] = (json.dumps(shown, indent=2) + "\n").encode()
    if RECIPE in files:
        try:
            recipe = parse_yaml((folder / RECIPE).read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(f"{folder / RECIPE}: cannot be read as YAML; mend it, or remove it") from error
        if isinstance(recipe, dict) and (shown := public_recipe(recipe, local)) != recipe:
            changed[RECIPE] = yaml.safe_dump(shown, sort_keys=False).encode()
    return changed


def compare(files: Mapping[str, Content], remote: Iterable[RepoFile], with_results: bool) -> list[Change]:
    """What must change in a repository for it to hold `files`, and no other file of ours.

    A card is never deleted; where none is pushed, its pictures and `.eval_results` stay with it.
    """
    replaced = (_REPLACED if CARD in files else _REPLACED - _OF_CARD) if with_results else set()
    there = {file.path: file for file in remote}
    changes: list[Change] = []
    for name, content in files.items():
        action = "add"
        if name in there:
            action = "unchanged" if _is_same(content, there[name]) else "replace"
        changes.append(Change(action, name, _size(content)))
    for name, file in there.items():
        ours = is_checkpoint_file(name) or name in replaced
        if ours and name not in files:
            changes.append(Change("delete", name, file.size))
    return sorted(changes, key=lambda change: change.path)


def unasked(files: Mapping[str, Content]) -> list[Change]:
    """What a push would send to a Hub that holds none of it."""
    return [Change("push", name, _size(content)) for name, content in sorted(files.items())]


def _is_same(content: Content, file: RepoFile) -> bool:
    """Whether a file is what the repository says of it: by SHA-256 in LFS, else by git's SHA-1 of a blob."""
    size = _size(content)
    if size != file.size:
        return False
    if file.lfs is not None:
        return _digest(content, hashlib.sha256()) == file.lfs.sha256
    return _digest(content, hashlib.sha1(b"blob %d\0" % size)) == file.blob_id


def _size(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _read(content: Content) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def _digest(content: Content, digest: "hashlib._Hash") -> str:
    if isinstance(content, bytes):
        digest.update(content)
    else:
        with open(content, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
