"""Checkpoints on the Hub, downloaded into the cache as a folder."""

import logging
import os
import posixpath
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.utils import filter_repo_objects

from ..errors import CheckpointError, ConfigError, shorten
from ..families.not_read import ADAPTER
from ..families.open import config_file
from ..files.folder import to_path
from ..files.formats import SUFFIXES
from ..files.unread import pickle_refused, pickled_weights, unread_weights
from ..files.weights import FLAX, holds_weights
from ..names import CONFIG, INDEX, NESTED_PROCESSOR, OPEN_CLIP_CONFIG, PROCESSOR, WEIGHTS
from .converted import converted_revision
from .errors import errors_in_one_line

logger = logging.getLogger(__name__)

Fetch = Callable[[str, str, str | None, str | None, dict[str, Any]], Path]
_FILES = (CONFIG, PROCESSOR, NESTED_PROCESSOR, ADAPTER, OPEN_CLIP_CONFIG)
_WEIGHTS = (WEIGHTS, INDEX, "model-[0-9]*-of-[0-9]*.safetensors")
_OTHER_WEIGHTS = (FLAX, "*.safetensors", "*.npz")  # downloaded only if there are none of _WEIGHTS


def download(repo_id: str, subfolder: str, revision: str | None, variant: str | None, hub: dict[str, Any]) -> Path:
    """Download only the checkpoint of a repository, and return its folder in the cache."""
    prefix, weights = _prefix(subfolder), _weight_patterns(variant)

    def fetch(*patterns: str) -> Path:
        paths = [prefix + pattern for pattern in patterns]
        below = [f"{prefix}*/*"]  # the Hub's wildcards match "/" too
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=paths, ignore_patterns=below, **hub))

    with errors_in_one_line(repo_id, revision, hub.get("token")):
        root = fetch(*_FILES, *weights)
        if variant is None and not holds_weights(root / subfolder):
            root = fetch(*_FILES, *weights, *_OTHER_WEIGHTS)
        if holds_weights(root / subfolder) or variant is not None:
            return root
        if hub.get("local_files_only") or constants.HF_HUB_OFFLINE:
            logger.warning("%s: no weights of it are in the cache of the Hub, and this is offline", repo_id)
            return root
        api = HfApi(token=hub.get("token"))
        names = api.list_repo_files(repo_id, revision=revision)
        converted = revision_without_pickles(api, repo_id, names, subfolder, revision)
    if converted is None:
        return root
    logger.warning("%s: %s; offline, give revision=%r", repo_id, conversion_note(converted), converted)
    return download(repo_id, subfolder, converted, variant, hub)


def checkpoint_path(
    name_or_path: str | os.PathLike[str],
    *,
    subfolder: str = "",
    revision: str | None = None,
    variant: str | None = None,
    fetch: Fetch = download,
    **hub: Any,
) -> Path:
    """The folder or weight file of a checkpoint, given by path or Hub id; downloaded if needed, from one commit.

    Args:
        variant: "fp16" and the like: return the weight file, or the index of shards, of this variant.
        fetch: (repository, subfolder, revision, variant, `hub`) -> a folder with the repository's files, for a Hub id.
        hub: `cache_dir`, `force_download`, `local_files_only` and `token`, as in huggingface_hub.

    Raises CheckpointError, with a message of one line, if the folder, repository, revision or subfolder does not exist,
    if access is denied, if there is no network and nothing in the cache, or if the answer is not that of a Hub. Raises
    ConfigError if there are no weights of the variant.
    """
    name = os.fspath(name_or_path)
    for argument, value in (("subfolder", subfolder), ("revision", revision or "")):  # both become part of a path
        if Path(value).is_absolute() or ".." in Path(value).parts:
            raise CheckpointError(f"{argument}={shorten(value)}: must be inside the checkpoint")
    if variant is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,50}", str(variant)):
        raise ConfigError("variant", variant, "must be a word, such as 'fp16' for model.fp16.safetensors")
    try:
        root = to_path(Path(name).expanduser())
    except RuntimeError as error:
        raise CheckpointError(f"{shorten(name)}: cannot be a path ({error})") from error
    if root.is_file():
        return root
    if not root.exists():
        root = fetch(name, subfolder, revision, variant, hub)
    folder = to_path(root / subfolder)
    known = (config_file(folder), folder / ADAPTER)
    if not folder.is_dir() or not (any(file.is_file() for file in known) or holds_weights(folder)):
        if folder.is_dir() and (error := unread_weights((entry.name for entry in folder.iterdir()), folder)):
            raise error
        where = f"{name}, subfolder {subfolder!r}" if subfolder else name
        problem = f"is no checkpoint, because there is no config.json in {folder}"
        raise CheckpointError(f"{where}: {problem}{_checkpoint_below(folder, subfolder)}")
    return folder if variant is None else _of_variant(folder, variant)


def _checkpoint_below(folder: Path, subfolder: str) -> str:
    """The end of an error: the `subfolder` to give, where a folder that is no checkpoint holds some."""
    files = sorted([*folder.glob(f"*/{ADAPTER}"), *folder.glob(f"*/{CONFIG}")])
    if not files:
        return ""
    return f"; there is one below it: give subfolder={posixpath.join(subfolder, files[0].parent.name)!r}"


def _variant_files(variant: str) -> tuple[str, str]:
    """The weight file and the index of a variant, by the names that transformers gives them."""
    return f"model.{variant}.safetensors", f"model.safetensors.index.{variant}.json"


def _of_variant(folder: Path, variant: str) -> Path:
    names = _variant_files(variant)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    others = sorted(entry.name for entry in folder.iterdir() if entry.suffix == ".safetensors")
    rule = f"there is no {names[0]} in {folder}, only {', '.join(others) or 'no weights at all'}: leave variant out"
    raise ConfigError("variant", variant, rule)


def files_to_download(names: Iterable[str], subfolder: str, variant: str | None) -> list[str]:
    """The files of a repository that `download` downloads, of those in its list."""
    prefix, names = _prefix(subfolder), list(names)

    def chosen(*patterns: str) -> list[str]:
        return list(filter_repo_objects(names, allow_patterns=[prefix + pattern for pattern in patterns]))

    files = chosen(*_FILES, *_weight_patterns(variant))
    if variant is None and not any(name.endswith(SUFFIXES) for name in files):
        files = chosen(*_FILES, *_weight_patterns(variant), *_OTHER_WEIGHTS)
    return [name for name in files if "/" not in name.removeprefix(prefix)]


def revision_without_pickles(
    api: HfApi, repo_id: str, names: Iterable[str], subfolder: str, revision: str | None
) -> str | None:
    """The revision with the safetensors of a repository that has pickled weights alone; None without pickled weights.

    Raises CheckpointError, with the remedy, where the Hub's converter has not converted them, where config.json or
    another file that is read with the weights has changed since, and for weights of a format that is not read.
    """
    prefix = _prefix(subfolder)
    own = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    own = [name for name in own if "/" not in name]
    pickled = [prefix + name for name in pickled_weights(own)]
    if not pickled:
        if error := unread_weights(own, f"{repo_id}/{prefix}".rstrip("/")):
            raise error
        return None
    converted = None
    if revision in (None, "main"):
        converted = converted_revision(api, repo_id, pickled, [prefix + name for name in _FILES])
    if converted is None:
        raise pickle_refused(f"{repo_id}/{pickled[0]}")
    return converted


def conversion_note(converted: str) -> str:
    """The sentence for a repository whose weights are read from the revision `converted`."""
    return f"has pickled weights only, which are never read; the Hub's converter offers safetensors in {converted}"


def _prefix(subfolder: str) -> str:
    """The start of the names of the files in a subfolder."""
    path = posixpath.normpath(subfolder.strip("/"))
    return "" if path == "." else f"{path}/"


def _weight_patterns(variant: str | None) -> tuple[str, ...]:
    """The file names, with shell wildcards, of a repository's weights."""
    return _WEIGHTS if variant is None else (*_variant_files(variant), f"model.{variant}-[0-9]*.safetensors")
