"""From the config that a checkpoint was saved with to the one that is asked for: other sizes, other heads."""

from typing import Any

import jax
import jax.numpy as jnp

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError
from ..files.finite import is_finite
from ..files.tensor import Tensor
from ..nn.resampling import resample_patch_kernel, resample_positions
from .report import LoadReport

_PATCHES = "embeddings.patch_embedding.projection.kernel"
_POSITIONS = "embeddings.position_embedding.embedding"
# What a new head may replace, each group whole. Everything else is the backbone, which is loaded or refused.
_HEADS = ("classifier.", "distillation_classifier.", "readout.attention_pooling.", "representation.")


# Fields that change what a backbone computes without changing the shape of any weight.
_SAME_WEIGHTS = (
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "position_embedding",
    "rope_theta",
    "norm_position",
)


def adapt(
    tensors: dict[str, Any],
    shapes: dict[str, jax.ShapeDtypeStruct],
    source: ViTClsConfig,
    target: ViTClsConfig,
    ignore_mismatched_sizes: bool,
    report: LoadReport,
) -> dict[str, Any]:
    """The tensors that `target` takes over from a checkpoint of config `source`; names are canonical.

    Position embeddings of another grid and a patch embedding of another patch size are interpolated. A head may be new,
    dropped, or of another width; what is new stays out of the result and is listed in `report.new_keys`. Raises
    CheckpointError where the backbones differ.
    """
    tensors = dict(tensors)
    report.changed_fields += [name for name in _SAME_WEIGHTS if getattr(source, name) != getattr(target, name)]
    if source.patch_size != target.patch_size and _PATCHES in tensors:
        tensors[_PATCHES] = resample_patch_kernel(_read(_PATCHES, tensors[_PATCHES], report), target.patch_size)
        report.interpolated_keys.append(_PATCHES)
    if source.grid != target.grid and _POSITIONS in tensors and _POSITIONS in shapes:
        table = _read(_POSITIONS, tensors[_POSITIONS], report)
        tensors[_POSITIONS] = _interpolate(table, source, target)
        report.interpolated_keys.append(_POSITIONS)
    mismatched = {
        name: f"has shape {tensors[name].shape}, the model asks for {shapes[name].shape}"
        for name in tensors
        if name in shapes and tensors[name].shape != shapes[name].shape
    }
    replaced = tuple({_head_of(name, difference) for name, difference in mismatched.items()})
    if mismatched and not _head_changes(source, target, ignore_mismatched_sizes):
        name, difference = next(iter(mismatched.items()))
        raise CheckpointError(f"tensor {name!r} {difference}; pass ignore_mismatched_sizes=True for a new head")
    report.mismatched_keys += mismatched
    taken = {name: array for name, array in tensors.items() if name in shapes and not name.startswith(replaced)}
    report.dropped_keys += [name for name in tensors if name not in shapes and _head_of(name, "has no place")]
    absent = sorted(set(shapes) - set(taken) - set(report.missing_keys))
    report.new_keys += [name for name in absent if _head_of(name, "is not in the checkpoint")]
    return taken


def _head_changes(source: ViTClsConfig, target: ViTClsConfig, ignore_mismatched_sizes: bool) -> bool:
    fields = ("num_labels", "readout", "representation_size")
    return ignore_mismatched_sizes or any(getattr(source, f) != getattr(target, f) for f in fields)


def _head_of(name: str, problem: str) -> str:
    """The group of a head's parameter. Raises CheckpointError for one of the backbone."""
    for head in _HEADS:
        if name.startswith(head):
            return head
    raise CheckpointError(
        f"tensor {name!r} {problem}: the config asked for differs in the backbone, and only a head may be drawn anew"
    )


def _read(name: str, tensor: Any, report: LoadReport) -> Any:
    if not isinstance(tensor, Tensor):
        return tensor
    array = tensor.read()
    if tensor.digest is None and not is_finite(array):
        report.note_nonfinite(name, tensor.file)
    return array


def _interpolate(table: Any, source: ViTClsConfig, target: ViTClsConfig) -> jax.Array:
    """Learned positions (prefix + N, D) to the target's grid; the prefix rows stay."""
    rows, columns = source.grid
    prefix, patches = jnp.split(jnp.asarray(table), [table.shape[0] - rows * columns])
    patches = resample_positions(patches, source.grid, target.grid, target.position_interpolation)
    return jnp.concatenate([prefix, patches])
