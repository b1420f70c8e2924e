"""What stops a push: whether it may pass, and how it is said in one line that holds no token."""

import json
import re

from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

from .errors import first_line, in_one_line

# 412: the branch has moved on, by our own commit whose answer was lost or by another's; reading again tells.
_TEMPORARY = {408, 412, 429, 500, 502, 503, 504}
_FINAL = (OfflineModeIsEnabled, LocalTokenNotFoundError, FileNotFoundError, PermissionError, IsADirectoryError)

MALFORMED = (TypeError, AttributeError)  # of huggingface_hub, where what it is answered is not what a Hub says


def unwrapped(error: Exception) -> Exception:
    """What stopped an upload: huggingface_hub raises RuntimeError over it, which says only of which file."""
    cause = error.__cause__
    return cause if isinstance(error, RuntimeError) and isinstance(cause, Exception) else error


def is_temporary(error: Exception) -> bool:
    """Whether to try again: the Hub is busy or broken, or no whole answer came."""
    if isinstance(error, HfHubHTTPError):
        return _status(error) in _TEMPORARY
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return isinstance(error, json.JSONDecodeError)
    return not isinstance(error, (*_FINAL, *MALFORMED))


def is_unreachable(error: Exception) -> bool:
    """Whether the Hub was not asked, or gave no answer at all."""
    return isinstance(error, OfflineModeIsEnabled) or (is_temporary(error) and _status(error) is None)


def retry_after(error: Exception) -> float:
    """Seconds that the Hub asks to wait; 0 where it does not say."""
    asked = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", "")
    return float(asked) if re.fullmatch(r"\d+(\.\d+)?", asked) else 0.0


def upload_error(error: Exception, repo_id: str, revision: str | None, token: str | bool | None, unsure: bool) -> str:
    """The repository, the reason and the remedy; `unsure`: a commit was sent, and no answer came."""
    after = "push again: what has arrived is not sent twice" if unsure else "nothing was pushed"
    return f"{in_one_line(_reason(error), repo_id, revision, token)}; {after}"


def _reason(error: Exception) -> str:
    status, said = _status(error), (getattr(error, "server_message", None) or "").strip().partition("\n")[0][:200]
    if isinstance(error, HFValidationError):
        return "is not the name of a Hub repository (user/name)"
    if status == 401:
        return "the Hub does not take the token, or got none: set HF_TOKEN to one that may write"
    if status == 403:
        return f"the token may not write to it ({said or 'forbidden'})"
    if status == 404:
        return f"the Hub does not find it, or what it should belong to ({said or 'not found'})"
    if status == 412:
        return "somebody else is committing to it"
    if status == 429:
        asked = retry_after(error)
        return f"too many requests; the Hub asks to wait {asked:.0f} s" if asked else "too many requests; wait a while"
    if status is not None and status >= 500:
        return f"the Hub is out of order (HTTP {status})"
    if status is not None:
        return f"the Hub refuses (HTTP {status}: {said or first_line(error)})"
    if isinstance(error, _FINAL) or (isinstance(error, ValueError) and not is_temporary(error)):
        return " ".join(str(error).split())
    if isinstance(error, MALFORMED):
        return f"{constants.ENDPOINT} does not answer as a Hub does ({first_line(error)})"
    return f"the Hub does not answer at {constants.ENDPOINT} ({first_line(error)})"


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
