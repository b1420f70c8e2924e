"""ViT and DeiT of transformers, with the tensor names of versions 4 and 5. DINO's checkpoints there are ViTs too."""

from collections.abc import Mapping
from typing import Any

from ..configuration_vit_cls import ViTClsConfig
from ..files.tensor import Tensor
from .family import BICUBIC, IMAGENET, Export, Family, always, common_fields, has, has_classifier, labels, refuse_unless
from .layouts import Layouts, conv, linear, norm, tokens

COPIED = [
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
    "image_size",
    "patch_size",
    "num_channels",
    "qkv_bias",
]


def attention(block: str) -> dict[str, Layouts]:
    """The rows of a table for the attention in `block`, with the tensor names of transformers 4 and 5."""
    parts = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
    old = {f"{block}.attention.attention.{part}": linear(f"{{}}.attention.{part}") for part in parts}
    new = {f"{block}.attention.{name}": linear(f"{{}}.attention.{part}") for part, name in parts.items()}
    outs = (f"{block}.attention.output.dense", f"{block}.attention.o_proj")
    return old | new | {name: linear("{}.attention.out") for name in outs}


# transformers 4: encoder.layer.{}; transformers 5: layers.{}
TABLE = {
    "embeddings.cls_token": tokens("embeddings.cls_token"),
    "embeddings.distillation_token": tokens("embeddings.distillation_token"),
    "embeddings.position_embeddings": tokens("embeddings.position_embedding.embedding"),
    "embeddings.patch_embeddings.projection": conv("embeddings.patch_embedding.projection"),
    "layernorm": norm("norm"),
    "pooler.dense": linear("representation"),
    "classifier": linear("classifier"),
    "cls_classifier": linear("classifier"),
    "distillation_classifier": linear("distillation_classifier"),
}
for _block in ("encoder.layer.{}", "layers.{}"):
    TABLE |= {
        f"{_block}.layernorm_before": norm("{}.norm1"),
        **attention(_block),
        f"{_block}.layernorm_after": norm("{}.norm2"),
        f"{_block}.intermediate.dense": linear("{}.mlp.fc1"),
        f"{_block}.output.dense": linear("{}.mlp.fc2"),
        f"{_block}.mlp.fc1": linear("{}.mlp.fc1"),
        f"{_block}.mlp.fc2": linear("{}.mlp.fc2"),
    }


def _fields(fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    ours = {name: fields[name] for name in COPIED if name in fields} | labels(fields)
    ours["layer_norm_eps"] = fields.get("layer_norm_eps", 1e-12)
    if has(tensors, "representation") and not has_classifier(fields, tensors):  # a classifier has no pooler
        refuse_unless(fields, pooler_act="tanh")
        ours["representation_size"] = fields.get("pooler_output_size") or fields.get("hidden_size", 768)
    ours["use_distillation_token"] = fields["model_type"] == "deit"
    architectures = fields.get("architectures")
    with_teacher = bool(architectures) and architectures[0].endswith("WithTeacher")
    ours["use_distillation_head"] = with_teacher or has(tensors, "distillation_classifier")
    return ours


def _export(config: ViTClsConfig, has_head: bool) -> Export:
    kind = "deit" if config.use_distillation_token else "vit"
    name = {"vit": "ViT", "deit": "DeiT"}[kind]
    head = "Model" if not has_head else "ForImageClassification"
    without = ["cls_classifier"]
    if has_head:
        without.append("pooler.dense")  # a classifier has no pooler
        if config.has_distillation_head:
            head, without[0] = "ForImageClassificationWithTeacher", "classifier"
    fields = {
        "architectures": [f"{name}{head}"],
        "model_type": kind,
        **common_fields(config, COPIED, has_head),
        "layer_norm_eps": config.layer_norm_eps,
    }
    if config.representation_size is not None:
        fields |= {"pooler_output_size": config.representation_size, "pooler_act": "tanh"}
    return Export(fields, f"{kind}." if has_head else "", tuple(without))


_IGNORED = ("embeddings.mask_token", "embeddings.position_ids")
FAMILIES = (
    Family(
        "transformers ViT",
        _fields,
        TABLE,
        model_types=("vit",),
        prefixes=("vit.",),
        ignored=_IGNORED,
        processor_class="ViTImageProcessor",
        export=_export,
        unused_by_classifier=("representation.",),
    ),
    Family(
        "transformers DeiT",
        _fields,
        TABLE,
        model_types=("deit",),
        prefixes=("deit.",),
        ignored=_IGNORED,
        processor=always(IMAGENET | BICUBIC),
        processor_class="DeiTImageProcessor",
        export=_export,
        unused_by_classifier=("representation.",),
    ),
)
