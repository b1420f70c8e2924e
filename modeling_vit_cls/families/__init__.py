"""Checkpoint families of other libraries, one file each. A family is recognised from config.json or tensor names."""

import logging
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from transformers import CONFIG_MAPPING

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, shorten
from ..files.tensor import Tensor
from . import (
    beit,
    big_vision,
    clip,
    dinov2,
    dinov3,
    meta,
    open_clip,
    pixio,
    radio,
    siglip,
    timm,
    tipsv2,
    torchvision,
    vit,
    vit_ssl,
    vitpose,
)
from .family import NATIVE, Family
from .timm_architectures import present_name

FAMILIES = (
    NATIVE,
    *vit.FAMILIES,
    *vit_ssl.FAMILIES,
    *vitpose.FAMILIES,
    *beit.FAMILIES,
    *dinov2.FAMILIES,
    *dinov3.FAMILIES,
    *siglip.FAMILIES,
    *clip.FAMILIES,
    *open_clip.FAMILIES,
    *pixio.FAMILIES,
    *tipsv2.FAMILIES,
    *radio.FAMILIES,
    *timm.FAMILIES,
    *torchvision.FAMILIES,
    *big_vision.FAMILIES,
    *meta.FAMILIES,
)

logger = logging.getLogger(__name__)
_AMBIGUOUS = (
    "%s: without a config.json, read as %s; timm's models without a head have the same tensor names. If this is one of "
    'timm\'s, add its config.json, {"architecture": "vit_...", "num_classes": 0}, for its image processor and sizes'
)


def family_of(fields: dict[str, Any], file: object) -> Family | None:
    """The family of a `config.json` with these fields; None if they name none.

    Raises CheckpointError, naming `file`, for a model that is not supported.
    """
    model_type, architecture = fields.get("model_type") or None, fields.get("architecture")  # "" is NVIDIA's C-RADIO
    if model_type == timm.WRAPPER:
        model_type = None
        if architecture is None:
            problem = "model_type='timm_wrapper' (timm inside transformers) without the name of an architecture"
            raise CheckpointError(f"{file}: {problem}")
    if model_type is None and "model_cfg" in fields:
        return open_clip.family_of_model(fields, file)
    if model_type is None and architecture is None:
        return None
    name = present_name(str(architecture))
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
        if model_type is None and family.architectures and re.fullmatch(family.architectures, name):
            return family
    if model_type is None:
        problem = "is not one of timm's plain Vision Transformers, which are the supported ones"
        raise CheckpointError(f"{file}: architecture={shorten(architecture)} {problem}")
    if registered_config(model_type) is not None:
        return NATIVE
    known = ", ".join(sorted(name for family in FAMILIES for name in family.model_types))
    raise CheckpointError(f"{file}: model_type={shorten(model_type)} is not supported, only {known}")


def registered_config(model_type: object) -> type[ViTClsConfig] | None:
    """The subclass of ViTClsConfig that a user registered for a `model_type`, `AutoConfig.register(name, MyConfig)`."""
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        return None
    config_class = CONFIG_MAPPING[model_type]
    return config_class if issubclass(config_class, ViTClsConfig) else None


def own_config(fields: dict[str, Any]) -> ViTClsConfig:
    """The config of one of our checkpoints, of the subclass that is registered for its `model_type` if there is one."""
    return (registered_config(fields.get("model_type")) or ViTClsConfig).from_dict(fields)


def recognised(tensors: Mapping[str, Tensor]) -> Family | None:
    """The family that some of these tensor names belong to alone, if there is one."""
    for family in FAMILIES:
        if any(fnmatchcase(family.short(name), pattern) for name in tensors for pattern in family.signature):
            return family
    return None


def is_proven(family: Family, tensors: Mapping[str, Tensor]) -> bool:
    """Whether some tensor names of a family are ones that no other library has."""
    return any(fnmatchcase(name, pattern) for name in tensors for pattern in family.proof)


def family_of_tensors(tensors: Mapping[str, Tensor], path: object, has_config: bool) -> Family:
    """The family of a weight file, from its tensor names: there is no config.json, or it names no family.

    Warns where files of timm may have the same names. Raises CheckpointError, naming `path`, if there is no such
    family.
    """
    family = recognised(tensors)
    if family is not None:
        if not is_proven(family, tensors):
            logger.warning(_AMBIGUOUS, path, family.name)
        return family
    known = ", ".join(family.name for family in FAMILIES if family.signature)
    without = "where config.json has no model_type or architecture" if has_config else "without a config.json"
    remedy = "add one, as in the source's config.json" if has_config else "add the checkpoint's config.json"
    problem = f"{without}, only weights of {known} are recognised, and these tensor names match none"
    raise CheckpointError(f"{path}: {problem}; {remedy}")
