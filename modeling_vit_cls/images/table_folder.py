"""Folders of parquet or arrow files as datasets, such as `snapshot_download` and `save_to_disk` write."""

import glob
import logging
import os
import re
from pathlib import Path
from typing import Any

from ..errors import ConfigError, shorten
from ..install import needs
from .classes import is_label_column, is_text
from .image_files import visible_entries
from .metadata import LABEL_COLUMNS
from .read_errors import reason_of
from .splits import split_name

try:
    import datasets
    import pyarrow.parquet
except ImportError as error:
    raise needs("datasets", "to load images", "train") from error

_log = logging.getLogger(__name__)
_KINDS = {".parquet": "parquet", ".arrow": "arrow"}
_SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-\d{5}(-\w+)?")  # the names that the Hub's conversion to parquet gives
_FIRST_WORD = re.compile(r"[A-Za-z]+")
_DEPTH = 3  # levels of folders to search, as in CONFIG/data/train-00000-of-00001.parquet


def is_saved_to_disk(folder: Path) -> bool:
    """Whether `save_to_disk` of `datasets` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def load_saved(folder: Path) -> dict[str, Any]:
    """The splits in a folder of `save_to_disk`, {name: dataset}. Raises ConfigError for a damaged one."""
    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:  # of datasets and of the libraries below it
        rule = f"is an incomplete or damaged folder of save_to_disk ({reason_of(error)})"
        raise ConfigError("dataset_name", str(folder), rule) from error
    if isinstance(saved, datasets.DatasetDict):
        return {str(name): split for name, split in saved.items()}
    return {str(saved.split or "train"): saved}


def table_files(folder: Path) -> list[Path]:
    """The parquet and arrow files in a folder and in those below it, without `metadata.parquet` of images."""
    return _files(folder, _DEPTH)


def load_tables(folder: Path, files: list[Path], config_name: str | None) -> dict[str, Any]:
    """The splits of a folder of tables, {name: dataset}, from its `files` (see `table_files`).

    Raises ConfigError where it holds several configurations and `config_name` names none of them, and where files of a
    split differ in the classes of a column.
    """
    configs: dict[str, list[Path]] = {}
    for file in filter(_has_rows, files):
        configs.setdefault(_config_of(file.relative_to(folder)), []).append(file)
    if not configs:
        raise ConfigError("dataset_name", str(folder), "its tables have no rows")
    config = config_name or ("default" if "default" in configs else next(iter(configs)))
    if config not in configs or (config_name is None and len(configs) > 1):
        rule = f"must be one of {folder}: {', '.join(sorted(configs))}"
        raise ConfigError("dataset_config_name", config_name, rule)
    splits: dict[str, list[Path]] = {}
    for file in configs[config]:
        splits.setdefault(_split_of(file.relative_to(folder)), []).append(file)
    suffix, *more = {file.suffix for file in configs[config]}
    if more:
        raise ConfigError("dataset_name", str(folder), "holds both parquet and arrow files: keep one kind")
    return {split: _load_split(folder, _KINDS[suffix], split, files) for split, files in splits.items()}


def _load_split(folder: Path, kind: str, split: str, files: list[Path]) -> Any:
    """One split from its files. Alone, because datasets reads all files by the class names of the first one.

    Raises ConfigError, naming two files, where a column has other class names or another type in the second, and naming
    the split where its files cannot be read.
    """
    names = [glob.escape(os.path.abspath(file)) for file in files]
    try:
        _check_types(files)
        return datasets.load_dataset(kind, data_files={split: names}, split=split)
    except ConfigError:
        raise
    except Exception as error:  # of datasets and of the libraries below it
        rule = f"its tables cannot be read, those of the split {split} ({reason_of(error)})"
        raise ConfigError("dataset_name", str(folder), rule) from error


def _check_types(files: list[Path]) -> None:
    """Raise ConfigError, naming two files, where a column of labels has other class names or another type."""
    first, *others = files
    columns = _columns(first)
    for file in others:
        for name, feature in _columns(file).items():
            if name in columns and _contradict(name, columns[name], feature):
                rule = f"its column {name} is {shorten(columns[name], 200)} in {first}, but {shorten(feature, 200)} "
                rule += f"in {file}: write the files of a split with the same ClassLabel, or with texts as labels"
                raise ConfigError("dataset_name", str(first.parent), rule)


def _contradict(name: str, first: Any, second: Any) -> bool:
    """Whether labels of the second type would be read wrongly by the first: names by number, or as texts."""
    is_class = [isinstance(feature, datasets.ClassLabel) for feature in (first, second)]
    if all(is_class):
        return first.names != second.names
    if name not in LABEL_COLUMNS or not (is_label_column(first) and is_label_column(second)):
        return False
    return is_class[1] or is_text(first) != is_text(second)  # numbers after a ClassLabel are its classes


def _columns(file: Path) -> dict[str, Any]:
    """The columns of a file and their types, with the class names that datasets wrote into it."""
    if file.suffix == ".parquet":
        return datasets.Features.from_arrow_schema(pyarrow.parquet.read_schema(file))
    with pyarrow.memory_map(str(file)) as opened:
        try:
            schema = pyarrow.ipc.open_stream(opened).schema
        except pyarrow.ArrowInvalid:
            schema = pyarrow.ipc.open_file(opened).schema
    return datasets.Features.from_arrow_schema(schema)


def _files(folder: Path, depth: int) -> list[Path]:
    folders, files = visible_entries(folder)
    tables = [file for file in files if file.suffix in _KINDS and file.stem.lower() != "metadata"]
    for inner in folders if depth else ():
        tables += _files(inner, depth - 1)
    return tables


def _has_rows(file: Path) -> bool:
    """Whether a file has rows, or may have; a parquet file without, which would hide all other splits, is logged."""
    try:
        has_rows = file.suffix != ".parquet" or pyarrow.parquet.read_metadata(file).num_rows > 0
    except (OSError, ValueError):  # reading its rows will tell what is wrong
        return True
    if not has_rows:
        _log.warning("%s: ignored, because it has no rows", file)
    return has_rows


def _config_of(file: Path) -> str:
    """The configuration that a file belongs to: its folders without `data` and without names of splits."""
    parts = [part for part in file.parts[:-1] if part != "data" and split_name(part) is None]
    return "/".join(parts) or "default"


def _split_of(file: Path) -> str:
    """The split of a file: from the start of its name, or else from one of its folders, or else "train"."""
    shard = _SHARD.fullmatch(file.stem)
    word = _FIRST_WORD.match(file.stem)
    name = split_name(shard["split"] if shard else word[0] if word else "")
    if name is not None:
        return name
    if shard and shard["split"] not in ("data", "part"):
        return re.sub(r"\W", "_", shard["split"])
    return next((name for part in file.parts[:-1] if (name := split_name(part))), "train")
