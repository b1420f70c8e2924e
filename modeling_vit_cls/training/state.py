"""The state of a training run on disk: what a checkpoint-N folder holds beside the model.

It is block by block there, however the run computes.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file
from transformers import TrainerState

from ..checkpoints.digests import digest_of
from ..checkpoints.load import read_json
from ..checkpoints.writing import write_safetensors
from ..errors import CheckpointError, ConfigError
from ..stacking import is_stacked, stack, unstack
from .arguments import TrainingArguments
from .step import TrainState

STATE, TRAINER_STATE = "training_state.safetensors", "trainer_state.json"

# Arguments that may change between a run and its continuation: where it is written, shown and how it is computed.
_FREE = {"output_dir", "run_name", "project", "report_to", "disable_tqdm", "resume_from_checkpoint"}
_FREE |= {"dataloader_num_workers", "per_device_eval_batch_size", "save_total_limit", "max_bad_images"}
_FREE |= {"hub_model_id", "hub_private_repo"}


def write_training_state(
    folder: Path, state: TrainState, trainer_state: TrainerState, arguments: TrainingArguments, examples: int
) -> None:
    """Everything that the continuation of a run needs, into a folder that is being built."""
    arrays = unstack(jax.device_get(_leaves(state)))
    facts = {"arguments": _binding(arguments), "examples": examples}
    digests = {name: digest_of(array) for name, array in arrays.items()}
    write_safetensors(folder / STATE, arrays, {"run": json.dumps(facts), "xxh3_128": json.dumps(digests)})
    trainer_state.save_to_json(str(folder / TRAINER_STATE))


def read_training_state(
    folder: Path, like: TrainState, arguments: TrainingArguments, examples: int
) -> tuple[TrainState, TrainerState]:
    """The state of a run at one of its checkpoints; `like` is the state that it began with.

    Raises CheckpointError for files that are missing or damaged, ConfigError, naming the argument, where the run was
    another one: its continuation would not be what the unbroken run had been.
    """
    file = folder / STATE
    read_json(folder / TRAINER_STATE)
    try:
        with safe_open(file, "numpy") as opened:
            metadata = opened.metadata() or {}
        run, digests, arrays = json.loads(metadata["run"]), json.loads(metadata["xxh3_128"]), load_file(file)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{file}: is not the state of a training run ({error})") from error
    for name, value in _binding(arguments).items():
        if run["arguments"].get(name) != value:
            had = run["arguments"].get(name)
            rule = f"the run in {folder} had {had!r}: give that, or begin anew in another output_dir"
            raise ConfigError(name, value, rule)
    if run["examples"] != examples:
        raise ConfigError("train_dataset", f"{examples} examples", f"the run in {folder} had {run['examples']}")
    expected = _leaves(like)
    for name, leaf in unstack(expected).items():
        if name not in arrays or arrays[name].shape != leaf.shape or arrays[name].dtype != leaf.dtype:
            raise CheckpointError(f"{file}: {name} is missing or of another shape; the model is not that of the run")
        if digest_of(arrays[name]) != digests.get(name):
            raise CheckpointError(f"{file}: {name} is not what was saved: go on from an earlier checkpoint")
    arrays = stack(arrays) if any(map(is_stacked, expected)) else arrays
    leaves = [jax.numpy.asarray(arrays[name]) for name in expected]
    state = jax.tree.unflatten(jax.tree.structure(like), leaves)
    return state, TrainerState.load_from_json(str(folder / TRAINER_STATE))


def checkpoints_of(output_dir: Path) -> list[Path]:
    """The checkpoint-N folders of a run, oldest first."""
    found = [entry for entry in output_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", entry.name)]
    return sorted(found, key=lambda entry: int(entry.name.partition("-")[2]))


def remove_outdated(output_dir: Path, keep: int | None, best: str | None) -> None:
    """Remove the oldest checkpoints until `keep` are left; the newest and the best always stay."""
    if keep is not None:
        found = checkpoints_of(output_dir)
        removable = [folder for folder in found[:-1] if best is None or folder.name != Path(best).name]
        for outdated in removable[: max(0, len(found) - keep)]:
            hidden = outdated.with_name(f".{outdated.name}.tmp-removed")
            outdated.rename(hidden)  # at once no checkpoint any more, however long its removal takes
            shutil.rmtree(hidden)


def _leaves(state: TrainState) -> dict[str, Any]:
    paths = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in paths}


def _binding(arguments: TrainingArguments) -> dict[str, Any]:
    return {name: value for name, value in arguments.to_dict().items() if name not in _FREE}
