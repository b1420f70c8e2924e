"""From a checkpoint folder to its config and image processor, and to those that are asked for."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, ConfigError
from ..processing import ViTClsImageProcessor

# What transformers' Auto classes pass along beside the config's overrides; none has a meaning here: files say
# themselves what they are, and no code is ever taken from a repository.
_FROM_AUTO = {"trust_remote_code", "from_pt", "adapter_kwargs", "_from_auto", "_from_pipeline", "_commit_hash"}


def read_configs(
    config_class: type[ViTClsConfig], folder: Path, config: Any, overrides: Mapping[str, Any]
) -> tuple[ViTClsConfig, ViTClsConfig]:
    """The config that a folder's weights were saved with, and the one asked for by `config` and `overrides`."""
    fields = read_json(folder / "config.json")
    if fields.get("model_type", config_class.model_type) != config_class.model_type:
        raise ConfigError("model_type", fields["model_type"], f"must be 'vit_cls' in {folder / 'config.json'}")
    source = config_class.from_dict(fields)
    if config is None:
        base = fields
    elif isinstance(config, ViTClsConfig):
        base = config.to_dict()
    else:
        base = config_class.get_config_dict(os.fspath(config))[0]
    wanted = {name: value for name, value in overrides.items() if name not in _FROM_AUTO}
    target = config_class.from_dict(base, **wanted)
    target.dtype = None  # a type of jax's, left there by transformers 4.57, could not be saved
    return source, target


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises CheckpointError naming the file for anything else."""
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: cannot be read as JSON ({error})") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{file}: must hold one JSON object")
    return fields


def read_processor(folder: Path, source: ViTClsConfig, target: ViTClsConfig) -> ViTClsImageProcessor:
    """The folder's image processor, at the new image size if one is asked for; the default where it has none."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return ViTClsImageProcessor.for_config(target)
    processor: Any = ViTClsImageProcessor.from_dict(read_json(file))
    return processor if source.image_hw == target.image_hw else processor.at_size(target.image_hw)
