"""The step in which a new folder takes an old one's place, flushed to the disk."""

import ctypes
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ..errors import CheckpointError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def put_in_place(build: Path, folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Make `build` the folder of the name `folder`, together with what lies there that is not ours.

    In one step where the file system can exchange folders, or there is none yet; else file by file, config.json last.
    Raises OSError where the old folder is unchanged, CheckpointError where it is not.
    """
    _sync(build)
    if not folder.exists():
        build.rename(folder)
        _sync_swap(folder)
    elif not _exchange(build, folder, is_ours):
        _replace_files(build, folder, is_ours)


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
        _sync_swap(folder)
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
