"""ViTPose's backbone in transformers (Xu et al. 2022): no [CLS], whose position is added to each patch; padding."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..files.tensor import Tensor
from .family import IMAGENET, Family, always, refuse_unless
from .layouts import Layout
from .vit import COPIED
from .vit import TABLE as _VIT


def _folded(table: np.ndarray) -> list[np.ndarray]:
    """Positions (1, 1 + N, D), whose first is that of [CLS] and added to all others -> (N, D)."""
    return [(table[:, 1:] + table[:, :1]).reshape(-1, table.shape[-1])]


_NOT_THERE = ("embeddings.cls_token", "embeddings.distillation_token", "pooler.dense")
TABLE = {name: rows for name, rows in _VIT.items() if name not in _NOT_THERE and "classifier" not in name}
TABLE |= {"embeddings.position_embeddings": {"": Layout(("embeddings.position_embedding.embedding",), _folded)}}


def _fields(fields: dict[str, Any], _: Mapping[str, Tensor]) -> dict[str, Any]:
    if fields["model_type"] == "vitpose":
        fields = fields.get("backbone_config") or {}
        if fields.get("model_type") != "vitpose_backbone":
            raise CheckpointError("config.json: backbone_config is not that of a vitpose_backbone")
    refuse_unless(fields, num_experts=1)
    width = fields.get("hidden_size", 768)
    return {
        **{name: fields[name] for name in COPIED if name in fields},
        "intermediate_size": int(width * fields.get("mlp_ratio", 4)),
        "image_size": fields.get("image_size", (256, 192)),
        "layer_norm_eps": fields.get("layer_norm_eps", 1e-12),
        "patch_padding": 2,
        "use_cls_token": False,
        "readout": "mean",
    }


FAMILIES = (
    Family(
        "transformers ViTPose",
        _fields,
        TABLE,
        model_types=("vitpose_backbone", "vitpose"),
        prefixes=("backbone.",),
        processor=always(IMAGENET),
    ),
)
