"""The named architectures, one row each, with size and source."""

from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from .errors import ConfigError, did_you_mean


class Shape(NamedTuple):
    """Width and depth of a model size ("tiny", "small", ...)."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int


# Ti, S: Touvron et al. 2021 (DeiT, arXiv 2012.12877), table 1. B, L, H: Dosovitskiy et al. 2021 (arXiv 2010.11929),
# table 1.
SHAPES = {
    "tiny": Shape(192, 12, 3, 768),
    "small": Shape(384, 12, 6, 1536),
    "base": Shape(768, 12, 12, 3072),
    "large": Shape(1024, 24, 16, 4096),
    "huge": Shape(1280, 32, 16, 5120),
}

_VIT = "Dosovitskiy et al. 2021, arXiv 2010.11929, table 1 and section 4.1"
_DEIT = "Touvron et al. 2021, arXiv 2012.12877, table 1"
_AUGREG = "Steiner et al. 2022, arXiv 2106.10270, table 2"
_DINO = "Caron et al. 2021, arXiv 2104.14294, table 1"
_MAE = "He et al. 2022, arXiv 2111.06377, section 4"
_SWAG = "Singh et al. 2022, arXiv 2201.08371, section 3"
_DINOV2 = "Oquab et al. 2024, arXiv 2304.07193, table 17"


class Variant(NamedTuple):
    """One named architecture. `parameters` includes a head of 1,000 classes, as is usual in papers."""

    size: str
    patch_size: int
    image_size: int
    parameters: int
    source: str


VARIANTS = {
    f"vit_cls_{row.size}_patch{row.patch_size}_{row.image_size}": row
    for row in (
        Variant("tiny", 16, 224, 5_717_416, _DEIT),
        Variant("tiny", 16, 384, 5_790_376, _AUGREG),
        Variant("small", 32, 224, 22_878_952, _AUGREG),
        Variant("small", 32, 384, 22_915_432, _AUGREG),
        Variant("small", 16, 224, 22_050_664, _DEIT),
        Variant("small", 16, 384, 22_196_584, _AUGREG),
        Variant("small", 14, 224, 22_004_584, _DINOV2),
        Variant("small", 14, 518, 22_431_976, _DINOV2),
        Variant("small", 8, 224, 22_055_272, _DINO),
        Variant("base", 32, 224, 88_224_232, _VIT),
        Variant("base", 32, 384, 88_297_192, _VIT),
        Variant("base", 16, 224, 86_567_656, _VIT),
        Variant("base", 16, 384, 86_859_496, _VIT),
        Variant("base", 14, 224, 86_475_496, _DINOV2),
        Variant("base", 14, 518, 87_330_280, _DINOV2),
        Variant("base", 8, 224, 86_576_872, _DINO),
        Variant("large", 32, 224, 306_535_400, _VIT),
        Variant("large", 32, 384, 306_632_680, _VIT),
        Variant("large", 16, 224, 304_326_632, _VIT),
        Variant("large", 16, 384, 304_715_752, _VIT),
        Variant("large", 14, 224, 304_203_752, _DINOV2),
        Variant("large", 14, 518, 305_343_464, _DINOV2),
        Variant("huge", 14, 224, 632_045_800, _VIT),
        Variant("huge", 14, 448, 633_028_840, _MAE),
        Variant("huge", 14, 518, 633_470_440, _SWAG),
    )
}


def list_variants(pattern: str = "*") -> list[str]:
    """The names of the architectures that match a shell wildcard, in the order of the table."""
    return [name for name in VARIANTS if fnmatchcase(name, pattern)]


def variant_fields(name: str) -> dict[str, Any]:
    """The config fields of a named architecture. Raises ConfigError, with the nearest name, for an unknown one."""
    if name not in VARIANTS:
        raise ConfigError("variant", name, f"is not one of list_variants(){did_you_mean(name, VARIANTS)}")
    row = VARIANTS[name]
    return {"image_size": row.image_size, "patch_size": row.patch_size, **SHAPES[row.size]._asdict()}


def variant_of(hidden_size: int, patch_size: int, image_hw: tuple[int, int], **sizes: int) -> str | None:
    """The name of the architecture with these sizes, or None. `sizes` are the other fields of `Shape`."""
    shape = Shape(hidden_size, **sizes)
    for name, row in VARIANTS.items():
        if (SHAPES[row.size], row.patch_size, (row.image_size, row.image_size)) == (shape, patch_size, image_hw):
            return name
    return None
