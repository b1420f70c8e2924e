"""C-RADIO (Heinrich et al. 2025) in NVIDIA's names: cropped positions, no final norm, several [CLS] tokens.

A summary of the image is read from the first [CLS] tokens, one for each of some teachers. The other [CLS] tokens are
read by nobody and have no positions: they are registers here.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, ConfigError
from ..files.tensor import Tensor
from ..images.processor_classes import CLIP
from .family import ANY_SIZE, BICUBIC, Export, Family, common_fields, has, refuse_unless, square
from .layouts import Layout, conv_of_patches, linear, norm, qkv, tokens, vector
from .sizes import shape_of, sizes, square_of_positions

_NATIVE = ["hidden_size", "num_hidden_layers", "num_attention_heads", "num_channels", "patch_size", "hidden_act"]
_NATIVE += ["hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "initializer_range", "qkv_bias"]
_CLS, _REGISTERS, _SUMMARY = "embeddings.cls_token", "embeddings.register_tokens", "summary_idxs"
_ALIGNS_CORNERS = r"c-radio_v3-[bh]"  # NVIDIA's code beside the weights of these versions

# [CLS] tokens and registers are one tensor, which `_split_tokens` splits once the number of the former is known.
_TOKENS = Layout((_CLS, _REGISTERS), lambda array: [array, array[:0]], np.concatenate)
TABLE = {
    "patch_generator.embedder": conv_of_patches("embeddings.patch_embedding.projection"),
    "patch_generator.pos_embed": tokens("embeddings.position_embedding.embedding"),
    "patch_generator.cls_token.token": {"": _TOKENS},
    "summary_idxs": vector(_SUMMARY),
    "blocks.{}.norm1": norm("{}.norm1"),
    "blocks.{}.attn.qkv": qkv("{}.attention"),
    "blocks.{}.attn.proj": linear("{}.attention.out"),
    "blocks.{}.norm2": norm("{}.norm2"),
    "blocks.{}.mlp.fc1": linear("{}.mlp.fc1"),
    "blocks.{}.mlp.fc2": linear("{}.mlp.fc2"),
}
for _number in (1, 2):  # the names of transformers, of NVIDIA, and of timm
    for _name in (f"layer_scale{_number}.lambda1", f"ls{_number}.grandma", f"ls{_number}.gamma"):
        TABLE[f"blocks.{{}}.{_name}"] = vector(f"{{}}.layer_scale{_number}")


def _fields(fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """From the config of transformers, or from that of NVIDIA's own code, which has no sizes."""
    refuse_unless(fields, use_swiglu_ffn=False, vitdet_window_size=None, feature_normalizer_config=None)
    (summaries,), (count, _) = shape_of(tensors, _SUMMARY, 1), shape_of(tensors, _CLS, 2)
    read = fields.get("summary_idxs") or [0] * summaries
    if len(read) != summaries or not 1 <= summaries <= count or tensors[_SUMMARY].dtype != "int64":
        problem = f"has {summaries} {tensors[_SUMMARY].dtype} for {count} tokens, config.json has summary_idxs={read}"
        raise CheckpointError(f"tensor {tensors[_SUMMARY].name!r} {problem}")
    ours = sizes(tensors) | {name: fields[name] for name in _NATIVE if name in fields}
    if "mlp_ratio" in fields:
        ours["intermediate_size"] = int(ours["hidden_size"] * fields["mlp_ratio"])
    is_scaled = has(tensors, "encoder.layer_00.layer_scale1")  # transformers takes what is missing as 1
    aligns = re.fullmatch(_ALIGNS_CORNERS, str(fields.get("version")))
    return {
        **ours,
        **square_of_positions(tensors, ours["patch_size"], prefix=0),
        "patch_bias": False,
        "layer_norm_eps": fields.get("layer_norm_eps", 1e-6),
        "layer_scale_init_value": fields.get("layerscale_value", 1.0) if is_scaled else None,
        "num_cls_tokens": summaries,
        "num_register_tokens": count - summaries,
        "position_embedding_tokens": "patches",
        "position_interpolation": "cpe_align_corners" if aligns else "cpe",
        "readout": "cls_concat",
        "norm_position": "none",
        "architectures": ["ViTClsModel"],
        **ANY_SIZE,
    }


def _split_tokens(_: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with [CLS] tokens and registers apart. The indices of the summary are checked when these are read."""
    indices, together = tensors[_SUMMARY], tensors[_CLS]
    count = indices.shape[0]

    def first() -> np.ndarray:
        if indices.view().tolist() != list(range(count)):
            problem = f"{indices.view().tolist()} is not supported, only the first tokens: {list(range(count))}"
            raise CheckpointError(f"{indices.file}: tensor {indices.name!r}: {problem}")
        return together.view()[:count]

    cls = together.through(lambda array: array[:count])._replace(view=first)
    registers = together.through(lambda array: array[count:])
    rest = {name: tensor for name, tensor in tensors.items() if name not in (_SUMMARY, _REGISTERS)}
    return rest | {_CLS: cls} | ({_REGISTERS: registers} if registers.shape[0] else {})


def _processor(fields: dict[str, Any], _: ViTClsConfig) -> dict[str, Any]:
    height, width = fields.get("preferred_resolution") or (512, 512)
    mean, std = (fields.get(f"norm_{name}") or CLIP[f"image_{name}"] for name in ("mean", "std"))
    return {**BICUBIC, "size": {"height": height, "width": width}, "image_mean": list(mean), "image_std": list(std)}


def _export(config: ViTClsConfig, has_head: bool) -> Export:
    """The model in transformers normalises pixels itself. Ours expects them normalised: mean 0, deviation 1."""
    if has_head:
        rule = "transformers has no classifier on C-RADIO: export the backbone, FlaxViTClsModel"
        raise ConfigError("num_labels", config.num_labels, rule)
    count, width, channels = config.num_cls_tokens, config.hidden_size, config.num_channels
    ratio = config.intermediate_size / width
    fields = {
        "architectures": ["RadioModel"],
        "model_type": "radio",
        **common_fields(config, [*_NATIVE, "layer_norm_eps"], has_head),
        "mlp_ratio": ratio if int(width * ratio) == config.intermediate_size else ratio + 0.5 / width,
        "layerscale_value": config.layer_scale_init_value or 1.0,
        "max_img_size": square(config, "transformers' C-RADIO"),
        "num_cls_tokens": count,
        "num_registers": config.num_register_tokens,
        "summary_idxs": list(range(count)),
        "norm_mean": [0.0] * channels,
        "norm_std": [1.0] * channels,
    }
    conditioner = "radio_model.input_conditioner.norm_"
    constants = {
        "radio_model.summary_idxs": np.arange(count, dtype=np.int64),
        f"{conditioner}mean": np.zeros((channels, 1, 1), np.float32),
        f"{conditioner}std": np.ones((channels, 1, 1), np.float32),
    }
    return Export(fields, "radio_model.model.", finish=lambda arrays: arrays | constants)


FAMILIES = (
    Family(
        "transformers C-RADIO",
        _fields,
        TABLE,
        model_types=("radio",),
        signature=("patch_generator.*",),
        prefixes=("radio_model.", "model."),
        ignored=("adaptors.*", "input_conditioner.*", "patch_generator.video_embedder.*"),
        merge=_split_tokens,
        processor=_processor,
        processor_class="CLIPImageProcessor",
        normalizes=True,
        export=_export,
    ),
)
