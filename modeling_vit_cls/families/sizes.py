"""Sizes that a checkpoint without a config, or with a name alone, tells by the shapes of its tensors."""

import math
from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError
from ..files.tensor import Tensor
from .family import has

# Heads of published models by width; where a width is missing, a head has 64 features, as nearly everywhere.
_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}


def shape_of(tensors: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    """The shape that a size is read off. Raises CheckpointError where the tensor is not there or has other axes."""
    if name not in tensors:
        files = sorted({tensor.file.name for tensor in tensors.values()}) or ["the file"]
        raise CheckpointError(f"{files[0]} has no tensor that would be our {name!r}")
    if len(tensors[name].shape) != axes:
        raise CheckpointError(f"tensor {tensors[name].name!r} has shape {tensors[name].shape}, expected {axes} axes")
    return tensors[name].shape


def heads_of(width: int) -> int:
    """Number of heads that models of a width have."""
    return _HEADS.get(width, max(width // 64, 1))


def dinov3_heads(width: int) -> int:
    """Number of heads that DINOv3's models of a width have: of 64 features, and of 128 in the largest."""
    return 32 if width == 4096 else max(width // 64, 1)


def sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Our config's sizes of tensors by our names, and nothing of which parts there are: a missing one would go unseen.

    Raises CheckpointError where a tensor that tells a size is missing.
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
    """The square image that learned positions are for, and whether `prefix` tokens before the patches have one too.

    Raises CheckpointError where there are none, and where they are those of no square.
    """
    name = "embeddings.position_embedding.embedding"
    rows, _ = shape_of(tensors, name, 2)
    for covered, tokens in ((prefix, "all"), (0, "patches")):
        grid = math.isqrt(max(rows - covered, 0))
        if grid and grid * grid == rows - covered:
            return {"image_size": grid * side, "position_embedding_tokens": tokens}
    raise CheckpointError(f"tensor {tensors[name].name!r} has {rows} positions, those of no square image")
