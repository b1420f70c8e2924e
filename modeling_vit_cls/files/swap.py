"""The step in which a new folder replaces an old one, flushed to the disk."""

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
    """Move the folder `build` to the path `folder`, and keep the files of the old folder that are not ours.

    A new file replaces an old one of the same name; no other file is overwritten. This is one step where the file
    system can exchange folders, or `folder` does not exist yet; elsewhere it goes file by file, config.json last.
    Raises OSError if the old folder is unchanged; CheckpointError if it is changed, or if it has a folder with the name
    of a new file.
    """
    _sync(build)
    new = sorted(entry.name for entry in build.iterdir())
    for name in new:
        if (folder / name).is_dir():
            raise CheckpointError(
                f"{folder / name}: is a folder, but a file of this name must be written; move it away"
            )
    if not folder.exists():
        build.rename(folder)
        _sync_swap(folder)
    elif not _exchange(build, folder, is_ours):
        _replace_files(build, folder, new, is_ours)


def _link_kept(entry: Path, build: Path, is_ours: Callable[[str], bool]) -> None:
    """Link a file or folder of the old folder into the new one, without the files in it that are ours."""
    target = build / entry.name
    if not entry.is_dir() or entry.is_symlink():
        if not is_ours(entry.name) and not os.path.lexists(target):
            _link_file(entry, target)
        return

    def our_files(path: str, names: list[str]) -> list[str]:
        relative = Path(path).relative_to(entry.parent)
        return [name for name in names if is_ours((relative / name).as_posix()) and not (Path(path) / name).is_dir()]

    shutil.copytree(entry, target, symlinks=True, ignore=our_files, copy_function=_link_file)
    if any(entry.iterdir()) and not any(target.iterdir()):
        target.rmdir()  # all its files were ours


def _link_file(source: str | Path, target: str | Path, follow_symlinks: bool = False) -> None:
    """Link a file to a new path; copy it where the file system has no hard links. Never overwrites a file."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:
        if not os.path.islink(source):
            open(target, "xb").close()
        shutil.copy2(source, target, follow_symlinks=False)


def _sync(folder: Path) -> None:
    """Flush all files of a folder, then the folder itself, to the disk."""
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
    """Flush a replacement to the disk. Raises CheckpointError if that fails, because the folder is replaced already."""
    try:
        _sync_folder(folder.parent)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: was replaced, but the disk did not confirm it ({error}); save again"
        ) from error


def _exchange(build: Path, folder: Path, is_ours: Callable[[str], bool]) -> bool:
    """Exchange the two folders in one step, after linking what is not ours into the new one.

    Returns False where that is not possible: the folder contains this process's working folder, is a mount point, or
    has the lock of a training run that cannot be linked (nobody would hold a copy of the lock).
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
    """Move the new files one at a time, config.json last, then remove our outdated files."""
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
        raise CheckpointError(f"{folder}: was replaced only in part ({error}); save again") from error


def _names(folder: Path) -> list[str]:
    """The files of a folder and of the folders in it. Our files are never deeper."""
    names: list[str] = []
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            with suppress(PermissionError):  # a folder of another user, such as lost+found
                names += [f"{entry.name}/{inner.name}" for inner in entry.iterdir() if not inner.is_dir()]
        else:
            names.append(entry.name)
    return names
