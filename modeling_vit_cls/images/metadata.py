"""The labels of image files from a `metadata.csv`, `.jsonl` or `.parquet` in their folder."""

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .classes import label_text

_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
LABEL_COLUMNS = ("label", "labels", "class")


def metadata_file(files: Sequence[Path]) -> Path | None:
    """The metadata file among the files of a folder, or None."""
    return next((file for file in files if file.name.lower() in _NAMES), None)


def read_metadata(file: Path, label_column_name: str | None = None) -> dict[Path, str | None]:
    """{path of an image: its label as text}, in the file's order; None for an image without a label.

    The labels are in the column `label_column_name`, by default in one called label, labels or class. -1 is a missing
    label, and spaces around a text are no part of it. In a CSV file in which all labels are whole numbers, 1.0 is 1, as
    pandas writes where one is missing. Raises ConfigError, naming the file and the row, for a table that cannot be
    read, for a path outside the folder, and for an image with two labels.
    """
    labels: dict[Path, str | None] = {}
    for number, (image, row) in enumerate(read_rows(file), 1):
        label = _label(file, number, row, label_column_name)
        if labels.get(image, label) != label:
            name, earlier = row["file_name"], labels[image]
            raise _problem(file, f"row {number}: {name} has the label {label!r}, in an earlier row {earlier!r}")
        labels[image] = label
    if not labels:
        raise _problem(file, "has no rows")
    texts = set(labels.values()) - {None}
    if file.suffix.lower() == ".csv" and all(re.fullmatch(r"-?[0-9]+(\.0*)?", str(text)) for text in texts):
        whole = {text: str(text).partition(".")[0] for text in texts}
        return {image: None if whole.get(text) == "-1" else whole.get(text) for image, text in labels.items()}
    return labels


def read_rows(file: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The path of an image and its row, {column: value}, for each row of a metadata file. Errors as `read_metadata`."""
    for number, row in enumerate(_rows(file), 1):
        if None in row:
            raise _problem(file, f"row {number} has more fields than the first line: quote a field with a comma")
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            hint = "; separate the columns by commas" if any(re.search("[;\t]", column) for column in row) else ""
            raise _problem(file, f"row {number} has no text in a column file_name{hint}")
        path = os.path.normpath(name)
        if os.path.isabs(path) or path.split(os.sep)[0] == "..":
            raise _problem(file, f"row {number}: {name} is not in this folder")
        yield file.parent / path, row


def _label(file: Path, number: int, row: Mapping[str, Any], column: str | None) -> str | None:
    columns = (column,) if column else LABEL_COLUMNS
    value = next((row[name] for name in columns if name in row), None)
    try:
        if value is None or isinstance(value, str | int | float):
            return label_text(value.strip() if isinstance(value, str) else value)
    except ConfigError:  # a fraction
        pass
    raise _problem(file, f"row {number}: a label must be a text or a whole number, got {type(value).__name__}")


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    try:
        if file.suffix.lower() == ".csv":
            with file.open(newline="", encoding="utf-8-sig") as opened:
                yield from csv.DictReader(opened, skipinitialspace=True, strict=True)
        elif file.suffix.lower() == ".jsonl":
            with file.open(encoding="utf-8-sig") as opened:
                for row in (json.loads(line) for line in opened if line.strip()):
                    if not isinstance(row, dict):
                        raise ValueError(f"expected an object in each line, got {type(row).__name__}")
                    yield row
        else:
            import pyarrow.parquet

            yield from pyarrow.parquet.read_table(file).to_pylist()
    except ConfigError:
        raise
    except csv.Error as error:
        raise _problem(file, f"cannot be read as CSV ({error}): is a quote not closed?") from error
    except (OSError, ValueError, RecursionError) as error:
        raise _problem(file, f"cannot be read ({error})") from error


def _problem(file: Path, rule: str) -> ConfigError:
    return ConfigError("dataset_name", str(file.parent), f"{file}: {rule}")
