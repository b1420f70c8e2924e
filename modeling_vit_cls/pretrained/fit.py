"""From a checkpoint's tensors to a model's parameters: other sizes are interpolated, other heads drawn anew."""

from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import unfreeze
from flax.traverse_util import flatten_dict, unflatten_dict

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError
from ..families.family import canonical
from ..families.open import parameter_shapes
from ..files.finite import is_finite
from ..files.tensor import Tensor, to_device
from ..nn import compiled
from ..nn.resampling import resample_patch_kernel, resample_positions
from .report import LoadReport

_PATCHES = "embeddings.patch_embedding.projection.kernel"
POSITIONS = "embeddings.position_embedding.embedding"
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


def fit(
    params: Mapping[str, Any],
    source: ViTClsConfig,
    module: Any,
    key: jax.Array,
    report: LoadReport,
    ignore_mismatched_sizes: bool = False,
) -> Any:
    """Parameters for `module` from those of a model of config `source`, as arrays or unread tensors of a file.

    Only a new head is drawn, from `key`. What is done to each parameter is noted in `report`. Raises CheckpointError
    where the backbones differ.
    """
    target: ViTClsConfig = module.config
    shapes = parameter_shapes(type(module), target)
    names = {canonical(name): name for name in shapes}
    given = {canonical(name): leaf for name, leaf in flatten_dict(unfreeze(dict(params)), sep=".").items()}
    own_shapes = {name: shapes[names[name]] for name in names}
    taken = _adapt(given, own_shapes, source, target, ignore_mismatched_sizes, report)
    flat = to_device({names[name]: leaf for name, leaf in taken.items()}, report.note_nonfinite)
    report.cast_keys += [name for name in taken if str(taken[name].dtype) != str(flat[names[name]].dtype)]
    new = draw(module, key, (*target.image_hw, target.num_channels), [names[name] for name in report.new_keys])
    return unflatten_dict({**flat, **new}, sep=".")


def draw(
    module: nn.Module, key: jax.Array, image_shape: tuple[int, ...], names: Collection[str] | None = None
) -> dict[str, Any]:
    """Initial values of the parameters of these dotted names, None for all, for images of this shape (H, W, C)."""
    if names is not None:
        return compiled.draw(module)(key, image_shape=image_shape, names=frozenset(names)) if names else {}
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = module.lazy_init(key, images)  # one draw after the other: compiling all of them at once takes longer
    return flatten_dict(variables["params"], sep=".")


def _adapt(
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
    if source.grid != target.grid and POSITIONS in tensors and POSITIONS in shapes:
        table = _read(POSITIONS, tensors[POSITIONS], report)
        tensors[POSITIONS] = _interpolate(table, source, target)
        report.interpolated_keys.append(POSITIONS)
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
