"""FlaxAutoModel and FlaxAutoModelForImageClassification: transformers' own on 4.57, these on 5, which has none."""

import os
from typing import Any, ClassVar

import transformers
from transformers import AutoConfig, PretrainedConfig

from ..checkpoints.hub import checkpoint_path
from ..checkpoints.load import is_foreign
from ..configuration_vit_cls import ViTClsConfig


class _FlaxAuto:
    """A model class chosen by the config of a checkpoint."""

    _models: ClassVar[dict[type[PretrainedConfig], type]]

    def __init__(self, *args: Any, **kwargs: Any):
        name = type(self).__name__
        raise OSError(f"{name} is built by `{name}.from_pretrained(name_or_path)` or `{name}.from_config(config)`")

    @classmethod
    def register(cls, config_class: type[PretrainedConfig], model_class: type, exist_ok: bool = False) -> None:
        """Serve `config_class` with `model_class`. Raises ValueError if another class serves it already."""
        if cls._models.get(config_class, model_class) is not model_class and not exist_ok:
            raise ValueError(f"{config_class.__name__} is registered already: pass exist_ok=True to replace it")
        cls._models[config_class] = model_class

    @classmethod
    def from_config(cls, config: PretrainedConfig, **kwargs: Any) -> Any:
        """A new model of a config, its parameters drawn at random."""
        return cls._class_for(config)._from_config(config, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """The model of a folder or Hub repository; arguments as its class's own `from_pretrained`."""
        config = kwargs.get("config")
        if not isinstance(config, PretrainedConfig):
            names = ("subfolder", "revision", "cache_dir", "force_download", "local_files_only", "token")
            hub = {name: kwargs[name] for name in names if name in kwargs}
            path = checkpoint_path(config or pretrained_model_name_or_path, **hub)
            if is_foreign(path):  # another library's checkpoint, which our class reads
                return cls._models[ViTClsConfig].from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
            config = AutoConfig.from_pretrained(path)
        return cls._class_for(config).from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def _class_for(cls, config: PretrainedConfig) -> Any:
        if type(config) not in cls._models:
            known = ", ".join(sorted(item.__name__ for item in cls._models))
            raise ValueError(f"{cls.__name__} has no Flax model for {type(config).__name__}; it has one for {known}")
        return cls._models[type(config)]


if hasattr(transformers, "FlaxAutoModel"):
    from transformers import FlaxAutoModel, FlaxAutoModelForImageClassification  # pyright: ignore
else:

    class FlaxAutoModel(_FlaxAuto):
        """The backbone of a checkpoint."""

        _models: ClassVar = {}

    class FlaxAutoModelForImageClassification(_FlaxAuto):
        """The classifier of a checkpoint."""

        _models: ClassVar = {}
