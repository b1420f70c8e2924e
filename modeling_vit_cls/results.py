"""Results: the measurements of a model and their conditions, the content of results.json as a dataclass."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from .errors import CheckpointError, did_you_mean, one_line, shorten
from .files.folder import replace_file
from .files.json_file import read_json
from .names import RESULTS
from .provenance import is_hub_id

_NUMBER, _NAMED = {"type": (int, float), "rule": "a number"}, {"type": Mapping, "rule": "names with values"}


def _number() -> Any:
    return field(default=None, metadata=_NUMBER)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The name of a model or a dataset, and its source: "hub", "folder" or "built-in" (see provenance.py)."""

    name: str | None = None
    source: str | None = None
    revision: str | None = None

    @property
    def hub_id(self) -> str | None:
        """The id on the Hub, if the recorded source is the Hub; else None."""
        from_hub = self.source == "hub" and isinstance(self.name, str) and is_hub_id(self.name)
        return self.name if from_hub else None


@dataclass(frozen=True, kw_only=True)
class MeasuredData(Origin):
    """A split of a dataset, with numbers of images: `examples` used, `skipped` because they could not be read.

    `duplicates` is the number of examples that are in the training data too; beside it, `images` is a digest of the
    images of a folder, as another folder may have its name.
    """

    split: str | None = None
    examples: int | None = _number()
    skipped: int | None = _number()
    duplicates: int | None = _number()
    images: str | None = None


@dataclass(frozen=True, kw_only=True)
class MeasuredModel:
    """The model that was measured; `class_name` is "class" in the file, `revision` that of a model on the Hub."""

    name: str | None = None
    revision: str | None = None
    class_name: str | None = field(default=None, metadata={"name": "class"})
    readout: str | None = None
    parameters: int | None = _number()


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Throughput in batches of `batch_size`; `includes` lists the steps that were timed."""

    images_per_second: float | None = _number()
    batch_size: int | None = _number()
    dtype: str | None = None
    includes: str | None = None


@dataclass(frozen=True, kw_only=True)
class Training:
    """The training data of a model, the number of unreadable images `left_out`, and the model that was fine-tuned.

    `batch_size` is the number of images in an update, of all devices.
    """

    dataset: MeasuredData = field(default_factory=MeasuredData)
    left_out: int | None = _number()
    batch_size: int | None = _number()
    base_model: Origin = field(default_factory=Origin)


@dataclass(frozen=True, kw_only=True)
class FeatureEvaluation:
    """How the features of a backbone were evaluated, without training it.

    `method` is "knn", "retrieval" or "probe". `train` are the images that neighbours were searched among, or that the
    probe was fitted to. `c` is the probe's inverse strength of regularisation ("C" in the file), `held_out_accuracy`
    its accuracy on the training images that chose it. `readouts` has the metrics of each readout.
    """

    method: str | None = None
    train: MeasuredData = field(default_factory=MeasuredData)
    c: float | None = field(default=None, metadata={"name": "C", **_NUMBER})
    held_out_accuracy: float | None = _number()
    readouts: Mapping[str, Mapping[str, float]] | None = field(default=None, metadata=_NAMED)


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The machine: name of the processor, number of cores, names of the accelerators."""

    processor: str | None = None
    cores: int | None = _number()
    accelerators: Sequence[str] | None = field(default=None, metadata={"type": list, "rule": "a list"})


@dataclass(frozen=True, kw_only=True)
class Results:
    """The content of results.json. What was not recorded is None, or a record without values.

    `metrics` are numbers by name; accuracies are shares in [0, 1]. `confusion_matrix[i][j]` counts images of class i
    that were classified as j. `features` tells the method if features were evaluated and not a classifier; `metrics`
    are then those of the readout `model.readout`. `recipe` and `training` describe how the model was trained.
    """

    model: MeasuredModel = field(default_factory=MeasuredModel)
    dataset: MeasuredData = field(default_factory=MeasuredData)
    metrics: Mapping[str, Any] = field(metadata=_NAMED)
    confusion_matrix: Sequence[Sequence[int]] | None = field(default=None, metadata={"type": list, "rule": "a list"})
    features: FeatureEvaluation = field(default_factory=FeatureEvaluation)
    throughput: Throughput = field(default_factory=Throughput)
    recipe: Mapping[str, Any] | None = field(default=None, metadata={**_NAMED, "null": True})
    training: Training = field(default_factory=Training)
    versions: Mapping[str, str] = field(default_factory=dict, metadata=_NAMED)
    hardware: Hardware = field(default_factory=Hardware)
    date: str | None = None

    def to_json(self) -> str:
        """The text of results.json, with one line per row of the confusion matrix. Raises ValueError for NaN."""
        text = json.dumps(_values(self), indent=2, allow_nan=False)
        return re.sub(r"\[\n[\d,\s]+\]", lambda row: "".join(row[0].split()).replace(",", ", "), text)

    def write(self, file: str | os.PathLike[str]) -> None:
        """Write results.json. The file is replaced in one step. Raises OSError if it cannot be written."""
        replace_file(Path(file), (self.to_json() + "\n").encode())

    @classmethod
    def from_json(cls, text: str) -> "Results":
        """Parse the text of results.json. Raises CheckpointError as `read` does."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{RESULTS}: cannot be read as JSON ({error})") from error
        return _record(cls, values, Path(RESULTS))

    @classmethod
    def read(cls, file: Path) -> "Results":
        """Read results.json. Files of older versions, which have fewer fields, can be read too.

        Raises CheckpointError, naming the file and the field, for a field that is missing, unknown or of another type.
        """
        return _record(cls, read_json(file), file)


def _values(record: Any) -> dict[str, Any]:
    """A record as a dict for JSON, without the fields that were not recorded."""
    values: dict[str, Any] = {}
    for entry in fields(record):
        value = getattr(record, entry.name)
        value = (_values(value) or None) if is_dataclass(value) else value
        if value is not None or "null" in entry.metadata:
            values[_name(entry)] = value
    return values


def _record(cls: Any, values: Any, file: Path, within: str = "") -> Any:
    """A record of class `cls` from its values in a file. `within` is their path in it, such as "training.dataset."."""
    if values is None:
        return cls()
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{file}: {within.rstrip('.') or 'it'} must be names with values, got {shorten(values)}")
    known = {_name(entry): entry for entry in fields(cls)}
    for name in values:
        if name not in known:
            rule = f"is not a field of {RESULTS}: correct its name or remove it{did_you_mean(name, known)}"
            raise CheckpointError(f"{file}: {within}{one_line(name)} {rule}")
    for name, entry in known.items():
        if name not in values and entry.default is MISSING and entry.default_factory is MISSING:
            raise CheckpointError(f"{file}: the field {within}{name} is missing")
    return cls(**{known[name].name: _value(known[name], value, file, within) for name, value in values.items()})


def _value(entry: Field, value: Any, file: Path, within: str) -> Any:
    """The checked value of one field. Raises CheckpointError for a value of another type."""
    name = within + _name(entry)
    if is_dataclass(entry.default_factory):
        return _record(entry.default_factory, value, file, f"{name}.")
    expected = entry.metadata.get("type")
    if expected and not (isinstance(value, expected) and not isinstance(value, bool)) and value is not entry.default:
        raise CheckpointError(f"{file}: {name} must be {entry.metadata['rule']}, got {shorten(value)}")
    return value


def _name(entry: Field) -> str:
    """The name of a field in the file."""
    return entry.metadata.get("name", entry.name)
