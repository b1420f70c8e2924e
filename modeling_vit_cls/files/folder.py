"""A folder that is always the old checkpoint or the new one, whole: built beside it and swapped in."""

import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from ..errors import CheckpointError, shorten
from .locks import close_folder, open_folder, try_lock
from .swap import put_in_place

T = TypeVar("T")
_MARGIN = 1.02  # of the weights' size, for what is written beside them


def to_path(path: str | os.PathLike[str]) -> Path:
    """A path of a file or folder that is or may be. Raises CheckpointError for one that the file system cannot have."""
    try:
        os.stat(path)
    except ValueError as error:  # a NUL character, as a rule
        raise CheckpointError(f"{shorten(os.fspath(path))}: cannot be a path ({error})") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise CheckpointError(f"{shorten(os.fspath(path))}: is too long for a path") from error
    return Path(path)


@contextmanager
def replace_folder(folder: Path, is_ours: Callable[[str], bool], size: int = 0) -> Iterator[Path]:
    """Yield an empty folder to write into; when the block ends well, it takes `folder`'s place in one step.

    Every file that is written replaces one of its name. What else lies in `folder` stays, but for files for which
    `is_ours` is true; it is given their paths relative to `folder`, when all is written. If the block raises, `folder`
    is as it was and nothing is left behind; what a killed process left behind is removed. `size` is how many bytes
    will be written. Raises CheckpointError where the path is a file or cannot be written, where there is not enough
    space, and where another process is saving into it.
    """
    folder = Path(os.path.realpath(folder))  # through symbolic links: the link itself stays
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder}: is a file; give the folder to save into")
    with _lock(folder) as free:
        if not free:
            raise CheckpointError(f"{folder}: another process is saving into it; wait for it, or give another folder")
        for place in (folder.parent, folder):
            _sweep(place, _prefix(folder))
        new = [parent for parent in folder.parents if not parent.exists()]
        try:
            build = _build_folder(folder)
            with _lock(build):
                yield from _replaced(folder, build, is_ours, size)
        except BaseException:
            for parent in new:  # the innermost first; one that another process has filled stays
                with suppress(OSError):
                    parent.rmdir()
            raise


def read_undisturbed(path: Path, read: Callable[[], T]) -> T:
    """What `read` gives of a folder, or of a file in it, that `replace_folder` did not swap in the meantime.

    After a swap it is read once more: what came might be of two checkpoints, and an error no real one.
    """
    while True:
        folder = path if path.is_dir() else path.parent
        descriptor = open_folder(folder, getattr(os, "O_PATH", os.O_RDONLY))
        before = os.stat(folder) if descriptor is None else os.fstat(descriptor)
        try:  # held open, no other folder can take its number
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
    """Whether a folder is the one that has its name now."""
    try:
        return os.path.samestat(os.stat(path if path.is_dir() else path.parent), before)
    except FileNotFoundError:  # it was removed; what was read of it, or the error, is all there is
        return True


def replace_file(file: Path, content: bytes) -> None:
    """Write one file: the old one or the new one, whole. Raises OSError where it cannot be written."""
    file = Path(os.path.realpath(file))  # through symbolic links: the link itself stays
    new = file.with_name(f".{file.name}.tmp-{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(new, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        new.replace(file)
    except OSError as error:
        raise OSError(f"{file}: cannot be written ({error.strerror}); what it held is unchanged") from error
    finally:
        with suppress(OSError):  # it is there only where the writing failed
            new.unlink()


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Hold a folder's lock, if it exists; False where another process holds it. It ends with the process, at latest."""
    try:
        descriptor = open_folder(folder)
    except OSError:  # it is not there, or cannot be read; whether it can be written shows later
        descriptor = None
    try:
        yield try_lock(descriptor) is not False
    finally:
        close_folder(descriptor)


def _sweep(place: Path, prefix: str) -> None:
    """Remove the build folders of processes that were killed: those whose lock nobody holds."""
    for left in place.glob(f"{glob.escape(prefix)}*"):
        remove_if_left(left)


def remove_if_left(folder: Path) -> None:
    """Remove a folder that was being built or removed, unless the process that does so still lives."""
    with suppress(OSError), _lock(folder) as dead:
        if dead:
            shutil.rmtree(folder, ignore_errors=True)


def _replaced(folder: Path, build: Path, is_ours: Callable[[str], bool], size: int) -> Iterator[Path]:
    try:
        build.chmod(_mode_for(folder, build))
        free = shutil.disk_usage(build).free
        if size * _MARGIN > free:
            raise CheckpointError(f"{folder}: needs {size:,} bytes, and the disk has {free:,} left; it is unchanged")
        yield build
        put_in_place(build, folder, is_ours)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error}); what it held is unchanged") from error
    finally:
        shutil.rmtree(build, ignore_errors=True)


def _prefix(folder: Path) -> str:
    """What the names of build folders begin with."""
    return f".{folder.name}.tmp-"


def _build_folder(folder: Path) -> Path:
    """A new folder beside `folder`, or inside it where only that can be written."""
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
    """Mode of the folder that is replaced, or what mkdir would give."""
    if folder.exists():
        return folder.stat().st_mode & 0o7777
    probe = build / "mode"
    probe.mkdir()
    mode = probe.stat().st_mode & 0o7777
    probe.rmdir()
    return mode
