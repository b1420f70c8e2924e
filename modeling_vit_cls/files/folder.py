"""Replacing a folder in one step: it is built beside the old one, and a reader sees the old or the new one whole."""

import errno
import glob
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from ..errors import CheckpointError, ConfigError, shorten
from .locks import close_folder, open_folder, try_lock
from .swap import put_in_place

T = TypeVar("T")
_MARGIN = 1.02  # the space needed for a checkpoint, as a multiple of the size of its weights


def to_path(path: str | os.PathLike[str]) -> Path:
    """The Path of a file or folder, which need not exist, with ~ expanded.

    Raises CheckpointError for an impossible path.
    """
    path = os.path.expanduser(path)
    try:
        os.stat(path)
    except ValueError as error:  # usually a NUL character
        raise CheckpointError(f"{shorten(os.fspath(path))}: cannot be a path ({error})") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise CheckpointError(f"{shorten(os.fspath(path))}: is too long for a path") from error
    return Path(path)


@contextmanager
def replace_folder(folder: Path, is_ours: Callable[[str], bool], size: int = 0) -> Iterator[Path]:
    """Yield an empty folder to write into. When the block ends without an error, it replaces `folder` in one step.

    Args:
        folder: The folder to replace; created where it is missing.
        is_ours: Which old files to remove. It is called with paths relative to `folder` after all is written. Other
            old files stay, unless a new file of the same name replaces them.
        size: How many bytes will be written.

    If the block raises, `folder` is unchanged and nothing is left behind. What a killed process left behind is removed.
    Raises CheckpointError where the path is a file or cannot be written, where the disk has not enough space, and where
    another process is saving into the folder.
    """
    folder = Path(os.path.realpath(folder))  # replace the target of a symbolic link, not the link
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder}: is a file; give the folder to save into")
    with _lock(folder) as free:
        if not free:
            raise CheckpointError(f"{folder}: another process is saving into it; wait for it, or give another folder")
        for parent in (folder.parent, folder):
            _sweep(parent, _prefix(folder))
        new = [parent for parent in folder.parents if not parent.exists()]
        try:
            build = _build_folder(folder)
            with _lock(build):
                yield from _replaced(folder, build, is_ours, size)
        except BaseException:
            for parent in new:  # innermost first; a folder that is no longer empty stays
                with suppress(OSError):
                    parent.rmdir()
            raise


def read_undisturbed(path: Path, read: Callable[[], T]) -> T:
    """The result of `read` on a folder, or on a file in it, that was not replaced during the call.

    After a replacement it is read again: the result could mix two checkpoints, and an error could have no other cause.
    """
    while True:
        folder = path if path.is_dir() else path.parent
        descriptor = open_folder(folder, getattr(os, "O_PATH", os.O_RDONLY))
        before = os.stat(folder) if descriptor is None else os.fstat(descriptor)
        try:  # while the folder is open, no other folder gets its inode number
            result = read()
        except Exception:
            if _is_still(path, before):
                raise
        else:
            if _is_still(path, before):
                return result
        finally:
            close_folder(descriptor)


def _is_still(path: Path, before: os.stat_result) -> bool:
    """Whether a folder still has this path."""
    try:
        return os.path.samestat(os.stat(path if path.is_dir() else path.parent), before)
    except FileNotFoundError:  # it was removed, so reading again gives nothing better
        return True


def check_writable(field: str, folder: Path) -> None:
    """Raise ConfigError, naming the field, for a folder in which no file can be made. It need not exist."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise unwritable(field, folder, error) from error


def unwritable(field: str, folder: Path, error: OSError) -> ConfigError:
    """The error for a folder, given in a field, that cannot be written."""
    return ConfigError(field, str(folder), f"cannot be written ({error.strerror}): give another folder")


def replace_file(file: Path, content: bytes) -> None:
    """Replace one file in one step. Raises OSError if it cannot be written; the old file is then unchanged."""
    with replacing(file) as opened:
        opened.write(content)


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """A new file to write, which takes the place of `file` in one step when the block ends without an error.

    Raises OSError if it cannot be written; the old file is then unchanged.
    """
    file = Path(os.path.realpath(file))  # replace the target of a symbolic link, not the link
    new = file.with_name(f".{file.name}.tmp-{secrets.token_hex(4)}")  # containers can have the same process numbers
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(new, "wb") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        new.replace(file)
    except OSError as error:
        raise OSError(f"{file}: cannot be written ({error.strerror or error}); the old file is unchanged") from error
    finally:
        with suppress(OSError):  # it exists only if the writing failed
            new.unlink()


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder; yields False where another process holds it.

    The system releases the lock when the process ends. A missing folder needs no lock.
    """
    try:
        descriptor = open_folder(folder)
    except OSError:  # missing or unreadable; an error in writing comes later
        descriptor = None
    try:
        yield try_lock(descriptor) is not False
    finally:
        close_folder(descriptor)


def _sweep(parent: Path, prefix: str) -> None:
    """Remove the build folders of processes that were killed: their locks are free."""
    for folder in parent.glob(f"{glob.escape(prefix)}*"):
        remove_if_left(folder)


def remove_if_left(folder: Path) -> None:
    """Remove a temporary folder that a killed process left behind; one whose process still runs stays."""
    with suppress(OSError), _lock(folder) as free:
        if free:
            shutil.rmtree(folder, ignore_errors=True)


def _replaced(folder: Path, build: Path, is_ours: Callable[[str], bool], size: int) -> Iterator[Path]:
    """Yield the build folder, then put it in the place of `folder`; see `replace_folder`."""
    try:
        build.chmod(_mode_for(folder, build))
        free = shutil.disk_usage(build).free
        if size * _MARGIN > free:
            raise CheckpointError(f"{folder}: needs {size:,} bytes, but the disk has {free:,} left; it is unchanged")
        yield build
        put_in_place(build, folder, is_ours)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error}); its old files are unchanged") from error
    finally:
        shutil.rmtree(build, ignore_errors=True)


def _prefix(folder: Path) -> str:
    """The start of the names of build folders."""
    return f".{folder.name}.tmp-"


def _build_folder(folder: Path) -> Path:
    """A new temporary folder beside `folder`, or inside it if its parent cannot be written."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=_prefix(folder), dir=folder.parent))
    except OSError as error:
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: cannot be written ({error.strerror})") from error
    try:
        return Path(tempfile.mkdtemp(prefix=_prefix(folder), dir=folder))
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error.strerror})") from error


def _mode_for(folder: Path, build: Path) -> int:
    """The permissions of `folder`, or those that mkdir gives if it does not exist."""
    if folder.exists():
        return folder.stat().st_mode & 0o7777
    probe = build / "mode"
    probe.mkdir()
    mode = probe.stat().st_mode & 0o7777
    probe.rmdir()
    return mode
