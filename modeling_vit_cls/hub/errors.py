"""What stops a download: said in one line that names the repository, the reason and what to do, and holds no token."""

import re
from pathlib import Path

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


def download_error(error: Exception, repo_id: str, revision: str | None, token: str | bool | None) -> str:
    """The line for whatever huggingface_hub raised while a repository was read."""
    return in_one_line(_reason(error, repo_id, revision), repo_id, revision, token)


def in_one_line(reason: str, repo_id: str, revision: str | None, token: str | bool | None) -> str:
    """Which repository, at which revision, and what stopped the transfer, without a token."""
    at = f" at revision {revision!r}" if revision not in (None, "main") else ""
    return f"{repo_id}{at}: {without_token(reason, token)}"


def _reason(error: Exception, repo_id: str, revision: str | None) -> str:
    if isinstance(error, HFValidationError):
        return "is neither a folder here nor the name of a Hub repository (user/name)"
    if isinstance(error, RevisionNotFoundError):
        return f"the Hub has no revision {revision!r} of it"
    if isinstance(error, GatedRepoError):
        return "is gated; ask for access on its page and set HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return "neither a folder here nor a repository on the Hub; check the name, or set HF_TOKEN if it is private"
    if isinstance(error, LocalEntryNotFoundError):
        asked = "the Hub was not asked (offline)" if _is_offline(error) else f"{constants.ENDPOINT} was not reached"
        return f"{_no_folder(repo_id)}, it is not in the cache, and {asked}"
    if isinstance(error, HfHubHTTPError):
        return f"could not be downloaded from {constants.ENDPOINT} ({first_line(error)})"
    if isinstance(error, OSError | RuntimeError) or _is_of_the_connection(error):
        remedy = "what has arrived is kept, so try again"
        folder = "" if "/" in repo_id else f"{_no_folder(repo_id)}, and it "  # one word is a folder's name, as a rule
        return f"{folder}could not be downloaded from {constants.ENDPOINT} ({first_line(error)}); {remedy}"
    remedy = "is that a Hub, or a page of the network to log in to?"
    return f"{constants.ENDPOINT} does not answer as a Hub does ({first_line(error)}); {remedy}"


def _no_folder(name: str) -> str:
    """That there is no such folder, and where it was looked for."""
    return f"there is no folder {str(Path(name).expanduser().absolute())!r} here"


def _is_offline(error: Exception) -> bool:
    said = str(error)
    return constants.HF_HUB_OFFLINE or "local_files_only" in said or "outgoing traffic has been disabled" in said


def _is_of_the_connection(error: Exception) -> bool:
    """Whether an error is one of the library that speaks HTTP: requests, httpx or its successor."""
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return bool(modules & {"httpx", "httpx2", "httpcore", "requests", "urllib3"})


def first_line(error: Exception) -> str:
    """The first line of what an error says, or its type where it says nothing."""
    return next((line.strip()[:200] for line in str(error).splitlines() if line.strip()), type(error).__name__)


def without_token(text: str, token: str | bool | None) -> str:
    """A text in which every token is struck out; a server may say in its answer what it was asked with."""
    own = token if isinstance(token, str) else get_token()
    if own:
        text = text.replace(own, "***")
    return re.sub(r"hf_[A-Za-z0-9]{8,}", "***", text)
