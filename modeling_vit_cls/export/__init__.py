"""Export a model: as a checkpoint of transformers or timm, or as a program in ONNX or StableHLO."""

import logging
import os
from typing import Any

from flax.core import unfreeze
from flax.traverse_util import flatten_dict

from ..errors import CheckpointError, ConfigError
from ..families.family import canonical
from ..files.folder import replace_folder, to_path
from ..files.weights import write_weights
from ..names import CONFIG, PROCESSOR, PROGRAMS, is_checkpoint_file, is_program_file, is_training_file, manual_of
from ..pretrained.base import FlaxPreTrainedModel
from ..pretrained.processor_fit import of_one_size
from ..pretrained.saving import config_to_save
from .foreign import TARGETS, consequence, write_foreign
from .programs import write_manual, write_onnx, write_stablehlo

logger = logging.getLogger(__name__)


def export_pretrained(model: FlaxPreTrainedModel, save_directory: str | os.PathLike[str], to: str) -> None:
    """Write a model into a folder, for another library or runtime.

    Args:
        model: the model.
        save_directory: a folder without a checkpoint or program; it is created if necessary.
        to: "transformers" writes a checkpoint for `AutoModel.from_pretrained(folder)`, "timm" one for
            `timm.create_model("local-dir:folder", pretrained=True)`. "onnx" writes `model.onnx`; "stablehlo" writes
            `model.stablehlo`, with the weights in `model.safetensors`.

    The programs take `pixel_values` (B, C, H, W) float32, for any B. Next to them are `config.json`,
    `preprocessor_config.json` and a text that explains how to call the program.

    Raises ConfigError, naming the field, for a config that the target cannot express, and CheckpointError for a folder
    that already has a checkpoint or a program.
    """
    folder = to_path(save_directory)
    if to not in (*TARGETS, *PROGRAMS):
        raise ConfigError("to", to, f"must be one of {', '.join((*TARGETS, *PROGRAMS))}")
    existing = [name for name in (os.listdir(folder) if folder.is_dir() else []) if _is_written(name)]
    if existing:
        raise CheckpointError(f"{folder}: holds {sorted(existing)[0]}, which would be replaced; give another folder")
    config, processor = config_to_save(model.config, model.module.config, type(model).__name__), None
    if config.num_channels in (1, 3):
        processor = model.image_processor
    tensors: dict[str, Any] = dict(flatten_dict(unfreeze(model.params), sep="."))
    size = sum(tensor.nbytes for tensor in tensors.values())
    with replace_folder(folder, _is_written, size) as build:
        if to in TARGETS:
            canonical_tensors = {canonical(name): tensor for name, tensor in tensors.items()}
            for difference in write_foreign(build, to, config, canonical_tensors, processor):
                consequences = consequence(difference, config)
                logger.warning("%s: %s is not the same there: %s", folder, difference, consequences)
            return
        processor = processor if processor is None else of_one_size(processor, config)
        processor_hw = processor.output_hw if processor and model.interpolates(processor) else None
        image_hw = processor_hw or config.image_hw
        if to == "onnx":
            write_onnx(build / PROGRAMS[to], model.module, model.params, config, image_hw)
        else:
            write_stablehlo(build / PROGRAMS[to], model.module, model.params, config, image_hw)
            write_weights(build, tensors, config=config)
        write_manual(build / manual_of(to), to, model.module, config, image_hw, processor is not None)
        config.to_json_file(build / CONFIG)
        if processor is not None:
            processor.to_json_file(build / PROCESSOR)


def _is_written(name: str) -> bool:
    """Whether an export may write a file of this name, or it is a trainer's state, which belongs to another model."""
    return is_checkpoint_file(name) or is_program_file(name) or is_training_file(name)
