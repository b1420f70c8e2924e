"""Checkpoints on the Hub, downloaded into the cache as a folder."""

import os
import re
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download

from ..errors import CheckpointError, ConfigError, shorten
from ..families.not_read import ADAPTER
from ..families.open import config_file
from ..files.folder import to_path
from ..files.weights import FLAX, PICKLES, holds_weights, pickle_refused
from ..names import CONFIG, INDEX, NESTED_PROCESSOR, OPEN_CLIP_CONFIG, PROCESSOR, WEIGHTS
from .errors import download_error

_FILES = (CONFIG, PROCESSOR, NESTED_PROCESSOR, ADAPTER, OPEN_CLIP_CONFIG)
_WEIGHTS = (WEIGHTS, INDEX, "model-[0-9]*-of-[0-9]*.safetensors")
_OTHER_WEIGHTS = (FLAX, "*.safetensors", "*.npz")  # downloaded only if there are none of _WEIGHTS


def checkpoint_path(
    name_or_path: str | os.PathLike[str],
    *,
    subfolder: str = "",
    revision: str | None = None,
    variant: str | None = None,
    **hub: Any,
) -> Path:
    """The folder or weight file of a checkpoint, given by path or Hub id; downloaded if needed, from one commit.

    Args:
        variant: "fp16" and the like: return the weight file, or the index of shards, of this variant.
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
        root = _download(name, subfolder, revision, variant, hub)
    folder = to_path(root / subfolder)
    known = (config_file(folder), folder / ADAPTER)
    if not folder.is_dir() or not (any(file.is_file() for file in known) or holds_weights(folder)):
        where = f"{name}, subfolder {subfolder!r}" if subfolder else name
        raise CheckpointError(f"{where}: is no checkpoint, because there is no config.json in {folder}")
    return folder if variant is None else _of_variant(folder, variant)


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


def _download(repo_id: str, subfolder: str, revision: str | None, variant: str | None, hub: dict[str, Any]) -> Path:
    """Download only the checkpoint of a repository, and return its folder in the cache."""
    prefix = f"{subfolder.strip('/')}/" if subfolder else ""
    weights = _WEIGHTS if variant is None else (*_variant_files(variant), f"model.{variant}-[0-9]*.safetensors")

    def fetch(*patterns: str) -> Path:
        paths = [prefix + pattern for pattern in patterns]
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=paths, **hub))

    pickled = None
    try:
        root = fetch(*_FILES, *weights)
        if variant is None and not holds_weights(root / subfolder):
            root = fetch(*_FILES, *weights, *_OTHER_WEIGHTS)
        if not holds_weights(root / subfolder) and not hub.get("local_files_only"):
            names = HfApi(token=hub.get("token")).list_repo_files(repo_id, revision=revision)
            pickled = next((name for name in names if name.startswith(prefix) and name.endswith(PICKLES)), None)
    except Exception as error:  # huggingface_hub lets errors of other libraries through, and fails on odd answers
        line = download_error(error, repo_id, revision, hub.get("token"))
        raise CheckpointError(line) from None  # the cause contains the request, which contains the token
    if pickled and variant is None:
        raise pickle_refused(f"{repo_id}/{pickled}")
    return root
