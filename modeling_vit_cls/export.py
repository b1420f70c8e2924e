"""A model as others use it: a checkpoint of transformers' or timm's, or a program in ONNX or StableHLO."""

import logging
import os
from pathlib import Path
from typing import Any

from flax.core import unfreeze
from flax.traverse_util import flatten_dict

from .checkpoints.adapt import canonical
from .checkpoints.export import TARGETS, write_foreign
from .checkpoints.folder import replace_folder
from .checkpoints.weights import is_checkpoint_file, write_weights
from .errors import CheckpointError, ConfigError
from .hf.base import FlaxPreTrainedModel
from .programs import write_onnx, write_stablehlo

logger = logging.getLogger(__name__)

_PROGRAMS = {"onnx": "model.onnx", "stablehlo": "model.stablehlo"}


def export_pretrained(model: FlaxPreTrainedModel, save_directory: str | os.PathLike[str], to: str) -> None:
    """Write a model into a folder of its own, for another library or runtime.

    "transformers" and "timm" give a checkpoint that `AutoModel.from_pretrained(folder)` and
    `timm.create_model("local-dir:folder", pretrained=True)` load. "onnx" gives `model.onnx`, "stablehlo"
    `model.stablehlo` with the weights beside it as `model.safetensors`; both take `pixel_values` (B, C, H, W) float32,
    B free, and both have our `config.json` and `preprocessor_config.json` beside them.

    Raises ConfigError, naming the field, for a config that the target cannot express, and CheckpointError for a folder
    that holds a checkpoint or a program already.
    """
    folder = Path(save_directory)
    if to not in (*TARGETS, *_PROGRAMS):
        raise ConfigError("to", to, f"must be one of {', '.join((*TARGETS, *_PROGRAMS))}")
    lying = [name for name in (os.listdir(folder) if folder.is_dir() else []) if _is_written(name)]
    if lying:
        raise CheckpointError(f"{folder}: holds {sorted(lying)[0]}, which would be replaced; give another folder")
    config, processor = model.module.config, None
    if config.num_channels in (1, 3):
        processor = model.image_processor
    tensors: dict[str, Any] = dict(flatten_dict(unfreeze(model.params), sep="."))
    size = sum(tensor.nbytes for tensor in tensors.values())
    with replace_folder(folder, _is_written, size) as build:
        if to in TARGETS:
            plain = {canonical(name): tensor for name, tensor in tensors.items()}
            other = write_foreign(build, to, config, plain, processor)
            for name in other:
                logger.warning("%s: %s=%r is not the same there", folder, name, getattr(config, name))
            return
        if to == "onnx":
            write_onnx(build / _PROGRAMS[to], model.module, model.params, config)
        else:
            write_stablehlo(build / _PROGRAMS[to], model.module, model.params, config)
            write_weights(build, tensors, config=config)
        config.to_json_file(build / "config.json")
        if processor is not None:
            processor.to_json_file(build / "preprocessor_config.json")


def _is_written(name: str) -> bool:
    """Whether a file name is one that an export writes."""
    return is_checkpoint_file(name) or name in (*_PROGRAMS.values(), f"{_PROGRAMS['onnx']}.data")
