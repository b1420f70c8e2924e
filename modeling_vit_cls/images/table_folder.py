"""Folders of tables as datasets: parquet and arrow files, as `snapshot_download` makes them, and `save_to_disk`."""

import glob
import os
import re
from pathlib import Path
from typing import Any

from ..errors import ConfigError, shorten
from ..install import needs
from .image_files import visible_entries
from .splits import split_name

try:
    import datasets
except ImportError as error:
    raise needs("datasets", "to load images", "train") from error

_KINDS = {".parquet": "parquet", ".arrow": "arrow"}
_SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-\d{5}(-\w+)?")  # as the Hub's own conversion names its files
_FIRST_WORD = re.compile(r"[A-Za-z]+")
_DEPTH = 3  # folders below the given one: CONFIG/data/train-00000-of-00001.parquet


def is_saved_to_disk(folder: Path) -> bool:
    """Whether `save_to_disk` of datasets wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def load_saved(folder: Path) -> dict[str, Any]:
    """The splits of a folder of `save_to_disk`. Raises ConfigError for one that is damaged."""
    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        reason = shorten(str(error), 200)[1:-1]
        raise ConfigError("dataset_name", str(folder), f"is no whole folder of save_to_disk ({reason})") from error
    if isinstance(found, datasets.DatasetDict):
        return {str(name): split for name, split in found.items()}
    return {str(found.split or "train"): found}


def table_files(folder: Path) -> list[Path]:
    """The parquet and arrow files of a folder, or of those below it; metadata of images is none of them."""
    return _files(folder, _DEPTH)


def load_tables(folder: Path, files: list[Path], config_name: str | None) -> dict[str, Any]:
    """The splits of a folder of tables. Raises ConfigError where it holds several datasets and none is chosen."""
    configs: dict[str, list[Path]] = {}
    for file in files:
        configs.setdefault(_config_of(file.relative_to(folder)), []).append(file)
    chosen = config_name or ("default" if "default" in configs else next(iter(configs)))
    if chosen not in configs or (config_name is None and len(configs) > 1):
        rule = f"must be one of {folder}: {', '.join(sorted(configs))}"
        raise ConfigError("dataset_config_name", config_name, rule)
    splits: dict[str, list[str]] = {}
    for file in configs[chosen]:
        splits.setdefault(_split_of(file.relative_to(folder)), []).append(glob.escape(os.path.abspath(file)))
    kinds = {file.suffix for file in configs[chosen]}
    if len(kinds) > 1:
        raise ConfigError("dataset_name", str(folder), "holds parquet and arrow files: keep one kind")
    try:
        found: Any = datasets.load_dataset(_KINDS[kinds.pop()], data_files=splits)
    except (OSError, ValueError, RuntimeError) as error:
        reason = shorten(str(error.__cause__ or error), 200)[1:-1]
        raise ConfigError("dataset_name", str(folder), f"its tables cannot be read ({reason})") from error
    return {str(name): split for name, split in found.items()}


def _files(folder: Path, depth: int) -> list[Path]:
    folders, files = visible_entries(folder)
    found = [file for file in files if file.suffix in _KINDS and file.stem.lower() != "metadata"]
    for inner in folders if depth else ():
        found += _files(inner, depth - 1)
    return found


def _config_of(file: Path) -> str:
    """The configuration that a file belongs to: its folders, but for `data` and those of splits."""
    parts = [part for part in file.parts[:-1] if part != "data" and split_name(part) is None]
    return "/".join(parts) or "default"


def _split_of(file: Path) -> str:
    """The split of a file: what its name begins with, or a folder of it; "train" where neither tells."""
    shard = _SHARD.fullmatch(file.stem)
    word = _FIRST_WORD.match(file.stem)
    name = split_name(shard["split"] if shard else word[0] if word else "")
    if name is not None:
        return name
    if shard and shard["split"] != "data":
        return re.sub(r"\W", "_", shard["split"])
    return next((name for part in file.parts[:-1] if (name := split_name(part))), "train")
