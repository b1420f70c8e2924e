"""The state of a training run on disk: the files of a checkpoint-N folder besides the model.

Parameters are stored block by block, even if the run computes with stacked blocks. Paths are relative to the run.
"""

import copy
import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from safetensors import SafetensorError, safe_open
from transformers import TrainerState

from .. import processes
from ..errors import CheckpointError
from ..files.file_digests import check_digests, write_digests
from ..files.folder import replace_file
from ..files.formats import read_file
from ..files.placing import assembled
from ..files.tensor import Tensor
from ..files.writing import gather, write_safetensors
from ..names import CHECKPOINT, TRAINER_STATE, TRAINING_STATE
from ..nn.scan import Block, is_stacked, unstack, unstack_params
from .binding import Run, changes_since
from .run_folder import step_of
from .step import TrainState

_log = logging.getLogger(__name__)
_TIMES = ("_runtime", "_per_second")


def params_to_save(state: TrainState) -> Any:
    """The parameters to save, block by block, of which each is taken from its stack when it is written."""
    return unstack_params(state.params if state.ema is None else state.ema, Block)


def abstract(state: TrainState) -> TrainState:
    """Shape, type and sharding of each leaf of a state, without its numbers."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def write_training_state(folder: Path | None, state: TrainState, trainer_state: TrainerState, run: Run) -> None:
    """Write everything that resuming needs into a folder that is being built, and the digests of all its files.

    Call this last, because files that are stored later have no digest. In a run of several processes the first one
    writes, and the others call this with `folder=None`.
    """
    arrays = unstack(_leaves(state), Block)
    if folder is None:
        gather(arrays)
        return
    write_safetensors(folder / TRAINING_STATE, arrays, {"run": json.dumps(run)})
    write_trainer_state(folder, trainer_state)
    write_digests(folder)


def write_trainer_state(folder: Path | None, trainer_state: TrainerState) -> None:
    """Write `trainer_state.json`; nothing with `folder=None`, in a process that does not write.

    The best checkpoint is stored by its name, so that the run may be moved. Times are left out, so that a resumed run
    writes the same bytes as one that was never stopped.
    """
    if folder is None:
        return
    stored = copy.copy(trainer_state)
    stored.log_history = [
        {name: value for name, value in entry.items() if not name.endswith(_TIMES)} for entry in stored.log_history
    ]
    if stored.best_model_checkpoint is not None:
        stored.best_model_checkpoint = Path(stored.best_model_checkpoint).name
    text = json.dumps(dataclasses.asdict(stored), indent=2, sort_keys=True) + "\n"
    replace_file(folder / TRAINER_STATE, text.encode())


def read_training_state(folder: Path, like: TrainState, run: Run) -> tuple[TrainState, TrainerState]:
    """The state of a run at one of its checkpoints.

    `like` is the state at its start, which gives names, shapes and shardings; its leaves may be abstract. A process
    copies the parts that its own devices need from the file; the devices need not be those that wrote it.

    Raises CheckpointError for files that are missing, damaged or from another checkpoint. Raises ConfigError, naming
    the field, if the checkpoint belongs to another run, because resuming would then give another result.
    """
    changes = check_own_checkpoint(folder, run)
    file, expected = folder / TRAINING_STATE, _leaves(like)
    tensors = read_file(file)
    for name, leaf in unstack(expected, Block).items():
        if name not in tensors or (tensors[name].shape, tensors[name].dtype) != (leaf.shape, leaf.dtype.name):
            raise CheckpointError(f"{file}: {name} is missing or of another shape; it belongs to another model")
    trainer_state = _read_trainer_state(folder)
    step = int(tensors["step"].view())
    if trainer_state.global_step != step:
        steps = f"{trainer_state.global_step} steps, {TRAINING_STATE} after {step}"
        raise CheckpointError(f"{folder / TRAINER_STATE}: is after {steps}: they belong to two checkpoints")
    if CHECKPOINT.fullmatch(folder.name) and step_of(folder) != trainer_state.global_step:
        raise CheckpointError(f"{folder}: holds the checkpoint after {trainer_state.global_step} steps; rename it back")
    if changes:
        _log.warning("%s: these settings changed since the checkpoint: %s", folder, "; ".join(changes))
    leaves = [_read_leaf(name, leaf, tensors) for name, leaf in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves), trainer_state


def _read_leaf(name: str, like: Any, tensors: Mapping[str, Tensor]) -> jax.Array:
    """One leaf of a state, on the devices of `like`. A stack is read from the tensors of its blocks."""
    views = [tensors[block].view() for block in unstack({name: like}, Block)]

    def part(index: tuple[slice, ...]) -> np.ndarray:
        if is_stacked(name):
            return np.stack([np.asarray(view[index[1:]]) for view in views[index[0]]])
        return np.array(views[0][index])

    sharding = getattr(like, "sharding", None)
    if isinstance(sharding, NamedSharding):
        return assembled(like.shape, sharding, part)
    return jnp.asarray(part((slice(None),) * like.ndim))


def check_own_checkpoint(folder: Path, run: Run) -> list[str]:
    """Check that a checkpoint is complete and belongs to this run. Returns the allowed changes since, one text each.

    Only the first process compares the files with their digests; the others wait for what it finds. Raises
    CheckpointError and ConfigError like `read_training_state`.
    """
    problem = ""
    if processes.is_first():
        try:
            if not folder.is_dir():
                raise CheckpointError(f"{folder}: there is no such checkpoint")
            check_digests(folder)
        except CheckpointError as error:
            problem = str(error)
    problem = processes.from_first(problem)
    if problem:
        raise CheckpointError(problem)
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
        remedy = "use the version of transformers that wrote it"
        raise CheckpointError(f"{file}: is not the state of a trainer ({error}); {remedy}") from error
    if state.best_model_checkpoint is not None:
        state.best_model_checkpoint = str(folder.parent / Path(state.best_model_checkpoint).name)
    return state


def _leaves(state: TrainState) -> dict[str, Any]:
    paths = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in paths}
