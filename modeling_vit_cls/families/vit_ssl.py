"""ViT-MAE, ViT-MSN and I-JEPA of transformers, trained without labels: ViT's names and block, without a pooler.

He et al. 2022; Assran et al. 2022; Assran et al. 2023.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ..files.tensor import Tensor
from .family import IMAGENET, Family, always, labels
from .vit import COPIED
from .vit import TABLE as _VIT

TABLE = {name: layouts for name, layouts in _VIT.items() if not name.startswith(("pooler", "distillation_classifier"))}
for _name in ("embeddings.distillation_token", "cls_classifier"):
    del TABLE[_name]
_WITHOUT_CLS = {name: layouts for name, layouts in TABLE.items() if name != "embeddings.cls_token"}


def _fields(eps: float, **others: Any) -> Callable[[dict[str, Any], Mapping[str, Tensor]], dict[str, Any]]:
    """The fields of a family with this default of `layer_norm_eps`, and with `others` of ours."""

    def fields_of(fields: dict[str, Any], _: Mapping[str, Tensor]) -> dict[str, Any]:
        ours = {name: fields[name] for name in COPIED if name in fields} | labels(fields)
        return {**ours, "layer_norm_eps": fields.get("layer_norm_eps", eps), **others}

    return fields_of


_MASK = ("embeddings.mask_token",)
_PROCESSOR = {"processor": always(IMAGENET), "processor_class": "ViTImageProcessor"}
FAMILIES = (
    Family(
        "transformers ViT-MAE",
        _fields(1e-12),
        TABLE,
        model_types=("vit_mae",),
        prefixes=("vit.",),
        ignored=("decoder.*",),
        **_PROCESSOR,
    ),
    Family(
        "transformers ViT-MSN",
        _fields(1e-6),
        TABLE,
        model_types=("vit_msn",),
        prefixes=("vit.",),
        ignored=_MASK,
        **_PROCESSOR,
    ),
    Family(
        "transformers I-JEPA",
        _fields(1e-12, use_cls_token=False, readout="mean"),
        _WITHOUT_CLS,
        model_types=("ijepa",),
        prefixes=("ijepa.",),
        ignored=_MASK,
        **_PROCESSOR,
    ),
)
