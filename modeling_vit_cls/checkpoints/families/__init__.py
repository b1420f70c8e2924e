"""Checkpoints of other libraries: one file a family, a table of names and the facts; recognised by config.json."""

from typing import Any

from ...errors import CheckpointError, shorten
from . import clip, dinov2, dinov3, siglip, timm, vit
from .table import NATIVE, Family

FAMILIES = (NATIVE, *vit.FAMILIES, *dinov2.FAMILIES, *dinov3.FAMILIES, *siglip.FAMILIES, *clip.FAMILIES, *timm.FAMILIES)


def family_of(fields: dict[str, Any], file: object) -> Family:
    """The family whose `config.json` this is. Raises CheckpointError, naming those there are, for any other."""
    model_type = fields.get("model_type", "timm" if "architecture" in fields else None)
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(sorted(name for family in FAMILIES for name in family.model_types))
    raise CheckpointError(f"{file}: model_type={shorten(model_type)} is no Vision Transformer known here ({known})")
