"""Repeating work on the Hub after temporary errors."""

import time
from collections.abc import Callable
from typing import TypeVar

from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]  # requests' in 0.36, then httpx's

from ..errors import CheckpointError
from .push_errors import MALFORMED, is_temporary, retry_after, unwrapped

WAITS = (1.0, 2.0, 4.0)  # seconds before each further attempt
LONGEST_WAIT = 60.0  # seconds; if the Hub asks for a longer wait, the work fails

Result = TypeVar("Result")


def persist(attempt: Callable[[], Result], message: Callable[[Exception], str]) -> Result:
    """The result of an attempt, which is repeated after temporary errors, four times in all.

    An attempt reads first, to see a change whose answer was lost. `message` makes the one line of the CheckpointError
    that is raised in the end, without a token.
    """
    for wait in (*WAITS, None):
        try:
            return attempt()
        except CheckpointError:
            raise
        except (HTTPError, OSError, ValueError, LookupError, RuntimeError, *MALFORMED) as raised:
            error = unwrapped(raised)
            seconds = retry_after(error)
            if wait is None or not is_temporary(error) or seconds > LONGEST_WAIT:
                # the cause contains the request, which contains the token
                raise CheckpointError(message(error)) from None
        time.sleep(max(wait, seconds))
    raise AssertionError("the last attempt returns or raises")
