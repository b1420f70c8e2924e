"""What happened to each tensor of a checkpoint while it was loaded."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass
class LoadReport(Mapping[str, list[str]]):
    """Tensors by what happened to them; also readable as the dict that transformers returns, `report["missing_keys"]`.

    Names are parameter paths joined by dots. `missing_keys` were not in the files and are absent (only with
    `_do_init=False`), `unexpected_keys` are of no part of the model (a decoder, a loss), by their names in another
    library's file, and were left out as that library does, `new_keys` belong to a new head and were drawn at random,
    `dropped_keys` were in the files and are not used by this class or readout, `converted_keys` are named or laid out
    in another library's way in the files, `cast_keys` are of another type there (float64, held as float32),
    `interpolated_keys` were resampled to another size, or are in each call, where the image processor's size is not the
    config's. `changed_fields` are those of the config that change what the backbone computes with the same weights.
    `verified_keys` were compared with the digests of the file; a file of another library has none. `nonfinite_keys`
    hold NaN or infinity, in `nonfinite_files`, and no digest says that they were saved so. `config_notes` say where the
    label maps of config.json contradict each other, and what was taken.
    """

    missing_keys: list[str] = field(default_factory=list)
    unexpected_keys: list[str] = field(default_factory=list)
    mismatched_keys: list[str] = field(default_factory=list)
    new_keys: list[str] = field(default_factory=list)
    dropped_keys: list[str] = field(default_factory=list)
    converted_keys: list[str] = field(default_factory=list)
    cast_keys: list[str] = field(default_factory=list)
    interpolated_keys: list[str] = field(default_factory=list)
    changed_fields: list[str] = field(default_factory=list)
    verified_keys: list[str] = field(default_factory=list)
    nonfinite_keys: list[str] = field(default_factory=list)
    nonfinite_files: list[str] = field(default_factory=list)
    config_notes: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[str]:
        return (item.name for item in fields(self))

    def __len__(self) -> int:
        return len(fields(self))

    def __getitem__(self, name: str) -> list[str]:
        if name not in {item.name for item in fields(self)}:
            raise KeyError(name)
        return getattr(self, name)

    def note_nonfinite(self, name: str, file: Path) -> None:
        """Note a tensor that holds NaN or infinity, by its dotted name or that of the parameter, and its file."""
        self.nonfinite_keys.append(name.removeprefix("vit_cls."))
        if str(file) not in self.nonfinite_files:
            self.nonfinite_files.append(str(file))

    def log(self, folder: Path) -> None:
        """Warn of what is not simply the file's: missing, newly drawn, interpolated, rounded."""
        said = {
            "missing, left out of the parameters": self.missing_keys,
            "newly drawn, to be trained": self.new_keys,
            "interpolated to another image or patch size": self.interpolated_keys,
            "float64 in the file, float32 in the parameters": self.cast_keys,
            "the weights were saved with another value of": self.changed_fields,
            "in the file and no part of the model, left out": self.unexpected_keys,
            f"NaN or infinite in {', '.join(self.nonfinite_files)}, so the outputs may be": self.nonfinite_keys,
        }
        for what, names in said.items():
            if names:
                logger.warning("%s: %s: %s", folder, what, ", ".join(names))
        for note in self.config_notes:
            logger.warning("%s: config.json: %s", folder, note)
