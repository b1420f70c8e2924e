"""The folder of a run, locked while one process trains into it, and its checkpoints."""

import logging
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np

from .. import processes
from ..errors import ConfigError
from ..files.folder import remove_if_left, unwritable
from ..files.locks import try_lock
from ..names import CHECKPOINT, RUN_LOCK

_log = logging.getLogger(__name__)
_SHARED_MINUTES = 10


class RunFolder:
    """The folder of a run, as a context manager that locks it. The block may enter it again.

    The folder is created if necessary, and removed again if it stays empty. Incomplete checkpoints of a killed process
    are deleted. Raises ConfigError at once if another run has the lock or the folder cannot be written. In a run of
    several processes, process 0 alone does this.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._depth, self._descriptor = 0, -1
        self._created: list[Path] = []

    def __enter__(self) -> "RunFolder":
        if self._depth == 0 and processes.is_first():
            try:
                self._created = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
                self.path.mkdir(parents=True, exist_ok=True)
                self._descriptor = self._locked()
            except OSError as error:
                self._remove_created()
                raise unwritable("output_dir", self.path, error) from error
            for incomplete in self.path.glob(".checkpoint-*.tmp-*"):
                remove_if_left(incomplete)
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0 and processes.is_first():
            with suppress(OSError):
                (self.path / RUN_LOCK).unlink()  # before unlocking: the next run then creates a new file
            os.close(self._descriptor)
            self._remove_created()

    def _locked(self) -> int:
        """Open and lock the lock file. Returns its descriptor."""
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
            os.close(descriptor)  # this file was deleted by a run that has just ended: try again

    def _remove_created(self) -> None:
        """Remove the folders that were created, if they are empty."""
        for folder in self._created:  # the innermost first
            with suppress(OSError):
                folder.rmdir()


def check_shared(output_dir: Path) -> None:
    """Raise ConfigError in all processes unless they see in `output_dir` what process 0 writes there."""
    name = processes.from_first(f".shared-{secrets.token_hex(8)}")
    if processes.is_first():
        (output_dir / name).touch()
    processes.wait("shared folder", _SHARED_MINUTES)
    seen = processes.gather(np.array((output_dir / name).exists()))
    if processes.is_first():
        (output_dir / name).unlink()
    if not seen.all():
        rule = f"must be one folder for all processes, but process {seen.argmin()} of {len(seen)} does not see in it "
        raise ConfigError("output_dir", str(output_dir), rule + "what process 0 writes: give one on a shared disk")


def checkpoints_of(output_dir: Path) -> list[Path]:
    """The checkpoint-N folders of a run, oldest first."""
    checkpoints = [entry for entry in output_dir.glob("checkpoint-*") if CHECKPOINT.fullmatch(entry.name)]
    return sorted(checkpoints, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step N of a folder checkpoint-N."""
    return int(checkpoint.name.partition("-")[2])


def checkpoint_to_resume(output_dir: Path, wanted: bool | str | os.PathLike[str]) -> Path | None:
    """The checkpoint to resume from: the folder `wanted`, or for True the last checkpoint; None for a new run.

    Raises ConfigError if a new run would be mixed with an earlier one, and for a run's folder instead of a checkpoint.
    """
    checkpoints = checkpoints_of(output_dir)
    if not isinstance(wanted, bool) and (inside := checkpoints_of(Path(wanted))):
        raise ConfigError("resume_from_checkpoint", str(wanted), f"is a run's folder: give {inside[-1]}")
    chosen = Path(wanted) if not isinstance(wanted, bool) else checkpoints[-1] if wanted and checkpoints else None
    if checkpoints and (chosen is None or chosen.resolve().parent != output_dir.resolve()):
        rule = f"holds {checkpoints[-1].name} of an earlier run: go on with it by resume_from_checkpoint=True "
        rule += "(--resume_from_checkpoint true), or give another folder"
        raise ConfigError("output_dir", str(output_dir), rule)
    if chosen is not None:
        _log_later(chosen)
    return chosen


def _log_later(checkpoint: Path) -> None:
    """Log the checkpoints of a run that are later than the one it resumes from."""
    later = [other.name for other in checkpoints_of(checkpoint.parent) if CHECKPOINT.fullmatch(checkpoint.name)]
    later = [name for name in later if step_of(Path(name)) > step_of(checkpoint)]
    if later:
        names = ", ".join(later)
        _log.warning("%s: %s stay until the run reaches these steps again, and replaces them", checkpoint, names)


def remove_outdated(output_dir: Path, keep: int | None, step: int, best: str | None) -> None:
    """Remove the oldest checkpoints up to `step` until `keep` are left. The newest and the best one are kept."""
    if keep is None:
        return
    checkpoints = [checkpoint for checkpoint in checkpoints_of(output_dir) if step_of(checkpoint) <= step]
    removable = [checkpoint for checkpoint in checkpoints[:-1] if best is None or checkpoint.name != Path(best).name]
    for outdated in removable[: max(0, len(checkpoints) - keep)]:
        hidden = outdated.with_name(f".{outdated.name}.tmp-removed")
        outdated.rename(hidden)  # one step; a half-deleted folder must not look like a checkpoint
        shutil.rmtree(hidden)


def copy_checkpoint(checkpoint: Path, output_dir: Path) -> None:
    """Copy a checkpoint into a run's folder, in one step, unless it is there already."""
    target = output_dir / checkpoint.name
    if target.resolve() != checkpoint.resolve():
        hidden = output_dir / f".{checkpoint.name}.tmp-copied"
        shutil.copytree(checkpoint, hidden)
        hidden.rename(target)
