"""Sizes of a model from the shapes of its tensors, for checkpoints without a config or with only a name in it."""

import math
from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError
from ..files.tensor import Tensor
from .family import has

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
    side, _, channels, width = shape_of(tensors, "embeddings.patch_embedding.projection.kernel", 4)
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
