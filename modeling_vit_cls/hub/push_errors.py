"""Errors of changes to the Hub: which ones to retry, and their messages in one line without a token."""

import json
import re

from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

from .errors import first_line, in_one_line

# 412: the branch has a new commit, ours (its answer was lost) or another one. The next attempt reads which.
_TEMPORARY = {408, 412, 429, 500, 502, 503, 504}
_FINAL = (OfflineModeIsEnabled, LocalTokenNotFoundError, FileNotFoundError, PermissionError, IsADirectoryError)

MALFORMED = (TypeError, AttributeError)  # what huggingface_hub raises for an answer that is not that of a Hub


def unwrapped(error: Exception) -> Exception:
    """The cause of a failed upload, where huggingface_hub wraps it in a RuntimeError with just the name of the file."""
    cause = error.__cause__
    return cause if isinstance(error, RuntimeError) and isinstance(cause, Exception) else error


def is_temporary(error: Exception) -> bool:
    """Whether to try again: the Hub is busy or has an error, or its answer is missing or incomplete."""
    if isinstance(error, HfHubHTTPError):
        return _status(error) in _TEMPORARY
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return isinstance(error, json.JSONDecodeError)
    return not isinstance(error, (*_FINAL, *MALFORMED))


def is_unreachable(error: Exception) -> bool:
    """Whether the Hub was not asked (offline) or did not answer."""
    return isinstance(error, OfflineModeIsEnabled) or (is_temporary(error) and _status(error) is None)


def retry_after(error: Exception) -> float:
    """The seconds to wait that the Hub asks for in Retry-After, or 0."""
    header = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", "")
    return float(header) if re.fullmatch(r"\d+(\.\d+)?", header) else 0.0


def upload_error(error: Exception, repo_id: str, revision: str | None, token: str | bool | None, unsure: bool) -> str:
    """The message of a failed push: repository, reason and remedy. `unsure`: a commit was sent without an answer."""
    remedy = "push again: what has arrived is not sent twice" if unsure else "nothing was pushed"
    return f"{in_one_line(_reason(error), repo_id, revision, token)}; {remedy}"


def collection_error(error: Exception, name: str, token: str | bool | None) -> str:
    """The message of a failed update of a collection: name and reason."""
    return in_one_line(_reason(error), name, None, token)


def _reason(error: Exception) -> str:
    status, answer = _status(error), (getattr(error, "server_message", None) or "").strip().partition("\n")[0][:200]
    if isinstance(error, HFValidationError):
        return "is not the name of a Hub repository (user/name)"
    if status == 401:
        return "the token is missing or not accepted: set HF_TOKEN to one that may write"
    if status == 403:
        return f"the token may not write to it ({answer or 'forbidden'})"
    if status == 404:
        return f"the Hub does not find it or its owner ({answer or 'not found'})"
    if status == 412:
        return "somebody else is committing to it"
    if status == 429:
        seconds = retry_after(error)
        wait = f"the Hub asks to wait {seconds:.0f} s" if seconds else "wait a while"
        return f"too many requests; {wait}"
    if status is not None and status >= 500:
        return f"the Hub has an internal error (HTTP {status})"
    if status is not None:
        return f"the Hub refuses (HTTP {status}: {answer or first_line(error)})"
    if isinstance(error, _FINAL) or (isinstance(error, ValueError) and not is_temporary(error)):
        return " ".join(str(error).split())
    if isinstance(error, MALFORMED):
        return f"{constants.ENDPOINT} does not answer like a Hub ({first_line(error)})"
    return f"the Hub does not answer at {constants.ENDPOINT} ({first_line(error)})"


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
