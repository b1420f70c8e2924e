"""DINOv3 of transformers (Simeoni et al. 2025): rotary positions, registers, no bias on the keys."""

from collections.abc import Mapping
from typing import Any

from ..configuration_vit_cls import ViTClsConfig
from ..errors import ConfigError
from ..files.tensor import Tensor
from .family import ANY_SIZE, IMAGENET, Export, Family, always, common_fields, refuse_unless, square
from .layouts import conv, linear, norm, tokens, vector

_COPIED = [
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "initializer_range",
    "image_size",
    "patch_size",
    "num_channels",
    "drop_path_rate",
    "num_register_tokens",
    "rope_theta",
]

TABLE = {
    "embeddings.cls_token": tokens("embeddings.cls_token"),
    "embeddings.register_tokens": tokens("embeddings.register_tokens"),
    "embeddings.patch_embeddings": conv("embeddings.patch_embedding.projection"),
    "norm": norm("norm"),
    "layer.{}.norm1": norm("{}.norm1"),
    "layer.{}.attention.q_proj": linear("{}.attention.query"),
    "layer.{}.attention.k_proj": linear("{}.attention.key"),
    "layer.{}.attention.v_proj": linear("{}.attention.value"),
    "layer.{}.attention.o_proj": linear("{}.attention.out"),
    "layer.{}.layer_scale1.lambda1": vector("{}.layer_scale1"),
    "layer.{}.norm2": norm("{}.norm2"),
    "layer.{}.mlp.gate_proj": linear("{}.mlp.gate"),
    "layer.{}.mlp.up_proj": linear("{}.mlp.fc1"),
    "layer.{}.mlp.down_proj": linear("{}.mlp.fc2"),
    "layer.{}.layer_scale2.lambda1": vector("{}.layer_scale2"),
}


def _fields(fields: dict[str, Any], _: Mapping[str, Tensor]) -> dict[str, Any]:
    refuse_unless(fields, proj_bias=True, mlp_bias=True, value_bias=fields.get("query_bias", True))
    ours = {name: fields[name] for name in _COPIED if name in fields}
    defaults = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6, "num_register_tokens": 0}
    return {
        **defaults,
        **ours,
        "attention_probs_dropout_prob": fields.get("attention_dropout", 0.0),
        "layer_norm_eps": fields.get("layer_norm_eps", 1e-5),
        "layer_scale_init_value": fields.get("layerscale_value", 1.0),
        "position_embedding": "rope",
        "qkv_bias": fields.get("query_bias", True),
        "key_bias": fields.get("key_bias", False),
        "mlp": "swiglu" if fields.get("use_gated_mlp", False) else "mlp",
        **ANY_SIZE,
    }


def _export(config: ViTClsConfig, has_head: bool) -> Export:
    if has_head:
        rule = "transformers' DINOv3 has no classifier: export the backbone, FlaxViTClsModel"
        raise ConfigError("num_labels", config.num_labels, rule)
    square(config, "transformers' DINOv3")
    if config.layer_scale_init_value is None:
        raise ConfigError(
            "layer_scale_init_value", None, "must be a number: transformers' DINOv3 always has LayerScale"
        )
    fields = {
        "architectures": ["DINOv3ViTModel"],
        "model_type": "dinov3_vit",
        **common_fields(config, _COPIED, has_head),
        "attention_dropout": config.attention_probs_dropout_prob,
        "layer_norm_eps": config.layer_norm_eps,
        "layerscale_value": config.layer_scale_init_value,
        "query_bias": config.qkv_bias,
        "key_bias": config.qkv_bias if config.key_bias is None else config.key_bias,
        "value_bias": config.qkv_bias,
        "use_gated_mlp": config.mlp == "swiglu",
    }
    zeros = {"embeddings.mask_token": (1, 1, config.hidden_size)}
    if not config.num_register_tokens:
        zeros["embeddings.register_tokens"] = (1, 0, config.hidden_size)
    return Export(fields, zeros=zeros)


FAMILIES = (
    Family(
        "transformers DINOv3",
        _fields,
        TABLE,
        model_types=("dinov3_vit",),
        prefixes=("model.",),
        ignored=("embeddings.mask_token", "embeddings.position_ids", "rope_embeddings.*"),
        processor=always(IMAGENET),
        processor_class="DINOv3ViTImageProcessor",
        export=_export,
    ),
)
