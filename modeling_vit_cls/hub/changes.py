"""The changes that a push makes: our files in a folder compared with those in a repository."""

import io
import json
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash, sha_fileobj

from ..errors import CheckpointError
from ..families.open import open_checkpoint
from ..files.json_file import read_json
from ..files.ownership import is_signed
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

# Made with the card from one results.json, and pushed with it or not at all.
_OF_CARD = {*PICTURES, EVAL_RESULTS}
# Our files besides a checkpoint: what training and benchmark wrote. A push with results replaces or deletes them.
_RESULT_FILES = {RESULTS, RECIPE, TRAINER_STATE, *_OF_CARD}
_TOKEN = re.compile(rb"hf_[A-Za-z0-9]{30,}")


@dataclass(frozen=True)
class Change:
    """What a push does to one file. `size` is in bytes, of the new content or of the deleted file.

    The action is "push" if the Hub was not reached, so that the old content is unknown, and "keep" for a card that
    somebody wrote or edited in the repository.
    """

    action: Literal["add", "replace", "delete", "unchanged", "keep", "push"]
    path: str
    size: int

    @property
    def is_needed(self) -> bool:
        """Whether the file in the repository changes."""
        return self.action not in ("unchanged", "keep")


def files_to_push(
    folder: Path, with_results: bool, card: Mapping[str, bytes | None] | None = None
) -> dict[str, Content]:
    """The files of a checkpoint to push, {path in the repository: content}.

    With `with_results`, also what training and benchmark wrote. `card` holds contents by path that are pushed instead
    of the folder's; None leaves that file out. The pictures and `.eval_results` belong to a card: without a README.md
    they are left out too. Other files are not pushed. In JSON files and the recipe, local paths are replaced by their
    last name. Raises CheckpointError for a folder without a complete checkpoint, and for a text file that contains a
    token of the Hub.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder")
    open_checkpoint(folder)
    files: dict[str, Content] = {e.name: e for e in sorted(folder.iterdir()) if is_checkpoint_file(e.name)}
    if CONFIG not in files or not any(map(is_weight_file, files)):
        remedy = "convert another library's checkpoint with `vit-cls import` first"
        raise CheckpointError(f"{folder}: holds no checkpoint of this package; {remedy}")
    if with_results:
        files |= {name: folder / name for name in sorted(_RESULT_FILES | {CARD}) if (folder / name).is_file()}
        chosen: dict[str, Content | None] = {**files, **(card or {})}
        if chosen.get(CARD) is None:
            chosen |= dict.fromkeys(_OF_CARD)
        files = {name: content for name, content in chosen.items() if content is not None}
    files |= _without_paths(folder, files)
    for name, content in files.items():
        if not is_weight_file(name) and _TOKEN.search(_read(content)):
            raise CheckpointError(f"{folder / name}: holds a token of the Hub; remove it, and revoke the token")
    return files


def _without_paths(folder: Path, files: Mapping[str, Content]) -> dict[str, bytes]:
    """The JSON files and the recipe that contain local paths, without these. The folder itself is unchanged."""
    changed: dict[str, bytes] = {}
    results = Results.read(folder / RESULTS) if RESULTS in files else Results(metrics={})
    origins = {"dataset_name": results.dataset, "model_name_or_path": results.training.base_model}
    local = [name for name, origin in origins.items() if origin.source == "folder"]
    for name in (CONFIG, PROCESSOR, RESULTS, TRAINER_STATE):
        fields = read_json(folder / name) if name in files else {}
        try:
            public = public_results(fields, local) if name == RESULTS else public_json(fields)
        except RecursionError as error:
            raise CheckpointError(f"{folder / name}: is nested too deeply; correct or remove it") from error
        if public != fields:
            changed[name] = (json.dumps(public, indent=2) + "\n").encode()
    if RECIPE in files:
        try:
            recipe = parse_yaml((folder / RECIPE).read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(f"{folder / RECIPE}: cannot be read as YAML; correct or remove it") from error
        if isinstance(recipe, dict) and (public := public_recipe(recipe, local)) != recipe:
            changed[RECIPE] = yaml.safe_dump(public, sort_keys=False).encode()
    return changed


def compare(
    files: Mapping[str, Content],
    remote: Iterable[RepoFile],
    with_results: bool,
    outdated: Set[str] = frozenset(),
    keep_card: bool = False,
) -> list[Change]:
    """The changes after which a repository contains `files` and no outdated file: of ours, or of those named.

    A card is never deleted. If no card is pushed, or that of the repository is kept, its pictures and `.eval_results`
    stay with it.
    """
    if keep_card:
        files = {name: content for name, content in files.items() if name not in {CARD, *_OF_CARD}}
    replaced = (_RESULT_FILES if CARD in files else _RESULT_FILES - _OF_CARD) if with_results else set()
    old_files = {file.path: file for file in remote}
    changes: list[Change] = []
    for name, content in files.items():
        action = "add"
        if name in old_files:
            action = "unchanged" if _is_same(content, old_files[name]) else "replace"
        changes.append(Change(action, name, _size(content)))
    if keep_card:
        changes.append(Change("keep", CARD, old_files[CARD].size))
    for name, file in old_files.items():
        is_outdated = is_checkpoint_file(name) or name in replaced or name in outdated
        if is_outdated and name not in files:
            changes.append(Change("delete", name, file.size))
    return sorted(changes, key=lambda change: change.path)


def unasked(files: Mapping[str, Content]) -> list[Change]:
    """The changes of a push if the Hub was not reached: all files."""
    return [Change("push", name, _size(content)) for name, content in sorted(files.items())]


def is_generated(card: Content) -> bool:
    """Whether a card that is pushed was written by this package, and not by the user."""
    return is_signed(_read(card).decode(errors="replace"))


def _is_same(content: Content, file: RepoFile) -> bool:
    """Whether the content equals a file in the repository: by SHA-256 in LFS, else by git's SHA-1 of a blob."""
    if _size(content) != file.size:
        return False
    if file.lfs is None:
        return git_hash(_read(content)) == file.blob_id
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as opened:
        return sha_fileobj(opened).hex() == file.lfs.sha256


def _size(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _read(content: Content) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()
