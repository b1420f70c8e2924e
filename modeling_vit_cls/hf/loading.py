"""From a checkpoint's files to a model without parameters, its parameters and a report of both."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoints.adapt import canonical
from ..checkpoints.families.table import NATIVE
from ..checkpoints.folder import to_path
from ..checkpoints.load import Source, checked_tensors, open_checkpoint
from ..checkpoints.report import LoadReport
from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, ConfigError, shorten
from .processor_files import interpolated_in_calls, read_processor

# What transformers' Auto classes pass along beside the config's overrides; none has a meaning here: files say
# themselves what they are, and no code is ever taken from a repository.
_FROM_AUTO = {"trust_remote_code", "from_pt", "adapter_kwargs", "_from_auto", "_from_pipeline", "_commit_hash"}
_FROM_AUTO |= {"_fast_init", "resume_download", "use_safetensors"}


def read_model(
    model_class: type[Any],
    path: Path,
    dtype: Any,
    seed: int,
    config: Any,
    overrides: Mapping[str, Any],
    ignore_mismatched_sizes: bool,
    allow_missing: bool,
) -> tuple[Any, dict[str, Any], LoadReport]:
    """Model (without parameters), parameters and report of a folder or weight file; arguments as `from_pretrained`'s.

    Raises CheckpointError or ConfigError.
    """
    source = open_checkpoint(path)
    target = target_config(source, config, overrides)
    model = model_class(target, seed=seed, dtype=dtype, _do_init=False)
    model._image_processor = read_processor(source, target)
    tensors, missing = checked_tensors(source, allow_missing)
    report = LoadReport(missing_keys=[name for name in missing if name in map(canonical, model._shapes)])
    report.verified_keys += [name for name, tensor in tensors.items() if tensor.digest is not None]
    report.interpolated_keys += interpolated_in_calls(model)
    report.converted_keys += [] if source.family is NATIVE else list(tensors)
    try:
        return model, model.take_over(tensors, source.config, report, ignore_mismatched_sizes), report
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def target_config(source: Source, config: Any, overrides: Mapping[str, Any]) -> ViTClsConfig:
    """The config of a checkpoint, or the one given instead of it, with some fields overridden."""
    if config is None:
        base = source.config.to_dict()
    elif isinstance(config, ViTClsConfig):
        base = config.to_dict()
    elif isinstance(config, str | os.PathLike):
        path = os.fspath(to_path(config))
        try:
            base = ViTClsConfig.get_config_dict(path)[0]
        except OSError as error:
            raise CheckpointError(f"config={shorten(path)}: no config.json found there") from error
    else:
        raise ConfigError("config", config, "must be a ViTClsConfig, a folder or a Hub id")
    wanted = {name: value for name, value in overrides.items() if name not in _FROM_AUTO}
    target = ViTClsConfig.from_dict(base, **wanted)
    target.dtype = None  # a type of jax's, left there by transformers 4.57, could not be saved
    return target
