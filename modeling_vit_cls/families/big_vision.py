"""npz files of big_vision, AugReg and vision_transformer: Flax layouts with a head axis, tanh GELU, no config."""

from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError
from ..files.tensor import Tensor
from .family import Family, has
from .layouts import conv, heads_in, heads_out, linear, norm, tokens
from .sizes import sizes, square_of_positions

_POOLING = "readout.attention_pooling"
TABLE = {
    "cls": tokens("embeddings.cls_token"),
    "pos_embedding": tokens("embeddings.position_embedding.embedding"),
    "Transformer.posembed_input.pos_embedding": tokens("embeddings.position_embedding.embedding"),
    "embedding": conv("embeddings.patch_embedding.projection"),
    "Transformer.encoder_norm": norm("norm"),
    "pre_logits": linear("representation"),
    "head": linear("classifier"),
    "MAPHead_{}.probe": tokens(f"{_POOLING}.probe"),
    "MAPHead_{}.LayerNorm_0": norm(f"{_POOLING}.norm"),
    "MAPHead_{}.MlpBlock_0.Dense_0": linear(f"{_POOLING}.mlp.fc1"),
    "MAPHead_{}.MlpBlock_0.Dense_1": linear(f"{_POOLING}.mlp.fc2"),
    "Transformer.encoderblock_{}.LayerNorm_0": norm("{}.norm1"),
}
# The second LayerNorm, the attention and the MLP are numbered among modules of their kind, or (older) among all.
for _norm, _attention, _mlp in ((1, 0, 0), (2, 1, 3)):
    TABLE |= {
        f"Transformer.encoderblock_{{}}.LayerNorm_{_norm}": norm("{}.norm2"),
        f"Transformer.encoderblock_{{}}.MlpBlock_{_mlp}.Dense_0": linear("{}.mlp.fc1"),
        f"Transformer.encoderblock_{{}}.MlpBlock_{_mlp}.Dense_1": linear("{}.mlp.fc2"),
        f"Transformer.encoderblock_{{}}.MultiHeadDotProductAttention_{_attention}.out": heads_out("{}.attention.out"),
    }
    for _part in ("query", "key", "value"):
        _name = f"MultiHeadDotProductAttention_{_attention}.{_part}"
        TABLE[f"Transformer.encoderblock_{{}}.{_name}"] = heads_in(f"{{}}.attention.{_part}")
for _part in ("query", "key", "value"):
    TABLE[f"MAPHead_{{}}.MultiHeadDotProductAttention_0.{_part}"] = heads_in(f"{_POOLING}.attention.{_part}")
TABLE["MAPHead_{}.MultiHeadDotProductAttention_0.out"] = heads_out(f"{_POOLING}.attention.out")


def _unstacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split the arrays of scanned blocks, (L, ...) for L blocks, into one tensor per block."""
    scanned = {name: tensor for name, tensor in tensors.items() if name.startswith("Transformer.encoderblock.")}
    depths = [tensor.shape[:1] for tensor in scanned.values()]
    blocks = {name: tensor for name, tensor in tensors.items() if name not in scanned}
    for name, tensor in scanned.items():
        (depth,) = usual = max(set(depths), key=depths.count) or (0,)
        if tensor.shape[:1] != usual:
            expected = f"a first axis of {depth} blocks, as in the other tensors"
            raise CheckpointError(
                f"{tensor.file}: tensor {tensor.name!r} has shape {tensor.shape}, expected {expected}"
            )
        for i in range(depth):
            part = tensor.through(lambda array, i=i: array[i])
            blocks[name.replace("encoderblock.", f"encoderblock_{i}.")] = part
    return blocks


def _fields(_: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    ours = sizes(tensors)
    use_cls_token = has(tensors, "embeddings.cls_token")
    ours |= square_of_positions(tensors, ours["patch_size"], prefix=int(use_cls_token))
    ours |= {
        "use_cls_token": use_cls_token,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "position_interpolation": "bilinear_align_corners",
    }
    query = tensors.get("encoder.layer_00.attention.query.kernel")
    if query is not None and len(query.stored) >= 3:
        ours["num_attention_heads"] = query.stored[-2]  # (D, heads, d)
    if has(tensors, "representation"):
        ours["representation_size"] = tensors["representation.kernel"].shape[-1]
    ours["readout"] = "map" if has(tensors, _POOLING) else "cls" if use_cls_token else "mean"
    return ours


FAMILIES = (
    Family(
        "big_vision and vision_transformer",
        _fields,
        TABLE,
        signature=("Transformer.encoderblock*",),
        prefixes=("opt.target.", "params.", "img."),
        ignored=("txt.*", "t", "b", "opt.*", "chrono.*"),
        prepare=_unstacked,
    ),
)
