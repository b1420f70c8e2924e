"""A folder that is always the old checkpoint or the new one, whole: built beside it and swapped in."""

import ctypes
import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import CheckpointError, shorten

_MARGIN = 1.02  # of the weights' size, for what is written beside them
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


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

    What else lies in `folder` (every name for which `is_ours` is false) stays. If the block raises, `folder` is as
    it was and nothing is left behind; what a killed process left behind is removed. `size` is how many bytes will be
    written. Raises CheckpointError where the path is a file or cannot be written, where there is not enough space, and
    where another process is saving into it.
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
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # it is not there, or cannot be read; whether it can be written shows later
        yield True
        return
    try:
        yield _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _sweep(place: Path, prefix: str) -> None:
    """Remove the build folders of processes that were killed: those whose lock nobody holds."""
    for left in place.glob(f"{glob.escape(prefix)}*"):
        with suppress(OSError), _lock(left) as dead:
            if dead:
                shutil.rmtree(left, ignore_errors=True)


def _replaced(folder: Path, build: Path, is_ours: Callable[[str], bool], size: int) -> Iterator[Path]:
    try:
        build.chmod(_mode_for(folder, build))
        free = shutil.disk_usage(build).free
        if size * _MARGIN > free:
            raise CheckpointError(f"{folder}: needs {size:,} bytes, and the disk has {free:,} left; it is unchanged")
        yield build
        _sync(build)
        if not folder.exists():
            build.rename(folder)
        elif not _exchange(build, folder, is_ours):
            _replace_files(build, folder, is_ours)
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


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no hard links."""
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, copy_function=_link_file)
    else:
        _link_file(source, target)


def _link_file(source: str | Path, target: str | Path, follow_symlinks: bool = False) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _sync(folder: Path) -> None:
    """Flush every file of a folder, then the folder, to the disk."""
    for entry in folder.iterdir():
        if entry.is_file() and not entry.is_symlink():
            with open(entry, "rb") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(build: Path, folder: Path, is_ours: Callable[[str], bool]) -> bool:
    """Exchange the two folders in one step, what is not ours linked into the new one; False where that cannot be.

    The folder that this process works in is not exchanged under its feet, and a mount point cannot be.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None or Path.cwd().is_relative_to(folder) or build.parent == folder:
        return False
    for entry in sorted(folder.iterdir()):
        if not is_ours(entry.name):
            _link(entry, build / entry.name)
    _sync_folder(build)
    if rename(_AT_FDCWD, os.fsencode(build), _AT_FDCWD, os.fsencode(folder), _RENAME_EXCHANGE) == 0:
        _sync_folder(folder.parent)
        return True
    if ctypes.get_errno() in (errno.EINVAL, errno.ENOSYS, errno.EBUSY, errno.EXDEV, errno.EPERM):
        return False
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))


def _replace_files(build: Path, folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Move our files over one at a time, config.json last, then remove those of ours that are outdated."""
    new = [entry.name for entry in build.iterdir() if is_ours(entry.name)]
    try:
        for name in sorted(new, key=lambda name: (name == "config.json", name.endswith(".json"), name)):
            (build / name).replace(folder / name)
        for entry in folder.iterdir():
            if is_ours(entry.name) and entry.name not in new:
                entry.unlink()
        _sync_folder(folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: was replaced in part only ({error}); save again") from error
