"""The arguments that timm builds an architecture with, from its name. `model_args` may replace them."""

import re
from fnmatch import fnmatchcase
from typing import Any

# {size in the name: (number of blocks, number of heads)}.
_SIZES = {
    "tiny": (12, 3),
    "small": (12, 6),
    "small_plus": (12, 6),
    "medium": (12, 8),
    "base": (12, 12),
    "large": (24, 16),
    "huge": (32, 16),
    "huge_plus": (32, 20),
    "so400m": (27, 16),
    "giantopt": (40, 16),
    "giant": (40, 24),
    "7b": (40, 32),
}
# {pattern of the name: value}; the first match counts.
_LAYER_SCALES = {"deit3_*": 1e-6, "*_dinov[23]*": 1e-5, "vit_medium_*_reg?_gap_*": 1e-5, "vit_medium_*_gap_*": 1e-6}
_ACTIVATIONS = {
    "*_quickgelu_*": "quick_gelu",
    "vit_so400m_patch16_siglip*": "gelu_tanh",
    "vit_giantopt_*siglip*": "gelu_tanh",
    "vit_base_patch32_siglip_*": "gelu_tanh",
    "vit_large_patch16_siglip*_512": "gelu_tanh",
}
_POOLS = {"*_gap*": "avg", "*_dinov3*": "avg", "*_siglip*": "map"}
_NO_BIAS = ("vit_medium_patch??_gap_*", "*_dinov3")
_PLAIN_NORM = ("*_patch??_gap_*", "*_siglip_gap_*", "*_dinov3*")  # the norm is before a mean pooling
_GATED = ("*_plus_*_dinov3*", "vit_7b_*", "vit_giant_patch14_*")

# timm's old names. They contained the training data, which is a tag after a dot in the present names.
_OLD_NAMES = (
    (r"(vit_(?:tiny|small|base|large|huge)_patch\d+_224)_(?:in21k|sam|dino)", r"\1"),
    (r"vit_(base|large|huge|giant)_patch(\d+)_224_clip_laion2b", r"vit_\1_patch\2_clip_224"),
    (r"(deit3_(?:small|medium|base|large|huge)_patch\d+_\d+)_in21ft1k", r"\1"),
)


def present_name(architecture: str) -> str:
    """The present name of an architecture without its tag: "vit_base_patch16_224_in21k" -> "vit_base_patch16_224"."""
    name = architecture.partition(".")[0]
    for old, new in _OLD_NAMES:
        name = re.sub(f"^{old}$", new, name)
    return name


def arguments(name: str) -> dict[str, Any]:
    """The arguments of timm's VisionTransformer for a supported architecture."""
    _, size = name.partition("_patch")[0].removesuffix("_distilled").split("_", 1)
    registers = re.search(r"_reg(\d)", name)
    depth, heads = _SIZES[size]
    return {
        "depth": depth,
        "num_heads": 16 if name == "vit_base_patch16_gap_224" else heads,
        "qkv_bias": not _matches(name, _NO_BIAS),
        "init_values": _first(name, _LAYER_SCALES),
        "act_layer": _first(name, _ACTIVATIONS),
        "swiglu_mlp": _matches(name, _GATED),
        "pre_norm": "_clip" in name,
        "class_token": "_gap" not in name and "_siglip" not in name,
        "reg_tokens": 4 if "_dinov3" in name else int(registers[1]) if registers else 0,
        "no_embed_class": name.startswith("deit3_") or registers is not None,
        "global_pool": _first(name, _POOLS) or "token",
        "fc_norm": False if _matches(name, _PLAIN_NORM) else None,  # None: after the pooling if it is the mean
    }


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _first(name: str, values: dict[str, Any]) -> Any:
    return next((value for pattern, value in values.items() if fnmatchcase(name, pattern)), None)
