"""Checkpoints of other libraries: one file a family, a table of names and the facts; recognised by themselves."""

import logging
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from ..errors import CheckpointError, shorten
from ..files.tensor import Tensor
from . import big_vision, clip, dinov2, dinov3, meta, siglip, timm, torchvision, vit
from .family import NATIVE, Family
from .timm_architectures import present_name

FAMILIES = (
    NATIVE,
    *vit.FAMILIES,
    *dinov2.FAMILIES,
    *dinov3.FAMILIES,
    *siglip.FAMILIES,
    *clip.FAMILIES,
    *timm.FAMILIES,
    *torchvision.FAMILIES,
    *big_vision.FAMILIES,
    *meta.FAMILIES,
)

logger = logging.getLogger(__name__)
_UNPROVEN = (
    "%s: without a config.json taken for %s; timm's models without a head have the same names: if it is one, put its "
    'config.json there, {"architecture": "vit_...", "num_classes": 0}, for its image processor and its other sizes'
)


def family_of(fields: dict[str, Any], file: object) -> Family | None:
    """The family whose `config.json` this is, None if it says nothing. Raises CheckpointError for one unknown here."""
    model_type, architecture = fields.get("model_type"), fields.get("architecture")
    if model_type is None and architecture is None:
        return None
    name = present_name(str(architecture))
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
        if model_type is None and family.architectures and re.fullmatch(family.architectures, name):
            return family
    if model_type is None:
        raise CheckpointError(
            f"{file}: architecture={shorten(architecture)} is none of timm's plain Vision Transformers that are read"
        )
    known = ", ".join(sorted(name for family in FAMILIES for name in family.model_types))
    raise CheckpointError(f"{file}: model_type={shorten(model_type)} is no Vision Transformer known here ({known})")


def family_of_tensors(found: Mapping[str, Tensor], path: object) -> Family:
    """The family that a weight file without a config.json is of. Raises CheckpointError where none is recognised.

    Warns where another library's files may have the same names.
    """
    for family in FAMILIES:
        if any(fnmatchcase(family.short(name), pattern) for name in found for pattern in family.signature):
            if not any(fnmatchcase(name, pattern) for name in found for pattern in family.proof):
                logger.warning(_UNPROVEN, path, family.name)
            return family
    known = ", ".join(family.name for family in FAMILIES if family.signature)
    raise CheckpointError(
        f"{path}: without a config.json only weights of {known} are recognised, and these are of none"
    )
