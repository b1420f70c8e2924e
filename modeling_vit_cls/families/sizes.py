"""Sizes of a model from the shapes of its tensors, for checkpoints without a config or with only a name in it."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..config_rules import RULES
from ..errors import CheckpointError, ConfigError
from ..files.tensor import Tensor
from .family import has

PATCH_KERNEL = "embeddings.patch_embedding.projection.kernel"
# {field of our config: the parameter that there is only with it}
_PRESENT = {
    "use_cls_token": "embeddings.cls_token",
    "use_distillation_token": "embeddings.distillation_token",
    "patch_bias": "embeddings.patch_embedding.projection.bias",
    "pre_norm": "pre_norm.scale",
    "qkv_bias": "encoder.layer_00.attention.query.bias",
    "layer_scale_init_value": "encoder.layer_00.layer_scale1",
}
# {field of our config: the parameter and the axis that have this size}
_SIZES = {
    "hidden_size": (PATCH_KERNEL, 3),
    "num_channels": (PATCH_KERNEL, 2),
    "intermediate_size": ("encoder.layer_00.mlp.fc1.kernel", 1),
    "num_register_tokens": ("embeddings.register_tokens", 0),
}
# {width: number of heads} of published models. At other widths a head has 64 features, as nearly everywhere.
_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}


def shape_of(tensors: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    """The shape of a tensor with `axes` axes. Raises CheckpointError if it is missing or has other axes."""
    if name not in tensors:
        files = sorted({tensor.file.name for tensor in tensors.values()}) or ["the file"]
        raise CheckpointError(f"{files[0]} has no tensor for our parameter {name!r}")
    if len(tensors[name].shape) != axes:
        raise CheckpointError(f"tensor {tensors[name].name!r} has shape {tensors[name].shape}, expected {axes} axes")
    return tensors[name].shape


def heads_of(width: int) -> int:
    """The number of attention heads of models with this width."""
    return _HEADS.get(width, max(width // 64, 1))


def dinov3_heads(width: int) -> int:
    """The number of attention heads in DINOv3: of 64 features each, in the largest model of 128."""
    return 32 if width == 4096 else max(width // 64, 1)


def sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The sizes in our config, from the shapes of tensors by our names.

    Which parts the model has is not guessed from the tensors: a missing one would go unnoticed. Raises CheckpointError
    if a tensor with one of these sizes is missing.
    """
    side, _, channels, width = shape_of(tensors, PATCH_KERNEL, 4)
    ours = {
        "hidden_size": width,
        "num_hidden_layers": len({name.split(".")[1] for name in tensors if name.startswith("encoder.layer_")}),
        "num_attention_heads": heads_of(width),
        "intermediate_size": shape_of(tensors, "encoder.layer_00.mlp.fc1.kernel", 2)[1],
        "patch_size": side,
        "num_channels": channels,
    }
    if has(tensors, "classifier"):
        ours["num_labels"] = shape_of(tensors, "classifier.kernel", 2)[1]
    return ours


def square_of_positions(tensors: Mapping[str, Tensor], side: int, prefix: int) -> dict[str, Any]:
    """The square image of a table of learned positions, and whether the `prefix` tokens have positions too.

    `side` is that of a patch in pixels. Raises CheckpointError if there is no table, or if its length fits no square.
    """
    name = "embeddings.position_embedding.embedding"
    rows, _ = shape_of(tensors, name, 2)
    for others, tokens in ((prefix, "all"), (0, "patches")):
        grid = math.isqrt(max(rows - others, 0))
        if grid and grid * grid == rows - others:
            return {"image_size": grid * side, "position_embedding_tokens": tokens}
    raise CheckpointError(f"tensor {tensors[name].name!r} has {rows} positions, which fit no square image")


def fields_shown(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Any, str]]:
    """The fields of our config that the tensors of a checkpoint show: the value, and our name of the parameter.

    A LayerScale is shown as 1e-5, a usual initial value, or None; other values cannot be told from it.
    """
    shown: dict[str, tuple[Any, str]] = {field: (name in tensors, name) for field, name in _PRESENT.items()}
    scale, name = shown["layer_scale_init_value"]
    shown["layer_scale_init_value"] = (1e-5 if scale else None, name)
    for field, (name, axis) in _SIZES.items():
        if name in tensors and axis < len(tensors[name].shape):
            shown[field] = (tensors[name].shape[axis], name)
    shown.setdefault("num_register_tokens", (0, "embeddings.register_tokens"))
    blocks = sorted({name.split(".")[1] for name in tensors if name.startswith("encoder.layer_")})
    if blocks:
        shown["num_hidden_layers"] = (len(blocks), f"encoder.{blocks[-1]}.norm1.scale")
        gate = f"encoder.{blocks[0]}.mlp.gate.kernel"
        shown["mlp"] = ("swiglu" if gate in tensors else "mlp", gate)
    return shown


def refuse_contradictions(tensors: Mapping[str, Tensor], overrides: Mapping[str, Any], path: object) -> None:
    """Raise CheckpointError for a field that a user gave and the tensors of a checkpoint contradict, naming both.

    Raises ConfigError for a value that breaks its field's rule.
    """
    shown = {"num_attention_heads": (overrides.get("num_attention_heads"), ""), **fields_shown(tensors)}
    for field, (value, name) in shown.items() if overrides else ():
        given = overrides.get(field, value)
        given = given.item() if isinstance(given, np.generic) else given
        is_right, rule = RULES[field]
        if field in overrides and not is_right(given):
            raise ConfigError(field, given, rule)
        if field == "layer_scale_init_value":
            given, value = given is not None, value is not None
        if given == value:
            continue
        evidence = f"the file has no tensor for our parameter {name!r}"
        if name in tensors:
            evidence = f"tensor {tensors[name].name!r} of shape {tensors[name].stored} shows another value"
        rule = "the new config differs in the backbone, but only a head may be drawn anew"
        raise CheckpointError(f"{path}: {field}={overrides[field]!r}: {evidence}: {rule}")
