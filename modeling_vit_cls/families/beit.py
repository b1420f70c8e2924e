"""BEiT, BEiT v2 and Data2Vec-vision of transformers: relative positions, no bias on the keys, a norm of the mean."""

import re
from collections.abc import Mapping
from typing import Any

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, ConfigError
from ..files.tensor import Tensor
from .family import ANY_SIZE, BICUBIC, Export, Family, always, common_fields, has_classifier, labels, square
from .layouts import norm, vector
from .vit import TABLE as _VIT

_COPIED = [
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
]
_POSITIONS = ("use_relative_position_bias", "use_shared_relative_position_bias", "use_absolute_position_embeddings")
# Names of transformers 4, and those in the memory of transformers 5.
_BIAS = "relative_position_bias.relative_position_bias_table"
_OF_BLOCKS = {
    "encoder.layer.{}": f"encoder.layer.{{}}.attention.attention.{_BIAS}",
    "layers.{}": f"layers.{{}}.{_BIAS}",
}
_SHARED = (f"encoder.{_BIAS}", "shared_position_bias.relative_position_bias_table")

TABLE = {name: rows for name, rows in _VIT.items() if not re.match(r"pooler|cls_classifier|.*distillation", name)}
TABLE |= {"layernorm": norm("norm"), "pooler.layernorm": norm("norm")}
for _block, _table in _OF_BLOCKS.items():
    TABLE |= {_table: vector("{}.relative_positions.embedding")}
    TABLE |= {f"{_block}.lambda_{number}": vector(f"{{}}.layer_scale{number}") for number in (1, 2)}


def _one_for_each_block(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A table of relative positions that all blocks share becomes one of each block: the same scores."""
    blocks = {found[0] for name in tensors if (found := re.match(r"(encoder\.layer|layers)\.\d+", name))}
    names = [_OF_BLOCKS[re.sub(r"\d+", "{}", block)].format(block.rpartition(".")[2]) for block in sorted(blocks)]
    copies = [(name, tensors[shared]) for shared in _SHARED if shared in tensors for name in names]
    for name, tensor in copies:
        if name in tensors:
            problem = f"tensors {tensors[name].name!r} and {tensor.name!r} are both relative positions of a block"
            raise CheckpointError(f"{tensor.file}: {problem}, of which only one is supported")
    return {name: tensor for name, tensor in tensors.items() if name not in _SHARED} | dict(copies)


def _norm_position(fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Where the final norm is: after the mean, in the pooler, or on all tokens.

    BeitForMaskedImageModeling has no pooler, but a norm of the tokens. Data2VecVisionModel has neither.
    """
    if not fields.get("use_mean_pooling", True) or "MaskedImageModeling" in str(fields.get("architectures")):
        return "before_readout"
    has_pooler = fields["model_type"] == "beit" or has_classifier(fields, tensors)
    return "after_readout" if has_pooler else "none"


def _fields(fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    relative, shared, learned = (bool(fields.get(name, False)) for name in _POSITIONS)
    if relative + shared + learned > 1:
        raise CheckpointError(f"config.json: only one of {', '.join(_POSITIONS)} can be true")
    size = fields.get("image_size", 224)
    if (relative or shared) and isinstance(size, list | tuple) and size[0] != size[1]:
        problem = "must be square: transformers mixes rows and columns of other tables of relative positions"
        raise CheckpointError(f"config.json: image_size={size} {problem}")
    norm_position = _norm_position(fields, tensors)
    for tensor in (tensors[name] for name in ("norm.scale", "norm.bias") if name in tensors):
        if ("pooler." in tensor.name) != (norm_position == "after_readout"):
            problem = f"which with use_mean_pooling and architectures of config.json has its norm {norm_position!r}"
            raise CheckpointError(f"{tensor.file.name}: tensor {tensor.name!r} does not belong to the model, {problem}")
    scale = fields.get("layer_scale_init_value", 0.1)
    return {
        **{name: fields[name] for name in _COPIED if name in fields},
        **labels(fields),
        "layer_norm_eps": fields.get("layer_norm_eps", 1e-12),
        "drop_path_rate": fields.get("drop_path_rate", 0.1),
        "layer_scale_init_value": scale if scale > 0 else None,
        "key_bias": False,
        "position_embedding": "relative" if relative or shared else "learned" if learned else "none",
        "position_interpolation": "bicubic" if learned else "bilinear",
        "readout": "mean" if fields.get("use_mean_pooling", True) else "cls",
        "norm_position": norm_position,
        **ANY_SIZE,
    }


def _export(config: ViTClsConfig, has_head: bool) -> Export:
    square(config, "transformers' BEiT")
    if config.readout not in ("mean", "cls"):
        raise ConfigError("readout", config.readout, "must be 'mean' or 'cls' in transformers' BEiT")
    of_mean = config.readout == "mean"
    kind, name = ("beit", "Beit")
    if config.norm_position == "none":  # as in Data2Vec-vision's backbone
        kind, name = ("data2vec-vision", "Data2VecVision")
    fields = {
        "architectures": [name + ("ForImageClassification" if has_head else "Model")],
        "model_type": kind,
        **common_fields(config, [*_COPIED, "layer_norm_eps", "drop_path_rate"], has_head),
        "layer_scale_init_value": config.layer_scale_init_value or 0.0,
        "use_relative_position_bias": True,
        "use_mean_pooling": of_mean,
    }
    prefix = f"{kind.replace('-', '_')}." if has_head else ""
    return Export(fields, prefix, ("layernorm" if of_mean else "pooler.layernorm",))


FAMILIES = tuple(
    Family(
        f"transformers {name}",
        _fields,
        TABLE,
        model_types=(kind,),
        prefixes=(prefix,),
        ignored=("embeddings.mask_token", "*relative_position_index"),
        prepare=_one_for_each_block,
        processor=always(BICUBIC),
        processor_class="BeitImageProcessor",
        export=_export,
    )
    for name, kind, prefix in (
        ("BEiT", "beit", "beit."),
        ("Data2Vec-vision", "data2vec-vision", "data2vec_vision."),
    )
)
