"""DINOv2 of transformers, with and without registers (Oquab et al. 2024; Darcet et al. 2024)."""

from collections.abc import Mapping
from typing import Any

from ..weights import Tensor
from .table import BICUBIC, IMAGENET, Family, always, conv, has, labels, linear, norm, stacked, tokens, vector

_COPIED = [
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
    "image_size",
    "num_channels",
    "qkv_bias",
    "drop_path_rate",
]

TABLE = {
    "embeddings.cls_token": tokens("embeddings.cls_token"),
    "embeddings.register_tokens": tokens("embeddings.register_tokens"),
    "embeddings.position_embeddings": tokens("embeddings.position_embedding.embedding"),
    "embeddings.patch_embeddings.projection": conv("embeddings.patch_embedding.projection"),
    "layernorm": norm("norm"),
    "classifier": linear("classifier"),
}
for _block in ("encoder.layer.{}", "layers.{}", "layer.{}"):
    TABLE |= {
        f"{_block}.norm1": norm("{}.norm1"),
        f"{_block}.attention.attention.query": linear("{}.attention.query"),
        f"{_block}.attention.attention.key": linear("{}.attention.key"),
        f"{_block}.attention.attention.value": linear("{}.attention.value"),
        f"{_block}.attention.output.dense": linear("{}.attention.out"),
        f"{_block}.attention.q_proj": linear("{}.attention.query"),
        f"{_block}.attention.k_proj": linear("{}.attention.key"),
        f"{_block}.attention.v_proj": linear("{}.attention.value"),
        f"{_block}.attention.o_proj": linear("{}.attention.out"),
        f"{_block}.layer_scale1.lambda1": vector("{}.layer_scale1"),
        f"{_block}.norm2": norm("{}.norm2"),
        f"{_block}.mlp.fc1": linear("{}.mlp.fc1"),
        f"{_block}.mlp.fc2": linear("{}.mlp.fc2"),
        f"{_block}.mlp.weights_in": stacked("{}.mlp.gate", "{}.mlp.fc1"),
        f"{_block}.mlp.weights_out": linear("{}.mlp.fc2"),
        f"{_block}.mlp.gate_proj": linear("{}.mlp.gate"),
        f"{_block}.mlp.up_proj": linear("{}.mlp.fc1"),
        f"{_block}.mlp.down_proj": linear("{}.mlp.fc2"),
        f"{_block}.layer_scale2.lambda1": vector("{}.layer_scale2"),
    }


def _fields(fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    registers = fields["model_type"] == "dinov2_with_registers"
    ours = {name: fields[name] for name in _COPIED if name in fields} | labels(fields)
    ours["patch_size"] = fields.get("patch_size", 16 if registers else 14)
    hidden = int(fields.get("hidden_size", 768) * fields.get("mlp_ratio", 4))
    if fields.get("use_swiglu_ffn", False):  # the gate is always SiLU, whatever hidden_act says
        hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
        ours |= {"mlp": "swiglu", "hidden_act": "silu"}
    ours["intermediate_size"] = hidden
    ours["layer_scale_init_value"] = fields.get("layerscale_value", 1.0)
    ours["num_register_tokens"] = fields.get("num_register_tokens", 4) if registers else 0
    ours["position_interpolation"] = "bicubic_antialias" if registers else "bicubic"
    ours["layer_norm_eps"] = fields.get("layer_norm_eps", 1e-6)
    ours["readout"] = "cls_mean" if has(tensors, "classifier") else "cls"
    return ours


_IGNORED = ("embeddings.mask_token",)
FAMILIES = (
    Family("transformers DINOv2", ("dinov2",), _fields, TABLE, ("dinov2.",), _IGNORED, always(IMAGENET | BICUBIC)),
    Family(
        "transformers DINOv2 with registers",
        ("dinov2_with_registers",),
        _fields,
        TABLE,
        ("dinov2_with_registers.",),
        _IGNORED,
        always(IMAGENET | BICUBIC),
    ),
)
