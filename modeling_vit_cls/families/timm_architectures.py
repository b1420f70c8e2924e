"""The architectures of timm that have our block, and the arguments that timm builds each with."""

import re
from itertools import product
from typing import Any

# {size in the name: (number of blocks, number of heads)}.
_SIZES = {
    "tiny": (12, 3),
    "wee": (14, 4),
    "xsmall": (10, 4),
    "small": (12, 6),
    "small_plus": (12, 6),
    "little": (14, 5),
    "medium": (12, 8),
    "mediumd": (20, 8),
    "betwixt": (12, 10),
    "base": (12, 12),
    "so150m": (18, 14),
    "so150m2": (21, 13),
    "large": (24, 16),
    "intern300m": (24, 16),
    "so400m": (27, 16),
    "huge": (32, 16),
    "huge_plus": (32, 20),
    "giant": (40, 16),
    "giantopt": (40, 16),
    "gigantic": (48, 16),
    "7b": (40, 32),
}
_DEFAULTS: dict[str, Any] = {
    "class_token": True,
    "distilled": False,
    "reg_tokens": 0,
    "no_embed_class": False,
    "pre_norm": False,
    "qkv_bias": True,
    "init_values": None,
    "act_layer": None,
    "swiglu_mlp": False,
    "eps": 1e-6,
    "rope": False,
    "relative": False,
    "eva": False,  # timm's classes Eva and Beit, which have other names of tensors
    "global_pool": "token",
    "pool_include_prefix": False,
    "fc_norm": None,  # after the pooling if it is the mean
    "final_norm": True,
    "interpolation": "bicubic_antialias",
    "dynamic_img_size": False,
}
_CLIP = {"pre_norm": True, "eps": 1e-5}
_MEAN = {"class_token": False, "global_pool": "avg"}
_MEAN_OF_NORMED = {**_MEAN, "fc_norm": False}
_REGISTERS = {"no_embed_class": True, "init_values": 1e-5}
_MAP = {"class_token": False, "global_pool": "map"}
_TANH = {"act_layer": "gelu_tanh"}
_SWIGLU = {"swiglu_mlp": True, "act_layer": "silu", "num_heads": 24}
_ROPE = {"eva": True, "rope": True, "reg_tokens": 4, "init_values": 1e-5, "eps": 1e-5, "fc_norm": False}
_ROPE |= {"dynamic_img_size": True}
_DINOV3 = {**_ROPE, "global_pool": "avg", "qkv_bias": False}
_DINOV3_BIAS = {**_DINOV3, "qkv_bias": True}
_LINGBOT = {**_ROPE, "global_pool": "token"}
_BEIT = {"eva": True, "relative": True, "global_pool": "avg", "init_values": 1e-5, "interpolation": "bilinear"}
_RADIO = {"no_embed_class": True, "reg_tokens": 7, "final_norm": False, "interpolation": "bilinear"}

# Names, with alternatives in braces, and the arguments in which they differ from _SIZES and _DEFAULTS.
_ROWS: list[tuple[str, dict[str, Any]]] = [
    ("{vit,deit}_tiny_patch16_224 vit_tiny_patch16_384 vit_{small,base}_patch{16,32}_{224,384}", {}),
    ("vit_{small,base}_patch8_224 vit_large_patch{16,32}_{224,384} vit_{large,huge,giant,gigantic}_patch14_224", {}),
    ("deit_{small,base}_patch16_224 deit_base_patch16_384", {}),
    ("deit_{tiny,small,base}_distilled_patch16_224 deit_base_distilled_patch16_384", {"distilled": True}),
    (
        "deit3_{small,base,large}_patch16_{224,384} deit3_medium_patch16_224 deit3_huge_patch14_224",
        {"no_embed_class": True, "init_values": 1e-6},
    ),
    ("vit_base_patch16_224_miil", {"qkv_bias": False}),
    ("vit_base_patch16_plus_240 vit_base_patch32_plus_256", {"num_heads": 14, "init_values": 1e-5}),
    ("vit_small_patch16_36x1_224", {"depth": 36, "init_values": 1e-5}),
    ("vit_{medium,betwixt}_patch16_gap_256", {**_MEAN_OF_NORMED, "qkv_bias": False, "init_values": 1e-6}),
    ("vit_medium_patch16_gap_{240,384}", {**_MEAN_OF_NORMED, "qkv_bias": False, "init_values": 1e-6}),
    ("vit_base_patch16_gap_224", {**_MEAN_OF_NORMED, "num_heads": 16}),
    ("vit_huge_patch14_gap_224 vit_huge_patch16_gap_448 vit_giant_patch16_gap_224", _MEAN_OF_NORMED),
    ("vit_{wee,little,medium,betwixt}_patch16_reg1_gap_256", {**_MEAN, **_REGISTERS, "reg_tokens": 1}),
    ("vit_{little,medium}_patch16_reg4_gap_256", {**_MEAN, **_REGISTERS, "reg_tokens": 4}),
    ("vit_{mediumd,betwixt}_patch16_reg4_gap_{256,384}", {**_MEAN, **_REGISTERS, "reg_tokens": 4}),
    ("vit_base_patch16_reg4_gap_256", {**_MEAN, "no_embed_class": True, "reg_tokens": 4}),
    ("vit_so150m_patch16_reg4_gap_{256,384}", {**_MEAN_OF_NORMED, "reg_tokens": 4}),
    ("vit_so150m_patch16_reg4_map_256", {**_MAP, "reg_tokens": 4}),
    (
        "vit_so150m2_patch16_reg1_gap_{256,384,448}",
        {**_MEAN, "reg_tokens": 1, "qkv_bias": False, "init_values": 1e-5},
    ),
    ("vit_{xsmall,medium}_patch16_clip_224 vit_{medium,betwixt}_patch32_clip_224", _CLIP),
    ("vit_base_patch32_clip_{224,256,384,448} vit_base_patch16_clip_{224,384}", _CLIP),
    ("vit_large_patch14_clip_{224,336} vit_huge_patch14_clip_{224,336,378}", _CLIP),
    ("vit_giant_patch14_clip_224 vit_gigantic_patch14_clip_{224,378}", _CLIP),
    ("vit_base_patch16_plus_clip_240", {**_CLIP, "num_heads": 14}),
    (
        "vit_base_patch{16,32}_clip_quickgelu_224 vit_large_patch14_clip_quickgelu_{224,336} "
        "vit_huge_patch14_clip_quickgelu_{224,378} vit_gigantic_patch14_clip_quickgelu_224",
        {**_CLIP, "act_layer": "quick_gelu"},
    ),
    ("vit_base_patch16_siglip_{224,256,384,512} vit_large_patch16_siglip_{256,384}", _MAP),
    ("vit_so400m_patch14_siglip_{224,378,384}", _MAP),
    ("vit_base_patch32_siglip_256 vit_large_patch16_siglip_512", {**_MAP, **_TANH}),
    ("vit_so400m_patch16_siglip_{256,384,512} vit_giantopt_patch16_siglip_{256,384}", {**_MAP, **_TANH}),
    ("vit_base_patch16_siglip_gap_{224,256,384,512} vit_large_patch16_siglip_gap_{256,384}", _MEAN_OF_NORMED),
    ("vit_so400m_patch14_siglip_gap_{224,378,384,448,896}", _MEAN_OF_NORMED),
    ("vit_base_patch32_siglip_gap_256 vit_large_patch16_siglip_gap_512", {**_MEAN_OF_NORMED, **_TANH}),
    (
        "vit_so400m_patch16_siglip_gap_{256,384,512} vit_giantopt_patch16_siglip_gap_{256,384}",
        {**_MEAN_OF_NORMED, **_TANH},
    ),
    ("vit_{small,base,large}_patch14_dinov2", {"init_values": 1e-5}),
    ("vit_{small,base,large}_patch14_reg4_dinov2", {**_REGISTERS, "reg_tokens": 4}),
    ("vit_giant_patch14_dinov2", {**_SWIGLU, "init_values": 1e-5}),
    ("vit_giant_patch14_reg4_dinov2", {**_SWIGLU, **_REGISTERS, "reg_tokens": 4}),
    ("vit_{base,large,so400m}_patch14_reg1_tipsv2", {**_REGISTERS, "reg_tokens": 1, "init_values": 1.0}),
    ("vit_giant_patch14_reg1_tipsv2", {**_SWIGLU, **_REGISTERS, "reg_tokens": 1, "init_values": 1.0}),
    ("flexivit_{small,base,large}", {"no_embed_class": True, "interpolation": "bilinear"}),
    ("eva_large_patch14_{196,336}", {"global_pool": "avg"}),
    ("eva_giant_patch14_{224,336,560}", {"eva": True, "global_pool": "avg"}),
    ("eva_giant_patch14_clip_224", {"eva": True}),
    ("beit_base_patch16_{224,384}", {**_BEIT, "init_values": 0.1}),
    ("beit_large_patch16_{224,384,512} beitv2_{base,large}_patch16_224", _BEIT),
    ("vit_intern300m_patch14_448", {"init_values": 0.1, "final_norm": False, "dynamic_img_size": True}),
    ("vit_base_patch16_radio_v3", {**_RADIO, "init_values": 1e-5, "interpolation": "bilinear_align_corners"}),
    ("vit_large_patch16_radio_v3", {**_RADIO, "init_values": 1e-5}),
    ("vit_huge_patch16_radio_v3", {**_RADIO, "interpolation": "bilinear_align_corners"}),
    ("vit_giant_patch16_radio_v3", {**_RADIO, "num_heads": 24}),
    ("vit_{so400m,huge}_patch16_radio_v4", {**_RADIO, "reg_tokens": 9}),
    ("vit_{small,base,large}_patch16_dinov3", _DINOV3),
    ("vit_{small_plus,huge_plus}_patch16_dinov3 vit_7b_patch16_dinov3", {**_DINOV3, "swiglu_mlp": True}),
    ("vit_{tiny,small,base,large}_patch16_dinov3_qkvb", _DINOV3_BIAS),
    ("vit_{small_plus,huge_plus}_patch16_dinov3_qkvb", {**_DINOV3_BIAS, "swiglu_mlp": True}),
    ("vit_{small,base,large}_patch16_lingbot", _LINGBOT),
    ("vit_giant_patch16_lingbot", {**_LINGBOT, "swiglu_mlp": True, "num_heads": 24, "qkv_bias": False}),
    ("test_vit", {"depth": 6, "num_heads": 2, "dynamic_img_size": True}),
    (
        "test_vit2",
        {**_MEAN, "depth": 8, "num_heads": 2, "reg_tokens": 1, "init_values": 1e-5, "dynamic_img_size": True},
    ),
    (
        "test_vit3",
        {**_MAP, "depth": 9, "num_heads": 3, "reg_tokens": 1, "init_values": 1e-5, "pool_include_prefix": True},
    ),
]

# timm's old names. They contained the training data, which is a tag after a dot in the present names.
_OLD_NAMES = (
    (r"(vit_(?:tiny|small|base|large|huge)_patch\d+_224(?:_miil)?)_(?:in21k|sam|dino)", r"\1"),
    (r"vit_(base|large|huge|giant)_patch(\d+)_224_clip_laion2b", r"vit_\1_patch\2_clip_224"),
    (r"(deit3_(?:small|medium|base|large|huge)_patch\d+_\d+)_in21ft1k", r"\1"),
)


def present_name(architecture: str) -> str:
    """The present name of an architecture without its tag: "vit_base_patch16_224_in21k" -> "vit_base_patch16_224"."""
    name = architecture.partition(".")[0]
    for old, new in _OLD_NAMES:
        name = re.sub(f"^{old}$", new, name)
    return name


def _alternatives(pattern: str) -> list[str]:
    """The names that a pattern stands for: "vit_{tiny,small}_patch16_224" -> two names."""
    parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
    return ["".join(chosen) for chosen in product(*parts)]


def _depth_and_heads(name: str) -> dict[str, int]:
    """The numbers of blocks and heads of the size in a name; none for a name without a size."""
    size = name.partition("_patch")[0].removesuffix("_distilled").partition("_")[2]
    return dict(zip(("depth", "num_heads"), _SIZES.get(size, ())))


# {name: the arguments of timm's VisionTransformer or Eva}. Sizes that the tensors show are left out.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    name: {**_DEFAULTS, **_depth_and_heads(name), **different}
    for patterns, different in _ROWS
    for pattern in patterns.split()
    for name in _alternatives(pattern)
}
