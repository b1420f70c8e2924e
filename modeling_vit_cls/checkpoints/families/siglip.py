"""Vision towers of SigLIP and of the fixed-size SigLIP 2 (Zhai et al. 2023): no [CLS], attention pooling."""

from collections.abc import Mapping
from typing import Any

from ..weights import Tensor
from .table import BICUBIC, Family, always, conv, has, labels, linear, norm, qkv, tokens

_COPIED = [
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "image_size",
    "patch_size",
    "num_channels",
]

_POOLING = "readout.attention_pooling"
TABLE = {
    "embeddings.patch_embedding": conv("embeddings.patch_embedding.projection"),
    "embeddings.position_embedding": tokens("embeddings.position_embedding.embedding"),
    "post_layernorm": norm("norm"),
    "classifier": linear("classifier"),
    "head.probe": tokens(f"{_POOLING}.probe"),
    "head.attention.in_proj_weight": {"": qkv(f"{_POOLING}.attention")["weight"]},
    "head.attention.in_proj_bias": {"": qkv(f"{_POOLING}.attention")["bias"]},
    "head.attention.out_proj": linear(f"{_POOLING}.attention.out"),
    "head.layernorm": norm(f"{_POOLING}.norm"),
    "head.mlp.fc1": linear(f"{_POOLING}.mlp.fc1"),
    "head.mlp.fc2": linear(f"{_POOLING}.mlp.fc2"),
    "encoder.layers.{}.layer_norm1": norm("{}.norm1"),
    "encoder.layers.{}.self_attn.q_proj": linear("{}.attention.query"),
    "encoder.layers.{}.self_attn.k_proj": linear("{}.attention.key"),
    "encoder.layers.{}.self_attn.v_proj": linear("{}.attention.value"),
    "encoder.layers.{}.self_attn.out_proj": linear("{}.attention.out"),
    "encoder.layers.{}.layer_norm2": norm("{}.norm2"),
    "encoder.layers.{}.mlp.fc1": linear("{}.mlp.fc1"),
    "encoder.layers.{}.mlp.fc2": linear("{}.mlp.fc2"),
}


def _fields(fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    vision = fields.get("vision_config") or fields
    return {
        **{name: vision[name] for name in _COPIED if name in vision},
        **(labels(fields) if has(tensors, "classifier") else {}),
        "hidden_act": vision.get("hidden_act", "gelu_pytorch_tanh"),
        "layer_norm_eps": vision.get("layer_norm_eps", 1e-6),
        "attention_probs_dropout_prob": vision.get("attention_dropout", 0.0),
        "use_cls_token": False,
        # transformers' classifier reads the mean of the patches, and leaves the pooling unused
        "readout": "mean" if has(tensors, "classifier") or not has(tensors, _POOLING) else "map",
    }


FAMILIES = (
    Family(
        "transformers SigLIP",
        ("siglip", "siglip_vision_model"),
        _fields,
        TABLE,
        ("vision_model.",),
        ("text_model.*", "logit_scale", "logit_bias", "embeddings.position_ids"),
        always(BICUBIC),
    ),
)
