"""The image files of a folder, by their names. No file is opened, and `datasets` is not needed."""

import os
from collections.abc import Iterator
from pathlib import Path

from .rgb import FORMATS

# Image formats that are not supported. Their files are reported as broken images instead of ignored as documents.
_UNSUPPORTED = {".heic", ".heif", ".ico", ".tga", ".psd", ".eps", ".jxl"}
_SUFFIXES = _UNSUPPORTED.union(*FORMATS.values())
_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "icon\r"}
_SYSTEM_FOLDERS = {"__macosx", "@eadir", "$recycle.bin"}


def is_image_name(name: str) -> bool:
    """Whether a file name has the suffix of an image format."""
    return os.path.splitext(name)[1].lower() in _SUFFIXES


def visible_entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the files in a folder, each sorted by name, without hidden entries and those of the system.

    Hidden names begin with a dot, such as `._cat.jpg` and `.DS_Store` on macOS. Links are followed. Raises OSError for
    a folder that cannot be listed.
    """
    folders, files = [], []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if entry.name.lower() not in _SYSTEM_FOLDERS:
                    folders.append(Path(entry.path))
            elif entry.name.lower() not in _SYSTEM_FILES:
                files.append(Path(entry.path))
    return folders, files


def images_below(folder: Path) -> Iterator[Path]:
    """The image files of a folder and of all folders below it, sorted in each folder. A loop of links is cut."""
    return _images_below(folder, frozenset())


def _images_below(folder: Path, parents: frozenset[str]) -> Iterator[Path]:
    path = os.path.realpath(folder)
    if path in parents:
        return
    folders, files = visible_entries(folder)
    yield from (file for file in files if is_image_name(file.name))
    for inner in folders:
        yield from _images_below(inner, parents | {path})
