"""timm's VisionTransformer, Eva and Beit: fused qkv; its config.json names the architecture and its arguments."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import CheckpointError, shorten
from ..files.tensor import Tensor
from .family import Family, has
from .layouts import conv, linear, norm, qkv, stacked, tokens, vector
from .sizes import sizes
from .timm_architectures import ARCHITECTURES
from .timm_arguments import arguments, overridden
from .timm_export import export
from .timm_processor import image_size, labels, processor

_ACT_LAYERS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu", "silu": "silu"}
READOUTS = {"token": "cls", "avg": "mean", "map": "map", "": "cls"}  # ours by timm's global_pool
WRAPPER = "timm_wrapper"  # the model_type of a model of timm inside transformers
_WRAPPED = "timm_model."  # the beginning of its tensors' names
_POSITIONS, _REGISTERS = "embeddings.position_embedding.embedding", "embeddings.register_tokens"
_POOLING = "readout.attention_pooling"
TABLE = {
    "cls_token": tokens("embeddings.cls_token"),
    "reg_token": tokens("embeddings.register_tokens"),
    "dist_token": tokens("embeddings.distillation_token"),
    "pos_embed": tokens("embeddings.position_embedding.embedding"),
    "patch_embed.proj": conv("embeddings.patch_embedding.projection"),
    "norm_pre": norm("pre_norm"),
    "norm": norm("norm"),
    "fc_norm": norm("norm"),
    "head": linear("classifier"),
    "head_dist": linear("distillation_classifier"),
    "attn_pool.latent": tokens(f"{_POOLING}.probe"),
    "attn_pool.q": linear(f"{_POOLING}.attention.query"),
    "attn_pool.kv": stacked(f"{_POOLING}.attention.key", f"{_POOLING}.attention.value"),
    "attn_pool.proj": linear(f"{_POOLING}.attention.out"),
    "attn_pool.norm": norm(f"{_POOLING}.norm"),
    "attn_pool.mlp.fc1": linear(f"{_POOLING}.mlp.fc1"),
    "attn_pool.mlp.fc2": linear(f"{_POOLING}.mlp.fc2"),
    "blocks.{}.norm1": norm("{}.norm1"),
    "blocks.{}.attn.qkv": qkv("{}.attention"),
    "blocks.{}.attn.proj": linear("{}.attention.out"),
    "blocks.{}.ls1.gamma": vector("{}.layer_scale1"),
    "blocks.{}.norm2": norm("{}.norm2"),
    "blocks.{}.mlp.fc1": linear("{}.mlp.fc1"),
    "blocks.{}.mlp.fc2": linear("{}.mlp.fc2"),
    "blocks.{}.ls2.gamma": vector("{}.layer_scale2"),
}
_PACKED = {"blocks.{}.mlp.fc1": stacked("{}.mlp.gate", "{}.mlp.fc1")}  # of SwiGLUPacked
_SPLIT = {"blocks.{}.mlp.fc1_g": linear("{}.mlp.gate"), "blocks.{}.mlp.fc1_x": linear("{}.mlp.fc1")}
_EVA_ROWS = {
    "blocks.{}.attn.qkv": {"weight": qkv("{}.attention")["weight"]},
    "blocks.{}.attn.q_bias": vector("{}.attention.query.bias"),
    "blocks.{}.attn.v_bias": vector("{}.attention.value.bias"),
    "blocks.{}.gamma_1": vector("{}.layer_scale1"),
    "blocks.{}.gamma_2": vector("{}.layer_scale2"),
    **_SPLIT,
}
_EVA = _EVA_ROWS | TABLE | _EVA_ROWS  # the names of timm's Eva class come first, and replace those of TABLE
_BEIT = _EVA | {"blocks.{}.attn.relative_position_bias_table": vector("{}.relative_positions.embedding")}


def _fields(fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The config of the model that timm's create_model("local-dir:...") builds.

    Its arguments come from `model_args`, or else from the name of the architecture. Which MLP it has, timm is told by a
    class in Python, so that it shows in the tensors alone.
    """
    built, given = arguments(fields), fields.get("model_args") or {}
    classes, pool = _num_classes(fields, given), built["global_pool"]
    _refuse_readouts(classes, built)
    gated = built["swiglu_mlp"] or (not built["eva"] and has(tensors, "encoder.layer_00.mlp.gate"))
    act = built["act_layer"] or ("silu" if gated else "gelu")
    fc_norm = pool == "avg" if built["fc_norm"] is None else bool(built["fc_norm"])
    _refuse_norms(tensors, fc_norm)
    ours = sizes(tensors) | {
        "num_hidden_layers": built["depth"],
        "num_attention_heads": built["num_heads"],
        "image_size": image_size(fields, given),
        "qkv_bias": bool(built["qkv_bias"]),
        "layer_scale_init_value": built["init_values"] or None,
        "mlp": "swiglu" if gated else "mlp",
        "hidden_act": "silu" if gated and built["eva"] else _ACT_LAYERS.get(act, act),
        "layer_norm_eps": built["eps"],
        "pre_norm": bool(built["pre_norm"]),
        "patch_bias": not built["pre_norm"],
        "use_cls_token": bool(built["class_token"]),
        "use_distillation_token": built["distilled"],
        "num_register_tokens": built["reg_tokens"],
        "position_embedding_tokens": "patches" if built["no_embed_class"] and built["class_token"] else "all",
        "position_interpolation": _interpolation(built),
        "readout": "mean" if pool == "" and not built["class_token"] else READOUTS[pool],
        "norm_position": "none" if not built["final_norm"] else "after_readout" if fc_norm else "before_readout",
        "architectures": ["ViTClsForImageClassification" if classes else "ViTClsModel"],
        "dynamic_image_size": bool(built["dynamic_img_size"]),
    }
    if built["eva"]:
        ours["key_bias"] = False
    if built["rope"] or built["relative"]:
        ours["position_embedding"] = "rope" if built["rope"] else "relative"
    if not classes:
        return ours
    kept = {name: fields[name] for name in ("id2label", "problem_type") if fields.get(name)}  # of transformers' wrapper
    return ours | {"num_labels": classes} | kept | labels(fields, classes)


def _interpolation(built: dict[str, Any]) -> str:
    """How timm resamples positions: in each call always in one way, and those of FlexiViT in another when it loads."""
    return "bicubic_antialias" if built["dynamic_img_size"] else built["interpolation"]


def _without_positions(fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in which registers have no positions, as in our model: what they had is added to the registers.

    Half precision becomes float32, in which timm adds them.
    """
    built, ours = arguments(fields), dict(tensors)
    if built["no_embed_class"] or not built["reg_tokens"] or not {_POSITIONS, _REGISTERS} <= set(ours):
        return ours
    table, registers, first = ours[_POSITIONS], ours[_REGISTERS], bool(built["class_token"]) + built["distilled"]
    rows = slice(first, first + built["reg_tokens"])
    dtype = "float32" if registers.dtype in ("float16", "bfloat16") else registers.dtype

    def added() -> np.ndarray:
        return registers.view().astype(dtype) + table.view()[rows].astype(dtype)

    ours[_REGISTERS] = registers._replace(view=added, dtype=dtype, offset=None, digest=None)
    ours[_POSITIONS] = table.through(lambda array: np.delete(array, rows, axis=0))
    return ours


def _unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with the two halves of SwiGLUPacked's `fc1` as Eva has them, `fc1_g` and `fc1_x`.

    Such an `fc1` has twice as many rows as `fc2` has columns.
    """
    weights = {name: tensor for name, tensor in tensors.items() if name.endswith("mlp.fc2.weight")}
    rows = [tensors[name] for name in (name.replace("fc2", "fc1") for name in weights) if name in tensors]
    widths = {2 * tensor.shape[1] for tensor in weights.values() if len(tensor.shape) == 2}
    if not widths & {tensor.shape[0] for tensor in rows}:
        return dict(tensors)
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        before, is_fc1, parameter = name.partition(".mlp.fc1.")
        half = tensor.shape[0] // 2 if is_fc1 else 0
        if half:
            result[f"{before}.mlp.fc1_g.{parameter}"] = tensor.through(lambda array, half=half: array[:half])
            result[f"{before}.mlp.fc1_x.{parameter}"] = tensor.through(lambda array, half=half: array[half:])
        else:
            result[name] = tensor
    return result


def _num_classes(fields: dict[str, Any], given: dict[str, Any]) -> int:
    """The number of classes, 0 without a head. Raises CheckpointError if timm would replace the file's head."""
    if fields.get("model_type") == WRAPPER and fields.get("architectures") == ["TimmWrapperModel"]:
        return 0  # whatever its config.json has for num_classes
    count = fields.get("num_classes", (fields.get("pretrained_cfg") or {}).get("num_classes", 1000))
    if given.get("num_classes", count) != count:
        problem = f"num_classes={count!r}, but model_args has {given['num_classes']!r}: timm would draw a new head"
        raise CheckpointError(f"config.json: {problem}")
    if not isinstance(count, int) or count < 0:
        raise CheckpointError(f"config.json: num_classes={count!r} must be a number of classes, 0 for no head")
    return count


def _refuse_norms(tensors: Mapping[str, Tensor], fc_norm: bool) -> None:
    """Raise CheckpointError for a norm at the other place, before or after pooling; ours has the same name at both."""
    for tensor in (tensors[key] for key in ("norm.scale", "norm.bias") if key in tensors):
        if ("fc_norm" in tensor.name.split(".")) != fc_norm:
            expected = "fc_norm, after the pooling" if fc_norm else "norm, before the pooling"
            problem = f"has tensor {tensor.name!r}, but timm builds {expected}"
            raise CheckpointError(f"{tensor.file.name}: {problem}; check fc_norm and global_pool in config.json")


def _refuse_readouts(classes: int, built: dict[str, Any]) -> None:
    """Raise CheckpointError for a readout of timm that none of ours computes."""
    pool, has_prefix = built["global_pool"], bool(built["class_token"] or built["reg_tokens"])
    if pool not in READOUTS:
        supported = ", ".join(map(repr, READOUTS))
        raise CheckpointError(f"config.json: global_pool={shorten(pool)} is not supported, only {supported}")
    if built["distilled"] and pool != "token":
        raise CheckpointError(f"config.json: global_pool={pool!r}: timm's distilled models have 'token' alone")
    if pool == "map" and has_prefix and not built["pool_include_prefix"]:
        problem = (
            "global_pool='map' with [CLS] or registers is not supported: timm leaves them out, ours pools all tokens"
        )
        raise CheckpointError(f"config.json: {problem}")
    if pool == "avg" and has_prefix and built["pool_include_prefix"]:
        problem = "pool_include_prefix with global_pool='avg' is not supported: our mean is that of the patches"
        raise CheckpointError(f"config.json: {problem}")
    if pool == "" and classes:
        raise CheckpointError(
            "config.json: global_pool='' with a classifier is not supported: it classifies each token"
        )
    if built["distilled"] and not classes:
        problem = "a distilled backbone without a head is not supported: timm averages both tokens, ours reads [CLS]"
        raise CheckpointError(f"config.json: {problem}")


def _names(**arguments: Any) -> str:
    """A regular expression for the architectures that are built with these arguments."""
    return "|".join(name for name, built in ARCHITECTURES.items() if arguments.items() <= built.items())


FAMILIES = tuple(
    Family(
        f"timm {kind}",
        _fields,
        table,
        architectures=architectures,
        prefixes=(_WRAPPED,),
        ignored=("mask_token",),
        prepare=prepare,
        merge=_without_positions,
        override=overridden,
        processor=processor,
        export=export,
    )
    for kind, architectures, table, prepare in (
        ("ViT", _names(eva=False, swiglu_mlp=False), TABLE | _SPLIT, _unpacked),
        ("DINOv2 giant", _names(eva=False, swiglu_mlp=True), TABLE | _PACKED, dict),
        ("Eva", _names(eva=True, relative=False), _EVA, dict),
        ("BEiT", _names(relative=True), _BEIT, dict),
    )
)
