"""Error messages of a download in one line: the repository, the reason and what to do, without a token."""

from collections.abc import Iterator
from contextlib import contextmanager
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

from ..errors import CheckpointError, without_token


class NoAnswerError(CheckpointError):
    """The Hub was not reached or failed, so that nothing is known about the repository."""


@contextmanager
def errors_in_one_line(repo_id: str, revision: str | None, token: str | bool | None) -> Iterator[None]:
    """Raise CheckpointError for any error in the block, in which huggingface_hub reads a repository.

    It is a NoAnswerError if the Hub was not reached or failed.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # huggingface_hub lets errors of other libraries through, and fails on odd answers
        line = download_error(error, repo_id, revision, token)
        kind = NoAnswerError if _is_no_answer(error) else CheckpointError
        raise kind(line) from None  # the cause contains the request, which contains the token


def download_error(error: Exception, repo_id: str, revision: str | None, token: str | bool | None) -> str:
    """The message for any error that huggingface_hub raised while it read a repository."""
    return in_one_line(_reason(error, repo_id, revision), repo_id, revision, token)


def in_one_line(reason: str, repo_id: str, revision: str | None, token: str | bool | None) -> str:
    """The repository, its revision and the reason of an error, without a token."""
    suffix = f" at revision {revision!r}" if revision not in (None, "main") else ""
    return f"{repo_id}{suffix}: {without_token(reason, token if isinstance(token, str) else get_token())}"


def _reason(error: Exception, repo_id: str, revision: str | None) -> str:
    if isinstance(error, HFValidationError):
        return "is neither a local folder nor the name of a Hub repository (user/name)"
    if isinstance(error, RevisionNotFoundError):
        return f"has no revision {revision!r} on the Hub"
    if isinstance(error, GatedRepoError):
        return "is gated; request access on its page and set HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return "is neither a local folder nor a repository on the Hub; check the name, or set HF_TOKEN if it is private"
    if isinstance(error, LocalEntryNotFoundError):
        problem = "the Hub was not asked (offline)" if _is_offline(error) else f"{constants.ENDPOINT} was not reached"
        return f"{_no_folder(repo_id)}, it is not in the cache, and {problem}"
    if isinstance(error, HfHubHTTPError):
        return f"could not be downloaded from {constants.ENDPOINT} ({first_line(error)})"
    if isinstance(error, OSError | RuntimeError) or _is_of_the_connection(error):
        remedy = "try again: complete files are kept"
        folder = "" if "/" in repo_id else f"{_no_folder(repo_id)}, and it "  # one word was probably meant as a folder
        return f"{folder}could not be downloaded from {constants.ENDPOINT} ({first_line(error)}); {remedy}"
    remedy = "check the address, and whether the network shows a login page instead"
    return f"{constants.ENDPOINT} does not answer like a Hub ({first_line(error)}); {remedy}"


def _is_no_answer(error: Exception) -> bool:
    """Whether an error tells nothing about the repository: no connection, or a fault of the server."""
    if isinstance(error, HfHubHTTPError) and not isinstance(error, LocalEntryNotFoundError):
        status = getattr(getattr(error, "response", None), "status_code", 0)
        return status == 429 or status >= 500
    return not isinstance(error, HFValidationError)


def _no_folder(name: str) -> str:
    """The part of a message that tells where a local folder was expected."""
    return f"there is no folder {str(Path(name).expanduser().absolute())!r}"


def _is_offline(error: Exception) -> bool:
    text = str(error)
    return constants.HF_HUB_OFFLINE or "local_files_only" in text or "outgoing traffic has been disabled" in text


def _is_of_the_connection(error: Exception) -> bool:
    """Whether an error comes from the library for HTTP: requests, httpx or its successor."""
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return bool(modules & {"httpx", "httpx2", "httpcore", "requests", "urllib3"})


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type if the message is empty."""
    return next((line.strip()[:200] for line in str(error).splitlines() if line.strip()), type(error).__name__)
