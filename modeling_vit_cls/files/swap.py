"""The step in which a new folder takes an old one's place, flushed to the disk."""

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..errors import CheckpointError
from ..names import CONFIG, RUN_LOCK
from .locks import close_folder, open_folder

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def put_in_place(build: Path, folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Make `build` the folder of the name `folder`, together with the files there that are not ours.

    A file of `build` replaces one of its name, whosever it is; nothing else is ever written over. In one step where
    the file system can exchange folders, or there is none yet; else file by file, config.json last. Raises OSError
    where the old folder is unchanged; CheckpointError where it is not, or has a folder in the place of a file.
    """
    _sync(build)
    new = sorted(entry.name for entry in build.iterdir())
    for name in new:
        if (folder / name).is_dir():
            raise CheckpointError(f"{folder / name}: is a folder where a file is to be written; move it away")
    if not folder.exists():
        build.rename(folder)
        _sync_swap(folder)
    elif not _exchange(build, folder, is_ours):
        _replace_files(build, folder, new, is_ours)


def _link_kept(entry: Path, build: Path, is_ours: Callable[[str], bool]) -> None:
    """Link what is not ours into the new folder: a file, or a folder without the files in it that are ours."""
    target = build / entry.name
    if not entry.is_dir() or entry.is_symlink():
        if not is_ours(entry.name) and not os.path.lexists(target):
            _link_file(entry, target)
        return

    def left_out(place: str, names: list[str]) -> list[str]:
        inside = Path(place).relative_to(entry.parent)
        return [name for name in names if is_ours((inside / name).as_posix()) and not (Path(place) / name).is_dir()]

    shutil.copytree(entry, target, symlinks=True, ignore=left_out, copy_function=_link_file)
    if any(entry.iterdir()) and not any(target.iterdir()):
        target.rmdir()  # all of it was ours


def _link_file(source: str | Path, target: str | Path, follow_symlinks: bool = False) -> None:
    """The same file under a new name; a copy where the file system has no hard links. Never over another file."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:
        if not os.path.islink(source):
            open(target, "xb").close()
        shutil.copy2(source, target, follow_symlinks=False)


def _sync(folder: Path) -> None:
    """Flush every file of a folder, then the folder, to the disk."""
    for entry in folder.iterdir():
        if entry.is_file() and not entry.is_symlink():
            with open(entry, "r+b") as file:  # Windows flushes no file that is opened for reading alone
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = open_folder(folder)
    try:
        if descriptor is not None:
            os.fsync(descriptor)
    finally:
        close_folder(descriptor)


def _sync_swap(folder: Path) -> None:
    """Flush a swap to the disk. Raises CheckpointError where that fails: the swap has happened all the same."""
    try:
        _sync_folder(folder.parent)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: was replaced, but the disk does not confirm it ({error}); save again"
        ) from error


def _exchange(build: Path, folder: Path, is_ours: Callable[[str], bool]) -> bool:
    """Exchange the two folders in one step, what is not ours linked into the new one; False where that cannot be.

    The folder that this process works in is not exchanged under its feet, and a mount point cannot be. Nor is one that
    a run holds where its lock cannot be linked: a copy of a lock is one that nobody holds.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if rename is None or Path.cwd().is_relative_to(folder) or build.parent == folder:
        return False
    if (folder / RUN_LOCK).is_file():
        try:
            os.link(folder / RUN_LOCK, build / RUN_LOCK, follow_symlinks=False)
        except OSError:
            return False
    for entry in sorted(folder.iterdir()):
        _link_kept(entry, build, is_ours)
    _sync_folder(build)
    if rename(_AT_FDCWD, os.fsencode(build), _AT_FDCWD, os.fsencode(folder), _RENAME_EXCHANGE) == 0:
        _sync_swap(folder)
        return True
    if ctypes.get_errno() in (errno.EINVAL, errno.ENOSYS, errno.EBUSY, errno.EXDEV, errno.EPERM):
        return False
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))


def _replace_files(build: Path, folder: Path, new: list[str], is_ours: Callable[[str], bool]) -> None:
    """Move the new files over one at a time, config.json last, then remove those of ours that are outdated."""
    outdated = [name for name in _names(folder) if name not in new and is_ours(name)]
    try:
        for name in sorted(new, key=lambda name: (name == CONFIG, name.endswith(".json"), name)):
            (build / name).replace(folder / name)
        for name in outdated:
            (folder / name).unlink()
            if "/" in name and not any((folder / name).parent.iterdir()):
                (folder / name).parent.rmdir()
        _sync_folder(folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: was replaced in part only ({error}); save again") from error


def _names(folder: Path) -> list[str]:
    """Files of a folder and of those in it, but no deeper: nothing of ours lies there."""
    names: list[str] = []
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            with suppress(PermissionError):  # somebody else's, such as lost+found
                names += [f"{entry.name}/{inner.name}" for inner in entry.iterdir() if not inner.is_dir()]
        else:
            names.append(entry.name)
    return names
