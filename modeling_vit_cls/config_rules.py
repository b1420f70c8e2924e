"""The rules of a ViTClsConfig: one row per field, then the rules between fields. Checking allocates nothing."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from .errors import ConfigError

MAX_PARAMETERS = 10**11  # 400 GB of float32; a larger config is a typing error or an attack
MAX_LABELS = 500_000  # transformers keeps two dictionaries of this length, 0.1 GB

Rule = tuple[Callable[[Any], bool], str]

# The choices of a field. Each is written here alone: the config's annotations and the rules below read them.
Activation = Literal["gelu", "gelu_pytorch_tanh", "quick_gelu", "silu", "relu"]
Readout = Literal["cls", "cls_concat", "mean", "cls_mean", "map"]
Positions = Literal["learned", "relative", "sincos2d", "rope", "none"]
PositionTokens = Literal["all", "patches"]
Interpolation = Literal[
    "bicubic",
    "bicubic_antialias",
    "bicubic_align_corners",
    "bicubic_offset",
    "bilinear",
    "bilinear_antialias",
    "bilinear_align_corners",
    "cpe",
    "cpe_align_corners",
]
MlpKind = Literal["mlp", "swiglu"]
NormPosition = Literal["before_readout", "after_readout", "none"]
ClassifierInput = Literal["readout", "unit_embedding"]
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
READOUTS_OF_CLS = ("cls", "cls_concat", "cls_mean")  # those that need the [CLS] token


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(low: float, high: float, text: str) -> Rule:
    return lambda v: (_is_int(v) or isinstance(v, float)) and low <= v <= high, text  # NaN fails both comparisons


def _integer(low: int, high: int) -> Rule:
    return lambda v: _is_int(v) and low <= v <= high, f"must be an integer from {low} to {high}"


def _choice(literal: Any) -> Rule:
    names = get_args(literal)
    return lambda v: isinstance(v, str) and v in names, "must be one of " + ", ".join(map(repr, names))


def _or_none(rule: Rule) -> Rule:
    test, text = rule
    return lambda v: v is None or test(v), f"{text}, or None"


def _is_size(value: Any) -> bool:
    pair = value if isinstance(value, tuple | list) else (value, value)
    return len(pair) == 2 and all(_is_int(side) and 1 <= side <= 65536 for side in pair)


_SIZE = (_is_size, "must be a number of pixels from 1 to 65536, or a pair (height, width) of them")
_PROBABILITY = _number(0, 1 - 1e-9, "must be a number in [0, 1)")
_SMALL = _number(1e-12, 1, "must be a number from 1e-12 to 1")
_BOOLEAN = (lambda v: isinstance(v, bool), "must be true or false")

RULES: dict[str, Rule] = {
    "hidden_size": _integer(1, 65536),
    "num_hidden_layers": _integer(1, 1024),
    "num_attention_heads": _integer(1, 1024),
    "intermediate_size": _integer(1, 2**20),
    "image_size": _SIZE,
    "patch_size": _integer(1, 65536),
    "num_channels": _integer(1, 4096),
    "patch_bias": _BOOLEAN,
    "patch_padding": _integer(0, 65536),
    "ignore_border": _BOOLEAN,
    "dynamic_image_size": _BOOLEAN,
    "hidden_act": _choice(Activation),
    "layer_norm_eps": _SMALL,
    "qkv_bias": _BOOLEAN,
    "key_bias": _or_none(_BOOLEAN),
    "hidden_dropout_prob": _PROBABILITY,
    "attention_probs_dropout_prob": _PROBABILITY,
    "drop_path_rate": _PROBABILITY,
    "initializer_range": _SMALL,
    "readout": _choice(Readout),
    "use_cls_token": _BOOLEAN,
    "num_cls_tokens": _integer(1, 64),
    "num_register_tokens": _integer(0, 4096),
    "use_distillation_token": _BOOLEAN,
    "use_distillation_head": _or_none(_BOOLEAN),
    "position_embedding": _choice(Positions),
    "position_embedding_tokens": _choice(PositionTokens),
    "position_interpolation": _choice(Interpolation),
    "rope_theta": _number(1e-3, 1e9, "must be a number from 0.001 to 1e9"),
    "layer_scale_init_value": _or_none(_number(1e-12, 100, "must be a number from 1e-12 to 100")),
    "mlp": _choice(MlpKind),
    "pre_norm": _BOOLEAN,
    "norm_position": _choice(NormPosition),
    "representation_size": _or_none(_integer(1, 65536)),
    "projection_size": _or_none(_integer(1, 65536)),
    "classifier_input": _choice(ClassifierInput),
    "num_labels": _integer(1, MAX_LABELS),
}
PROBLEM_TYPE = _or_none(_choice(ProblemType))
FIELD_NAMES = tuple(name for name in RULES if name != "num_labels")  # num_labels is a field of transformers' base class
# Fields that 0.1.0 did not have and that change the outputs, with the value that it computed with.
LATER_FIELDS = {"num_cls_tokens": 1, "patch_padding": 0, "classifier_input": "readout"}


def readout_size(readout: str, hidden_size: int, num_cls_tokens: int) -> int:
    """Width of a readout of tokens of width `hidden_size`."""
    return {"cls_concat": num_cls_tokens, "cls_mean": 2}.get(readout, 1) * hidden_size


def check_config(fields: Mapping[str, Any]) -> None:
    """Raise ConfigError for the first field, or pair of fields, that breaks a rule. `fields` has all names of RULES."""
    for name, value in fields.items():
        test, rule = RULES[name]
        if not test(value):
            raise ConfigError(name, value, rule)
    for name, broken, rule in _contradictions(fields):
        if broken:
            raise ConfigError(name, fields[name], rule)
    count = estimate_parameters(fields)
    if count > MAX_PARAMETERS:
        largest = max(
            ("hidden_size", "num_hidden_layers", "intermediate_size", "image_size"), key=lambda n: _max(fields[n])
        )
        rule = f"the model would have {count:.1e} parameters; the limit is {MAX_PARAMETERS:.0e}"
        raise ConfigError(largest, fields[largest], rule)


def _max(value: int | tuple[int, int]) -> int:
    return value if isinstance(value, int) else max(value)


def _contradictions(f: Mapping[str, Any]) -> list[tuple[str, bool, str]]:
    """The rules between fields, as rows (field to name in the error, whether the rule is broken, the rule)."""
    sides = f["image_size"] if isinstance(f["image_size"], tuple | list) else (f["image_size"],) * 2
    width, heads, patch = f["hidden_size"], f["num_attention_heads"], f["patch_size"]
    distillation_head = f["use_distillation_token"] and f["use_distillation_head"] is not False
    reads_cls = f["readout"] in READOUTS_OF_CLS
    position, head_width = f["position_embedding"], width // heads
    prefix = f["use_cls_token"], f["num_cls_tokens"], f["use_distillation_token"], f["num_register_tokens"]
    return [
        ("hidden_size", width % heads != 0, f"must be a multiple of num_attention_heads={heads}"),
        ("image_size", any(s < patch for s in sides), f"each side must hold at least one patch of patch_size={patch}"),
        (
            "image_size",
            any(s % patch for s in sides) and not f["ignore_border"],
            f"each side must be a multiple of patch_size={patch}",
        ),
        (
            "image_size",
            math.prod(s // patch for s in sides) > 2**20,
            f"gives over 2**20 patches with patch_size={patch}",
        ),
        ("patch_padding", 2 * f["patch_padding"] >= patch, f"must be less than half of patch_size={patch}"),
        ("readout", reads_cls and not f["use_cls_token"], "reads the [CLS] token: needs use_cls_token=True"),
        ("num_cls_tokens", f["num_cls_tokens"] > 1 and not f["use_cls_token"], "needs use_cls_token=True"),
        ("use_distillation_token", f["use_distillation_token"] and not f["use_cls_token"], "needs use_cls_token=True"),
        (
            "use_distillation_head",
            bool(f["use_distillation_head"]) and not f["use_distillation_token"],
            "reads the distillation token: needs use_distillation_token=True",
        ),
        (
            "norm_position",
            distillation_head and f["norm_position"] != "before_readout",
            "the distillation head reads a normalised token: use 'before_readout'",
        ),
        (
            "representation_size",
            f["representation_size"] is not None and distillation_head,
            "a model with a distillation head has no representation layer: use None",
        ),
        (
            "norm_position",
            f["norm_position"] == "after_readout" and f["readout"] in ("cls_mean", "cls_concat"),
            f"'after_readout' normalises one vector of hidden_size; readout={f['readout']!r} has several: use "
            "'before_readout'",
        ),
        (
            "classifier_input",
            f["classifier_input"] != "readout" and distillation_head,
            "a model with a distillation head classifies tokens: use 'readout'",
        ),
        (
            "position_embedding",
            position == "sincos2d" and (width % 4 != 0 or width < 8),
            f"'sincos2d' needs hidden_size={width} to be a multiple of 4, at least 8",
        ),
        (
            "position_embedding",
            position == "rope" and head_width % 4 != 0,
            f"'rope' needs hidden_size / num_attention_heads = {head_width} to be a multiple of 4",
        ),
        (
            "position_embedding",
            position == "relative" and prefix != (True, 1, False, 0),
            "'relative' is between patches and one [CLS] token: needs use_cls_token=True, num_cls_tokens=1, no "
            "distillation token and no registers",
        ),
    ]


def estimate_parameters(f: Mapping[str, Any]) -> int:
    """The number of parameters within a few per cent, by arithmetic, without building the model."""
    width, hidden, patch = f["hidden_size"], f["intermediate_size"], f["patch_size"]
    sides = f["image_size"] if isinstance(f["image_size"], tuple | list) else (f["image_size"],) * 2
    block = 4 * width**2 + (3 if f["mlp"] == "swiglu" else 2) * width * hidden
    tables = math.prod(s // patch for s in sides) * width if f["position_embedding"] == "learned" else 0
    feature = f["representation_size"] or readout_size(f["readout"], width, f["num_cls_tokens"])
    stem = patch**2 * f["num_channels"] * width + f["num_register_tokens"] * width + tables
    if f["position_embedding"] == "relative":
        block += math.prod(2 * (s // patch) - 1 for s in sides) * f["num_attention_heads"]
    return f["num_hidden_layers"] * block + stem + width * feature + feature * f["num_labels"]
