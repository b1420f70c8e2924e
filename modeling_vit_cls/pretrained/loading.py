"""What `from_pretrained` does between a checkpoint's files and a model: the config asked for, its parameters."""

import os
from collections.abc import Mapping
from typing import Any

import jax

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, ConfigError, shorten
from ..families.family import NATIVE, canonical
from ..families.open import Source, checked_tensors, parameter_shapes
from ..files.folder import to_path
from ..label_maps import LABEL_FIELDS
from ..nn.vit import FlaxViTClsForImageClassificationModule
from .fit import fit
from .report import LoadReport


def target_config(source: Source, module_class: type, config: Any, overrides: Mapping[str, Any]) -> ViTClsConfig:
    """The config of a checkpoint, or the one given instead of it, with some fields overridden.

    Raises CheckpointError for a config that is not there, ConfigError for one that contradicts itself.
    """
    if config is None:
        fields = source.config.to_dict()
    elif isinstance(config, ViTClsConfig):
        fields = config.to_dict()
    elif isinstance(config, str | os.PathLike):
        path = os.fspath(to_path(config))
        try:
            fields = ViTClsConfig.get_config_dict(path)[0]
        except OSError as error:
            raise CheckpointError(f"config={shorten(path)}: no config.json found there") from error
    else:
        raise ConfigError("config", config, "must be a ViTClsConfig, a folder or a Hub id")
    changes = {name: value for name, value in overrides.items() if name != "add_pooling_layer"}
    if config is None and _leaves_out_pooler(source, module_class, overrides):
        changes = {"representation_size": None, **changes}
    target = ViTClsConfig.from_dict(fields, **changes)
    target.dtype = None  # a type of jax's, left there by transformers 4.57, could not be saved
    return target


def _leaves_out_pooler(source: Source, module_class: type, overrides: Mapping[str, Any]) -> bool:
    """Whether the tanh layer of a backbone's file is left out, as the source library does.

    transformers' ViTForImageClassification classifies the token itself: the tanh layer of a ViTModel's file is the
    backbone's alone. `add_pooling_layer=False` leaves it out of the backbone too.
    """
    classifies = issubclass(module_class, FlaxViTClsForImageClassificationModule)
    return source.family.tanh_of_backbone and (classifies or overrides.get("add_pooling_layer") is False)


def load_params(
    source: Source, module: Any, key: jax.Array, ignore_mismatched_sizes: bool, allow_missing: bool
) -> tuple[Any, LoadReport]:
    """The parameters of `module` from an opened checkpoint, and a report of what was done; new heads from `key`.

    Raises CheckpointError, naming file and tensor, for weights that are not those that config.json asks for.
    """
    tensors, missing = checked_tensors(source, allow_missing)
    wanted = set(map(canonical, parameter_shapes(type(module), module.config)))
    report = LoadReport(
        missing_keys=[name for name in missing if name in wanted],
        verified_keys=[name for name, tensor in tensors.items() if tensor.digest is not None],
        converted_keys=[] if source.family is NATIVE else list(tensors),
        unexpected_keys=list(source.spare),
        dropped_keys=[name for name in source.tensors if name not in tensors],
    )
    try:
        return fit(tensors, source.config, module, key, report, ignore_mismatched_sizes), report
    except CheckpointError as error:
        raise CheckpointError(f"{source.path}: {error}") from error


def label_notes(source: Source, config: Any, overrides: Mapping[str, Any]) -> list[str]:
    """What config.json's label maps contradict, unless other labels were given."""
    return list(source.notes) if config is None and not set(LABEL_FIELDS) & set(overrides) else []
