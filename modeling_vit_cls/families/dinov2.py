"""DINOv2 of transformers, with and without registers (Oquab et al. 2024; Darcet et al. 2024)."""

from collections.abc import Mapping
from typing import Any

from ..configuration_vit_cls import ViTClsConfig
from ..errors import ConfigError
from ..files.tensor import Tensor
from .family import ANY_SIZE, BICUBIC, IMAGENET, Export, Family, common_fields, cropped, has_classifier, labels, square
from .layouts import conv, linear, norm, stacked, tokens, vector
from .vit import attention

COPIED = [
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
        **attention(_block),
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
    ours = {name: fields[name] for name in COPIED if name in fields} | labels(fields)
    ours["patch_size"] = fields.get("patch_size", 16 if registers else 14)
    swiglu = bool(fields.get("use_swiglu_ffn", False))
    if swiglu:  # transformers ignores hidden_act here and always uses SiLU
        ours |= {"mlp": "swiglu", "hidden_act": "silu"}
    ours["intermediate_size"] = mlp_width(fields.get("hidden_size", 768), fields.get("mlp_ratio", 4), swiglu)
    ours["layer_scale_init_value"] = fields.get("layerscale_value", 1.0)
    ours["num_register_tokens"] = fields.get("num_register_tokens", 4) if registers else 0
    ours["position_interpolation"] = "bicubic_antialias" if registers else "bicubic"
    ours["layer_norm_eps"] = fields.get("layer_norm_eps", 1e-6)
    ours["readout"] = "cls_mean" if has_classifier(fields, tensors) else "cls"
    return ours | ANY_SIZE


def mlp_ratio(config: ViTClsConfig) -> int:
    """The `mlp_ratio`, a whole number, that gives our `intermediate_size`. Raises ConfigError if there is none."""
    for ratio in range(1, 17):
        if mlp_width(config.hidden_size, ratio, config.mlp == "swiglu") == config.intermediate_size:
            return ratio
    rule = "must be a whole multiple of hidden_size in DINOv2 (for SwiGLU, two thirds of one)"
    raise ConfigError("intermediate_size", config.intermediate_size, rule)


def mlp_width(hidden_size: int, mlp_ratio: float, swiglu: bool) -> int:
    """The width of the MLP. For SwiGLU it is two thirds of that, rounded up to a multiple of 8."""
    width = int(hidden_size * mlp_ratio)
    return (int(width * 2 / 3) + 7) // 8 * 8 if swiglu else width


def _export(config: ViTClsConfig, has_head: bool) -> Export:
    registers = config.num_register_tokens > 0
    kind = "dinov2_with_registers" if registers else "dinov2"
    name = "Dinov2WithRegisters" if registers else "Dinov2"
    square(config, "transformers' DINOv2")
    if config.layer_scale_init_value is None:
        raise ConfigError("layer_scale_init_value", None, "transformers' DINOv2 always scales: needs a number")
    fields = {
        "architectures": [name + ("ForImageClassification" if has_head else "Model")],
        "model_type": kind,
        **common_fields(config, COPIED, has_head),
        "layer_norm_eps": config.layer_norm_eps,
        "layerscale_value": config.layer_scale_init_value,
        "mlp_ratio": mlp_ratio(config),
        "patch_size": config.patch_size,
        "use_swiglu_ffn": config.mlp == "swiglu",
        **({"num_register_tokens": config.num_register_tokens} if registers else {}),
    }
    without = [f"encoder.layer.{{}}.mlp.{name}" for name in ("fc1", "fc2") if config.mlp == "swiglu"]
    zeros = {"embeddings.mask_token": (1, config.hidden_size)}
    return Export(fields, f"{kind}." if has_head else "", tuple(without), zeros)


_IGNORED = ("embeddings.mask_token", "embeddings.position_ids")
FAMILIES = tuple(
    Family(
        f"transformers {name}",
        _fields,
        TABLE,
        model_types=(kind,),
        prefixes=(f"{kind}.",),
        ignored=_IGNORED,
        processor=cropped(IMAGENET | BICUBIC),
        processor_class="BitImageProcessor",
        export=_export,
    )
    for name, kind in (("DINOv2", "dinov2"), ("DINOv2 with registers", "dinov2_with_registers"))
)
