"""From parameters, config and image processor to a checkpoint folder."""

import copy
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from .. import processes
from ..config_call import inherited_names
from ..config_rules import FIELD_NAMES
from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, ConfigError
from ..families.open import Shapes
from ..files.folder import replace_folder
from ..files.host import is_shared
from ..files.nested_processor import hides_processor
from ..files.ownership import Outdated
from ..files.weights import write_weights
from ..images.processor import ViTClsImageProcessor
from ..names import CONFIG, NESTED_PROCESSOR, PROCESSOR
from .processor_files import AnyProcessor, processor_fields, processor_of

logger = logging.getLogger(__name__)
_PATIENCE_MINUTES = 30  # for the disk
_OTHER_TREE = (
    ", and neither are the others; if they are FlaxViT's, write flax.serialization.to_bytes(params) as "
    "flax_model.msgpack beside its config.json, and load that folder with from_pretrained"
)


def write_checkpoint(
    folder: Path,
    config: ViTClsConfig,
    tensors: Mapping[str, Any],
    image_processor: AnyProcessor,
    max_shard_size: int | str,
    allow_nonfinite: bool,
    also: Callable[[Path | None], None] = lambda _: None,
) -> None:
    """Replace the checkpoint in a folder in one step; `also` may write more files into the new folder.

    Files of an earlier save that are `Outdated` are removed. Without an image processor, the one in the folder is kept
    if it fits the model.

    All processes that share the arrays must call this. The first one writes; the others only send it their parts, call
    `also` with None, and wait until the checkpoint is in its place.
    """
    shared = is_shared(tensors.values())
    if shared and not processes.is_first():
        write_weights(None, tensors, max_shard_size)
        also(None)
        processes.wait("saved", _PATIENCE_MINUTES)
        return
    if image_processor is None and folder.is_dir():
        image_processor = _fitting_processor(folder, config)
    if image_processor is None and config.num_channels in (1, 3):
        image_processor = ViTClsImageProcessor.for_config(config)
    size = sum(tensor.nbytes for tensor in tensors.values())
    nested = {NESTED_PROCESSOR} if hides_processor(folder / NESTED_PROCESSOR) else set()
    outdated = Outdated(folder)
    with replace_folder(folder, lambda name: outdated(name) or name in nested, size) as build:
        outdated.new = build
        write_weights(build, tensors, max_shard_size, config, allow_nonfinite)
        config.to_json_file(build / CONFIG)
        if image_processor is not None:
            image_processor.to_json_file(build / PROCESSOR)
        also(build)
    if shared:
        processes.wait("saved", _PATIENCE_MINUTES)


def _fitting_processor(folder: Path, config: ViTClsConfig) -> AnyProcessor:
    """The image processor in a folder, if it fits a model with this config; else None."""
    try:
        file, fields = processor_fields(folder)
        processor = processor_of(fields, file) if fields else None
    except CheckpointError as error:
        logger.warning("%s; it is not kept", error)
        return None
    return processor if processor is not None and processor.emits(config) else None


def check_tensors(tensors: Mapping[str, Any], shapes: Shapes, whole: bool) -> None:
    """Raise ConfigError unless `tensors` have names and shapes in `shapes`; `whole` needs all of them."""
    for name, tensor in tensors.items():
        if name not in shapes:
            fits = any(other in shapes for other in tensors if not other.startswith("classifier."))
            raise ConfigError("params", name, f"is not a parameter of this model{'' if fits else _OTHER_TREE}")
        if tensor.shape != shapes[name].shape:
            raise ConfigError("params", name, f"has shape {tensor.shape}, expected {shapes[name].shape}")
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise ConfigError("params", name, f"is {tensor.dtype}, expected floating-point numbers")
    missing = sorted(set(shapes) - set(tensors))
    if missing and whole:  # a model made with _do_init=False may save a part of them, as in transformers
        raise ConfigError("params", missing[0], f"is missing, {len(missing)} in all")


def config_to_save(config: ViTClsConfig, built: ViTClsConfig, class_name: str) -> ViTClsConfig:
    """The config to save with a model's weights. `built` is the config of its modules.

    Raises ConfigError if the architectures of the two differ, as the file would not describe the weights, and for an
    attribute that is no field, as no load would accept the file.
    """
    check_same_architecture(config, built)
    is_own = config.model_type == ViTClsConfig.model_type  # a subclass of another type may have fields of its own
    for name, value in config.to_dict().items() if is_own else ():
        if name not in (*FIELD_NAMES, *inherited_names()):
            remedy = f"`del model.config.{name}` before saving"
            if type(config) is not ViTClsConfig:
                kind = type(config).__name__
                remedy = f"give {kind} a model_type of its own, and call AutoConfig.register(model_type, {kind})"
            raise ConfigError(name, value, f"is not a field of ViTClsConfig: {remedy}")
    config = copy.deepcopy(config)
    config.architectures = [class_name.removeprefix("Flax")]
    config.dtype = None  # a field for PyTorch; the types of the parameters are in the weight file
    return config


def check_same_architecture(config: ViTClsConfig, built: ViTClsConfig) -> None:
    """Raise ConfigError, naming the first field, if a config differs from the one that the model was built with."""
    for name in (*FIELD_NAMES, "num_labels"):
        before, now = getattr(built, name), getattr(config, name)
        if before != now:
            raise ConfigError(name, now, f"was {before!r} when the model was built: build one with the new config")
