"""The state of a training run on disk: what a checkpoint-N folder holds beside the model.

It is block by block there, however the run computes; its paths are relative to the run.
"""

import copy
import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import jax
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file
from transformers import TrainerState

from ..errors import CheckpointError
from ..files.file_digests import check_digests, write_digests
from ..files.folder import replace_file
from ..files.writing import write_safetensors
from ..names import CHECKPOINT, TRAINER_STATE, TRAINING_STATE
from ..nn.scan import is_stacked, stack, unstack
from .binding import Run, changes_since
from .run_folder import step_of
from .step import TrainState

_log = logging.getLogger(__name__)
_TIMES = ("_runtime", "_per_second")


def write_training_state(folder: Path, state: TrainState, trainer_state: TrainerState, run: Run) -> None:
    """Everything that the continuation of a run needs, into a folder that is being built, and the digests of it all.

    Call it last: nothing that is written into the folder later has a digest.
    """
    arrays = unstack(jax.device_get(_leaves(state)))
    write_safetensors(folder / TRAINING_STATE, arrays, {"run": json.dumps(run)})
    write_trainer_state(folder, trainer_state)
    write_digests(folder)


def write_trainer_state(folder: Path, trainer_state: TrainerState) -> None:
    """Write `trainer_state.json`.

    Its best checkpoint is there by name, so that the run may be moved; times are left out, so that a run that was
    stopped and went on writes the bytes of the unbroken one.
    """
    written = copy.copy(trainer_state)
    written.log_history = [
        {name: value for name, value in entry.items() if not name.endswith(_TIMES)} for entry in written.log_history
    ]
    if written.best_model_checkpoint is not None:
        written.best_model_checkpoint = Path(written.best_model_checkpoint).name
    text = json.dumps(dataclasses.asdict(written), indent=2, sort_keys=True) + "\n"
    replace_file(folder / TRAINER_STATE, text.encode())


def read_training_state(folder: Path, like: TrainState, run: Run) -> tuple[TrainState, TrainerState]:
    """The state of a run at one of its checkpoints; `like` is the state that it began with.

    Raises CheckpointError for files that are missing, damaged or of another checkpoint, ConfigError, naming the field,
    where the run was another one: its continuation would not be what the unbroken run had been.
    """
    changed = check_own_checkpoint(folder, run)
    file, expected = folder / TRAINING_STATE, _leaves(like)
    arrays = load_file(file)
    for name, leaf in unstack(expected).items():
        if name not in arrays or arrays[name].shape != leaf.shape or arrays[name].dtype != leaf.dtype:
            raise CheckpointError(f"{file}: {name} is missing or of another shape; the model is not that of the run")
    trainer_state = _read_trainer_state(folder)
    if trainer_state.global_step != int(arrays["step"]):
        steps = f"{trainer_state.global_step} steps, {TRAINING_STATE} after {int(arrays['step'])}"
        raise CheckpointError(f"{folder / TRAINER_STATE}: is after {steps}: they are of two checkpoints")
    if CHECKPOINT.fullmatch(folder.name) and step_of(folder) != trainer_state.global_step:
        raise CheckpointError(f"{folder}: holds the checkpoint after {trainer_state.global_step} steps; rename it back")
    if changed:
        _log.warning("%s: these settings changed since the checkpoint: %s", folder, "; ".join(changed))
    arrays = stack(arrays) if any(map(is_stacked, expected)) else arrays
    leaves = [jax.numpy.asarray(arrays[name]) for name in expected]
    return jax.tree.unflatten(jax.tree.structure(like), leaves), trainer_state


def check_own_checkpoint(folder: Path, run: Run) -> list[str]:
    """See that all files of a checkpoint are whole and that it is one of this run; what has changed since, in words.

    Raises CheckpointError and ConfigError as `read_training_state`.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such checkpoint")
    check_digests(folder)
    file = folder / TRAINING_STATE
    try:
        with safe_open(file, "numpy") as opened:
            before = json.loads((opened.metadata() or {})["run"])
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{file}: is not the state of a training run ({error})") from error
    return changes_since(run, before, folder)


def _read_trainer_state(folder: Path) -> TrainerState:
    file = folder / TRAINER_STATE
    try:
        state = TrainerState.load_from_json(str(file))
    except (OSError, ValueError, TypeError) as error:
        remedy = "go on with the version of transformers that wrote it"
        raise CheckpointError(f"{file}: is not the state of a trainer ({error}); {remedy}") from error
    if state.best_model_checkpoint is not None:
        state.best_model_checkpoint = str(folder.parent / Path(state.best_model_checkpoint).name)
    return state


def _leaves(state: TrainState) -> dict[str, Any]:
    paths = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in paths}
