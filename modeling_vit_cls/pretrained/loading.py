"""Steps of `from_pretrained`: from a checkpoint's files to the config and the parameters of the model."""

import os
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, ConfigError, shorten
from ..families.family import NATIVE, canonical
from ..families.open import Source, parameter_shapes
from ..families.strict import checked_tensors
from ..files.folder import to_path
from ..files.tensor import Tensor
from ..label_maps import LABEL_FIELDS
from ..nn.vit import FlaxViTClsForImageClassificationModule
from .fit import adapt, fit
from .report import LoadReport


def target_config(source: Source, module_class: type, config: Any, overrides: Mapping[str, Any]) -> ViTClsConfig:
    """The config of the model: that of the checkpoint, or `config` instead, with the fields in `overrides` replaced.

    Raises CheckpointError if there is no config, ConfigError for one that contradicts itself.
    """
    config_class = type(source.config if config is None else config)
    if config is None:
        fields = source.config.to_dict()
    elif isinstance(config, ViTClsConfig):
        fields = config.to_dict()
    elif isinstance(config, str | os.PathLike):
        path = os.fspath(to_path(config))
        try:
            fields, config_class = ViTClsConfig.get_config_dict(path)[0], ViTClsConfig
        except OSError as error:
            raise CheckpointError(f"config={shorten(path)}: it has no config.json") from error
    else:
        raise ConfigError("config", config, "must be a ViTClsConfig, a folder or a Hub id")
    changes = {name: value for name, value in overrides.items() if name != "add_pooling_layer"}
    if config is None and _leaves_out_pooler(source, module_class, overrides):
        changes = {"representation_size": None, **changes}
    target: ViTClsConfig = config_class.from_dict(fields, **changes)
    target.dtype = None  # transformers 4.57 stores a type of jax here, which cannot be saved
    return target


def _leaves_out_pooler(source: Source, module_class: type, overrides: Mapping[str, Any]) -> bool:
    """Whether to leave out the pooler of a checkpoint, a tanh layer, as its library does.

    transformers' ViTForImageClassification classifies the [CLS] token and ignores the pooler in a ViTModel's file.
    `add_pooling_layer=False` leaves it out of a backbone, also of one that this library wrote.
    """
    if issubclass(module_class, FlaxViTClsForImageClassificationModule):
        return "representation." in source.family.unused_by_classifier
    return overrides.get("add_pooling_layer") is False


def load_params(
    source: Source,
    module: Any,
    key: jax.Array,
    ignore_mismatched_sizes: bool,
    allow_missing: bool,
    mesh: Mesh | None,
) -> tuple[Any, LoadReport]:
    """Load the parameters of `module` from a checkpoint. Returns them and a report; new heads are drawn from `key`.

    They are on `mesh`; with None on JAX's default device.

    Raises CheckpointError, naming file and tensor, for weights that do not match config.json.
    """
    tensors, report = _checked(source, module, allow_missing)
    try:
        return fit(tensors, source.config, module, key, report, ignore_mismatched_sizes, mesh), report
    except CheckpointError as error:
        raise CheckpointError(f"{source.path}: {error}") from error


def plan_load(source: Source, module: Any) -> LoadReport:
    """What `load_params` would do to each tensor of a checkpoint, from headers alone.

    Raises CheckpointError as `load_params` does.
    """
    tensors, report = _checked(source, module, allow_missing=False)
    try:
        fitted = adapt(tensors, source.config, module, report)
    except CheckpointError as error:
        raise CheckpointError(f"{source.path}: {error}") from error
    dtypes = {name: (tensor.dtype, str(jax.dtypes.canonicalize_dtype(tensor.dtype))) for name, tensor in fitted.items()}
    report.cast_keys += [name for name, (stored, loaded) in dtypes.items() if stored != loaded]
    return report


def _checked(source: Source, module: Any, allow_missing: bool) -> tuple[dict[str, Tensor], LoadReport]:
    """The tensors of a checkpoint after the strict check, and a report of those that `module` does not use."""
    tensors, missing = checked_tensors(source, allow_missing)
    names = set(map(canonical, parameter_shapes(type(module), module.config)))
    report = LoadReport(
        missing_keys=[name for name in missing if name in names],
        verified_keys=[name for name, tensor in tensors.items() if tensor.digest is not None],
        converted_keys=[] if source.family is NATIVE else list(tensors),
        unexpected_keys=list(source.spare),
        dropped_keys=[name for name in source.tensors if name not in tensors],
        file_notes=list(source.file_notes),
    )
    return tensors, report


def label_notes(source: Source, config: Any, overrides: Mapping[str, Any]) -> list[str]:
    """Contradictions between the label maps of config.json; none if the user passed a config or labels."""
    return list(source.notes) if config is None and not set(LABEL_FIELDS) & set(overrides) else []
