"""LoadReport: what `from_pretrained` did to each tensor of a checkpoint."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass
class LoadReport(Mapping[str, list[str]]):
    """Names of parameters, as paths joined by dots, by what was done to them. Also a mapping: `report["missing_keys"]`.

    Attributes:
        missing_keys: not in the files, and left out of the parameters (only with `_do_init=False`).
        unexpected_keys: in another library's file but no part of the model (a decoder, a loss), and left out.
        mismatched_keys: of another shape in the files; replaced by a new head.
        new_keys: of a new head, drawn at random.
        dropped_keys: in the files, but not used by this class or readout.
        converted_keys: with another library's name or layout in the files.
        cast_keys: of another type in the files (float64, converted to float32).
        interpolated_keys: resampled to another size, here or, for an image processor of another size, in each call.
        changed_fields: fields of the config that change the outputs for the same weights, as the readout does.
        verified_keys: compared with the digests of the file. A file of another library has none.
        nonfinite_keys: with NaN or infinity, unless a digest shows that they were saved with it.
        nonfinite_files: the files of these.
        config_notes: contradictions between the label maps of config.json, and which one was used; fields that it
            leaves out and that were read from the tensors.
        file_notes: how the model was found in its files: inside a wrapper whose prefix all tensors have, or as a base
            model and an adapter that were merged.
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
    file_notes: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[str]:
        return (item.name for item in fields(self))

    def __len__(self) -> int:
        return len(fields(self))

    def __getitem__(self, name: str) -> list[str]:
        if name not in {item.name for item in fields(self)}:
            raise KeyError(name)
        return getattr(self, name)

    def note_nonfinite(self, name: str, file: Path) -> None:
        """Record a tensor with NaN or infinity, by its dotted name or that of the parameter, and its file."""
        self.nonfinite_keys.append(name.removeprefix("vit_cls."))
        if str(file) not in self.nonfinite_files:
            self.nonfinite_files.append(str(file))

    def log(self, folder: Path) -> None:
        """Log a warning for each kind of difference between the parameters and the file."""
        warnings = {
            "missing, left out of the parameters": self.missing_keys,
            "newly drawn, to be trained": self.new_keys,
            "interpolated to another image or patch size": self.interpolated_keys,
            "float64 in the file, float32 in the parameters": self.cast_keys,
            "the weights were saved with another value of": self.changed_fields,
            "in the file and no part of the model, left out": self.unexpected_keys,
            f"NaN or infinite in {', '.join(self.nonfinite_files)}, so the outputs may be": self.nonfinite_keys,
        }
        for note in self.file_notes:
            logger.warning("%s: %s", folder, note)
        for text, names in warnings.items():
            if names:
                logger.warning("%s: %s: %s", folder, text, ", ".join(names))
        for note in self.config_notes:
            logger.warning("%s: config.json: %s", folder, note)
