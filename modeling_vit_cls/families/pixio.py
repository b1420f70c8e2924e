"""Pixio of transformers (arXiv 2512.15715): eight [CLS] tokens, whose mean is the readout, and ViT's blocks."""

from collections.abc import Mapping
from typing import Any

from ..configuration_vit_cls import ViTClsConfig
from ..errors import ConfigError
from ..files.tensor import Tensor
from .dinov2 import TABLE as _DINOV2
from .family import ANY_SIZE, BICUBIC, IMAGENET, Export, Family, always, common_fields, square
from .layouts import linear, norm

_COPIED = [
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
    "layer_norm_eps",
    "num_channels",
    "qkv_bias",
    "drop_path_rate",
]

# The checkpoints have DINOv2's names, in the memory of transformers 5 it has ViT's; what it saves is a mixture.
_OF_DINOV2_ALONE = ("layer_scale", ".weights_", "gate_proj", "up_proj", "down_proj", "register", "classifier")
TABLE = {name: layouts for name, layouts in _DINOV2.items() if not any(part in name for part in _OF_DINOV2_ALONE)}
for _block in ("encoder.layer.{}", "layers.{}"):
    TABLE |= {
        f"{_block}.layernorm_before": norm("{}.norm1"),
        f"{_block}.layernorm_after": norm("{}.norm2"),
        f"{_block}.intermediate.dense": linear("{}.mlp.fc1"),
        f"{_block}.output.dense": linear("{}.mlp.fc2"),
    }


def _fields(fields: dict[str, Any], _: Mapping[str, Tensor]) -> dict[str, Any]:
    width = fields.get("hidden_size", 1280)
    defaults = {"num_hidden_layers": 32, "num_attention_heads": 16}
    return {
        **defaults,
        **{name: fields[name] for name in _COPIED if name in fields},
        "hidden_size": width,
        "intermediate_size": int(width * fields.get("mlp_ratio", 4)),
        "image_size": fields.get("image_size", 256),
        "patch_size": fields.get("patch_size", 16),
        "num_cls_tokens": fields.get("n_cls_tokens", 8),
        **ANY_SIZE,
    }


def _export(config: ViTClsConfig, has_head: bool) -> Export:
    if has_head:
        rule = "transformers has no classifier on Pixio: export the backbone, FlaxViTClsModel"
        raise ConfigError("num_labels", config.num_labels, rule)
    square(config, "transformers' Pixio")
    if config.intermediate_size % config.hidden_size:
        raise ConfigError(
            "intermediate_size", config.intermediate_size, "must be a whole multiple of hidden_size in Pixio"
        )
    fields = {
        "architectures": ["PixioModel"],
        "model_type": "pixio",
        **common_fields(config, [*_COPIED, "hidden_size", "patch_size"], has_head),
        "mlp_ratio": config.intermediate_size // config.hidden_size,
        "n_cls_tokens": config.num_cls_tokens,
    }
    return Export(fields)


FAMILIES = (
    Family(
        "transformers Pixio",
        _fields,
        TABLE,
        model_types=("pixio",),
        prefixes=("pixio.",),
        ignored=("embeddings.mask_token",),
        processor=always(BICUBIC | IMAGENET),
        processor_class="BitImageProcessor",
        export=_export,
    ),
)
