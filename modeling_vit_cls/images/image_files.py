"""Which files of a folder are images, by their names; opens no file and needs no library of datasets."""

import os
from collections.abc import Iterator
from pathlib import Path

from .rgb import FORMATS

# Formats that are not read: their files count as broken images, which are named, not as documents beside images.
_NOT_READ = {".heic", ".heif", ".ico", ".tga", ".psd", ".eps", ".jxl"}
_SUFFIXES = _NOT_READ.union(*FORMATS.values())
_OF_SYSTEMS = {"thumbs.db", "desktop.ini", "icon\r"}
_FOLDERS_OF_SYSTEMS = {"__macosx", "@eadir", "$recycle.bin"}


def is_image_name(name: str) -> bool:
    """Whether a file's name is that of an image."""
    return os.path.splitext(name)[1].lower() in _SUFFIXES


def visible_entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and files of a folder, each sorted by name, without what is hidden or a system's own.

    Hidden names begin with a dot, as `._cat.jpg` and `.DS_Store` of macOS do. Links are followed. Raises OSError for a
    folder that cannot be listed.
    """
    folders, files = [], []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if entry.name.lower() not in _FOLDERS_OF_SYSTEMS:
                    folders.append(Path(entry.path))
            elif entry.name.lower() not in _OF_SYSTEMS:
                files.append(Path(entry.path))
    return folders, files


def images_below(folder: Path) -> Iterator[Path]:
    """The image files of a folder and of all folders below it, sorted within each folder; a loop of links ends."""
    return _images_below(folder, frozenset())


def _images_below(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:
        return
    folders, files = visible_entries(folder)
    yield from (file for file in files if is_image_name(file.name))
    for inner in folders:
        yield from _images_below(inner, above | {real})
