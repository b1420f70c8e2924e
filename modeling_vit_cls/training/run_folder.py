"""The folder of a run: one process trains into it at a time, and it can be written."""

import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path

from ..errors import ConfigError
from ..files.folder import remove_if_left
from ..files.locks import try_lock
from ..names import CHECKPOINT, RUN_LOCK

_log = logging.getLogger(__name__)


class RunFolder:
    """A run's folder, held while `with` lasts; within it, it may be entered again.

    It is made if it is not there, and removed again if it stays empty. What a killed process left in it of checkpoints
    that it wrote or removed goes. Raises ConfigError, at once, where another run holds it and where it cannot be
    written.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._depth, self._descriptor = 0, -1
        self._made: list[Path] = []

    def __enter__(self) -> "RunFolder":
        if self._depth == 0:
            try:
                self._made = [place for place in (self.path, *self.path.parents) if not place.exists()]
                self.path.mkdir(parents=True, exist_ok=True)
                self._descriptor = self._locked()
            except OSError as error:
                self._remove_made()
                rule = f"cannot be written ({error.strerror}): give another folder"
                raise ConfigError("output_dir", str(self.path), rule) from error
            for left in self.path.glob(".checkpoint-*.tmp-*"):
                remove_if_left(left)
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            with suppress(OSError):
                (self.path / RUN_LOCK).unlink()  # while it is held: whoever waits to open it makes a new one
            os.close(self._descriptor)
            self._remove_made()

    def _locked(self) -> int:
        """The lock's file, open and locked."""
        file = self.path / RUN_LOCK
        while True:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
            locked = try_lock(descriptor)
            if locked is None:
                return descriptor
            if not locked:
                os.close(descriptor)
                rule = "another run is training into it: wait until it ends, or give another folder"
                raise ConfigError("output_dir", str(self.path), rule)
            with suppress(OSError):
                if os.path.samestat(os.fstat(descriptor), os.stat(file)):
                    return descriptor
            os.close(descriptor)  # the run that held it has just ended, and its file is gone

    def _remove_made(self) -> None:
        for place in self._made:  # the innermost first; what holds something stays
            with suppress(OSError):
                place.rmdir()


def checkpoints_of(output_dir: Path) -> list[Path]:
    """The checkpoint-N folders of a run, oldest first."""
    found = [entry for entry in output_dir.glob("checkpoint-*") if CHECKPOINT.fullmatch(entry.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The N of a folder checkpoint-N."""
    return int(checkpoint.name.partition("-")[2])


def checkpoint_to_resume(output_dir: Path, wanted: bool | str | os.PathLike[str]) -> Path | None:
    """The checkpoint that a run goes on from: a folder, or for True the last one; None where it begins.

    Raises ConfigError where a new run would mix with an older one's, and for a run's folder in place of a checkpoint.
    """
    found = checkpoints_of(output_dir)
    if not isinstance(wanted, bool) and (inside := checkpoints_of(Path(wanted))):
        raise ConfigError("resume_from_checkpoint", str(wanted), f"is a run's folder: give {inside[-1]}")
    chosen = Path(wanted) if not isinstance(wanted, bool) else found[-1] if wanted and found else None
    if found and (chosen is None or chosen.resolve().parent != output_dir.resolve()):
        rule = f"holds {found[-1].name} of an earlier run: go on with it by resume_from_checkpoint=True "
        rule += "(--resume_from_checkpoint true), or give another folder"
        raise ConfigError("output_dir", str(output_dir), rule)
    if chosen is not None:
        _note_later(chosen)
    return chosen


def _note_later(checkpoint: Path) -> None:
    """Log which checkpoints of a run are later than the one that it goes on from."""
    later = [other.name for other in checkpoints_of(checkpoint.parent) if CHECKPOINT.fullmatch(checkpoint.name)]
    later = [name for name in later if step_of(Path(name)) > step_of(checkpoint)]
    if later:
        _log.warning("%s: %s stay until the run gets there again, and replaces them", checkpoint, ", ".join(later))


def remove_outdated(output_dir: Path, keep: int | None, step: int, best: str | None) -> None:
    """Of the checkpoints up to this step, remove the oldest until `keep` are left; the newest and the best stay."""
    if keep is None:
        return
    made = [checkpoint for checkpoint in checkpoints_of(output_dir) if step_of(checkpoint) <= step]
    removable = [checkpoint for checkpoint in made[:-1] if best is None or checkpoint.name != Path(best).name]
    for outdated in removable[: max(0, len(made) - keep)]:
        hidden = outdated.with_name(f".{outdated.name}.tmp-removed")
        outdated.rename(hidden)  # at once no checkpoint any more, however long its removal takes
        shutil.rmtree(hidden)


def copy_checkpoint(checkpoint: Path, output_dir: Path) -> Path:
    """A checkpoint of this run in its folder: copied there from where the run began, whole or not at all."""
    target = output_dir / checkpoint.name
    if target.resolve() != checkpoint.resolve():
        hidden = output_dir / f".{checkpoint.name}.tmp-copied"
        shutil.copytree(checkpoint, hidden)
        hidden.rename(target)
    return target
