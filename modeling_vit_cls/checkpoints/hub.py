"""Checkpoints on the Hub: a repository brought into the cache as a folder."""

import os
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..errors import CheckpointError, shorten
from ..names import INDEX, WEIGHTS
from .folder import to_path
from .load import config_file
from .weights import FLAX, PICKLES, holds_weights, pickle_refused

_FILES = ("config.json", "preprocessor_config.json", WEIGHTS, INDEX, "model-[0-9]*-of-[0-9]*.safetensors")
_OTHER_WEIGHTS = (FLAX, "*.safetensors", "*.npz")  # fetched only where there are none of the above


def checkpoint_path(
    name_or_path: str | os.PathLike[str],
    *,
    subfolder: str = "",
    revision: str | None = None,
    **hub: Any,
) -> Path:
    """Folder, or weight file, of a checkpoint given by path or Hub id; downloaded if need be, all files of one commit.

    `hub`: `cache_dir`, `force_download`, `local_files_only`, `token`, as in huggingface_hub. Raises CheckpointError
    in one line: no such folder, repository, revision or subfolder; no access; no network and nothing cached.
    """
    name = os.fspath(name_or_path)
    for argument, value in (("subfolder", subfolder), ("revision", revision or "")):  # both become parts of a path
        if Path(value).is_absolute() or ".." in Path(value).parts:
            raise CheckpointError(f"{argument}={shorten(value)}: must lie inside the checkpoint")
    try:
        root = to_path(Path(name).expanduser())
    except RuntimeError as error:
        raise CheckpointError(f"{shorten(name)}: cannot be a path ({error})") from error
    if root.is_file():
        return root
    if not root.exists():
        root = _download(name, subfolder, revision, hub)
    folder = to_path(root / subfolder)
    if not folder.is_dir() or not (config_file(folder).is_file() or holds_weights(folder)):
        where = f"{name}, subfolder {subfolder!r}" if subfolder else name
        raise CheckpointError(f"{where}: holds no config.json, so it is no checkpoint (looked in {folder})")
    return folder


def _download(repo_id: str, subfolder: str, revision: str | None, hub: dict[str, Any]) -> Path:
    """The folder in the cache that holds a repository's checkpoint, and nothing else of what is in the repository."""
    prefix = f"{subfolder.strip('/')}/" if subfolder else ""

    def fetch(*patterns: str) -> Path:
        wanted = [prefix + pattern for pattern in patterns]
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=wanted, **hub))

    at = f" at revision {revision!r}" if revision not in (None, "main") else ""
    try:
        root = fetch(*_FILES)
        if not holds_weights(root / subfolder):
            root = fetch(*_FILES, *_OTHER_WEIGHTS)
        pickled = None
        if not holds_weights(root / subfolder) and not hub.get("local_files_only"):
            names = HfApi(token=hub.get("token")).list_repo_files(repo_id, revision=revision)
            pickled = next((name for name in names if name.startswith(prefix) and name.endswith(PICKLES)), None)
    except HFValidationError as error:
        raise CheckpointError(f"{repo_id}: is neither a folder here nor the name of a Hub repository") from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{repo_id}: the Hub has no revision {revision!r} of it") from error
    except GatedRepoError as error:
        raise CheckpointError(f"{repo_id}: is gated; ask for access on its page and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        remedy = "check the name, or set HF_TOKEN if it is private"
        raise CheckpointError(f"{repo_id}: neither a folder here nor a repository on the Hub; {remedy}") from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{repo_id}{at}: is not in the cache, and the Hub was not asked or not reached"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{repo_id}{at}: could not be downloaded ({reason[0]})") from error
    if pickled:
        raise pickle_refused(f"{repo_id}/{pickled}")
    return root
