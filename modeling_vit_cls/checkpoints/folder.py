"""A folder that is always the old checkpoint or the new one, whole: built beside it and swapped in."""

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CheckpointError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


@contextmanager
def replace_folder(folder: Path, is_ours: Callable[[str], bool]) -> Iterator[Path]:
    """Yield an empty folder to write into; when the block ends well, it takes `folder`'s place in one step.

    What else lies in `folder` (every name for which `is_ours` is false) stays. If the block raises, `folder` is as
    it was and nothing is left behind. Raises CheckpointError where the path is a file or cannot be written.
    """
    folder = Path(os.path.realpath(folder))  # through symbolic links: the link itself stays
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder}: is a file; give the folder to save into")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        build = Path(tempfile.mkdtemp(prefix=f".{folder.name}.tmp-", dir=folder.parent))
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error.strerror})") from error
    try:
        build.chmod(_mode_for(folder))
        yield build
        if folder.exists():
            for entry in sorted(folder.iterdir()):
                if not is_ours(entry.name):
                    _link(entry, build / entry.name)
        _sync(build)
        _swap(build, folder)
        _sync_folder(folder.parent)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error}); what it held is unchanged") from error
    finally:
        shutil.rmtree(build, ignore_errors=True)


def _mode_for(folder: Path) -> int:
    """Mode of the folder that is replaced, or what mkdir would give."""
    if folder.exists():
        return folder.stat().st_mode & 0o7777
    probe = Path(tempfile.mkdtemp(dir=folder.parent)) / "mode"
    try:
        probe.mkdir()
        return probe.stat().st_mode & 0o7777
    finally:
        shutil.rmtree(probe.parent, ignore_errors=True)


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


def _swap(build: Path, folder: Path) -> None:
    """Put `build` where `folder` is; afterwards `build` holds the old contents, if there were any."""
    if not folder.exists():
        os.rename(build, folder)
    elif not _exchange(build, folder):
        old = folder.with_name(f"{build.name}.old")  # a moment without the folder, but never a mixture
        os.rename(folder, old)
        os.rename(build, folder)
        os.rename(old, build)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code), str(second))
