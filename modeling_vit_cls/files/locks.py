"""Locks that end with their process, and folders that can be opened; not every system has them.

Where Python has no `fcntl`, as on Windows and in browsers, nothing stops two processes that write into one folder at
the same time; the log warns of it, once. Windows opens no folders: there a power cut just after a save may undo it.
"""

import logging
import os
import sys
from functools import cache
from pathlib import Path

try:
    import fcntl
except ImportError:
    fcntl = None  # pyright: ignore[reportAssignmentType]

_log = logging.getLogger(__name__)


def try_lock(descriptor: int | None) -> bool | None:
    """Lock an open file or folder until it is closed: True, or False where another process holds the lock.

    None where there are no locks: on this system, on this file system, or for lack of a descriptor.
    """
    if fcntl is None:
        _warn()
    if fcntl is None or descriptor is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def open_folder(folder: Path, flags: int = os.O_RDONLY) -> int | None:
    """A descriptor of a folder, None on Windows. Raises OSError where it is not there, or cannot be read."""
    return None if sys.platform == "win32" else os.open(folder, flags)


def close_folder(descriptor: int | None) -> None:
    """Close what `open_folder` gave; a lock of it ends."""
    if descriptor is not None:
        os.close(descriptor)


@cache
def _warn() -> None:
    _log.warning("this system has no file locks: let no two processes save or train into one folder at the same time")
