"""FlaxAutoModel and FlaxAutoModelForImageClassification, on transformers 4.57 (as subclasses of its own) and on 5.

Code in a repository is never run: `trust_remote_code` is always False.
"""

import os
from typing import Any, ClassVar

import transformers
from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, shorten
from ..families import FAMILIES
from ..families.open import config_file, is_foreign
from ..files.json_file import read_json
from ..hub.download import checkpoint_path
from .keywords import without_habits


class _FlaxAuto:
    """A model class chosen by the config of a checkpoint."""

    _models: ClassVar[dict[type[PretrainedConfig], type]]

    def __init__(self, *args: Any, **kwargs: Any):
        name = type(self).__name__
        raise OSError(f"{name} is built by `{name}.from_pretrained(name_or_path)` or `{name}.from_config(config)`")

    @classmethod
    def register(cls, config_class: type[PretrainedConfig], model_class: type, exist_ok: bool = False) -> None:
        """Use `model_class` for configs of `config_class`. Raises ValueError if another class is registered for it."""
        if cls._models.get(config_class, model_class) is not model_class and not exist_ok:
            raise ValueError(f"{config_class.__name__} is registered already: pass exist_ok=True to replace it")
        cls._models[config_class] = model_class
        for upstream in cls.__mro__[1:]:  # on 4.57 also with transformers' class
            if upstream.__name__ == cls.__name__:
                upstream.register(config_class, model_class, exist_ok=exist_ok)

    @classmethod
    def from_config(cls, config: PretrainedConfig, **kwargs: Any) -> Any:
        """A new model for a config, with random parameters."""
        if not cls._is_upstreams(config):
            return cls._class_for(config)._from_config(config, **without_habits(kwargs))
        return super().from_config(config, **{**kwargs, "trust_remote_code": False})  # pyright: ignore

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Load a model from a folder or Hub repository. Arguments as in `from_pretrained` of the model class."""
        config = kwargs.get("config")
        if not isinstance(config, PretrainedConfig):
            names = ("subfolder", "revision", "variant", "cache_dir", "force_download", "local_files_only", "token")
            hub = {name: kwargs[name] for name in names if kwargs.get(name) is not None}
            if "token" not in hub and kwargs.get("use_auth_token"):  # the old name of `token`
                hub["token"] = kwargs["use_auth_token"]
            path = checkpoint_path(config or pretrained_model_name_or_path, **hub)
            if is_foreign(path):  # another library's checkpoint, which our class reads
                ours = cls._models[ViTClsConfig]
                return ours.from_pretrained(pretrained_model_name_or_path, *args, **without_habits(kwargs))
            kind = read_json(config_file(path)).get("model_type")
            if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
                reason = "code in a repository is never run"
                raise CheckpointError(f"{config_file(path)}: model_type={shorten(kind)} is not known here; {reason}")
            config = AutoConfig.from_pretrained(config_file(path).parent, trust_remote_code=False)
        if not cls._is_upstreams(config):
            kwargs = without_habits(kwargs)
            return cls._class_for(config).from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        kwargs = {**kwargs, "trust_remote_code": False}  # transformers checks the other keywords
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)  # pyright: ignore

    @classmethod
    def _is_upstreams(cls, config: PretrainedConfig) -> bool:
        """Whether transformers has the model, as 4.57 does of BERT. Of a family that ours read it is never taken."""
        is_read = any(config.model_type in family.model_types for family in FAMILIES)
        return hasattr(transformers, cls.__name__) and type(config) not in cls._models and not is_read

    @classmethod
    def _class_for(cls, config: PretrainedConfig) -> Any:
        if type(config) not in cls._models:
            known = ", ".join(sorted(item.__name__ for item in cls._models))
            rule = "give what you changed in it as keywords, `from_pretrained(name_or_path, num_labels=...)`, "
            rule += "or a ViTClsConfig for a model with random parameters"
            name = type(config).__name__
            raise ValueError(f"{cls.__name__} has no Flax model for a {name}; it has one for {known}: {rule}")
        return cls._models[type(config)]


_UpstreamModel: type = getattr(transformers, "FlaxAutoModel", object)
_UpstreamClassifier: type = getattr(transformers, "FlaxAutoModelForImageClassification", object)


class FlaxAutoModel(_FlaxAuto, _UpstreamModel):
    """The backbone of a checkpoint."""

    _models: ClassVar = {}


class FlaxAutoModelForImageClassification(_FlaxAuto, _UpstreamClassifier):
    """The classifier of a checkpoint."""

    _models: ClassVar = {}
