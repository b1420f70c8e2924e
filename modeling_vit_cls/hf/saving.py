"""From a model to a checkpoint folder."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flax.core import unfreeze
from flax.traverse_util import flatten_dict

from ..checkpoints.folder import replace_folder
from ..checkpoints.weights import is_weight_file, write_weights
from ..config_rules import FIELD_NAMES
from ..errors import ConfigError

if TYPE_CHECKING:
    from .base import FlaxPreTrainedModel


def write_checkpoint(model: "FlaxPreTrainedModel", folder: Path, params: Any, max_shard_size: int | str) -> None:
    """Write config, weights and image processor, replacing the folder's old checkpoint in one step."""
    tensors = flatten_dict(unfreeze(params), sep=".")
    _check_params(model, tensors)
    _check_unchanged(model)
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__.removeprefix("Flax")]
    config.dtype = None
    has_processor = (folder / "preprocessor_config.json").is_file()
    with replace_folder(folder, lambda name: name == "config.json" or is_weight_file(name)) as build:
        config.to_json_file(build / "config.json")
        write_weights(build, tensors, max_shard_size)
        if not has_processor:
            model.image_processor.to_json_file(build / "preprocessor_config.json")


def _check_params(model: "FlaxPreTrainedModel", tensors: Mapping[str, Any]) -> None:
    for name, tensor in tensors.items():
        if name not in model._shapes:
            raise ValueError(f"params: {name!r} is not a parameter of {type(model).__name__}")
        if tensor.shape != model._shapes[name].shape:
            raise ValueError(f"params: {name!r} has shape {tensor.shape}, expected {model._shapes[name].shape}")
    missing = sorted(set(model._shapes) - set(tensors))
    if missing and model._is_initialized:  # without _do_init a part of the parameters may be saved, as upstream
        raise ValueError(f"params: {missing[0]!r} is missing, {len(missing)} in all")


def _check_unchanged(model: "FlaxPreTrainedModel") -> None:
    """A config changed behind a built model would be saved beside weights that were not computed with it."""
    for name in (*FIELD_NAMES, "num_labels"):
        built, now = getattr(model.module.config, name), getattr(model.config, name)
        if built != now:
            raise ConfigError(name, now, f"was {built!r} when the model was built: build one with the new config")
