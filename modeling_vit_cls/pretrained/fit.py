"""Fit the tensors of a checkpoint to a model: interpolate to other image and patch sizes, draw new heads."""

from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import unfreeze
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from ..config_rules import FIELD_NAMES
from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError
from ..families.family import canonical
from ..families.open import parameter_shapes
from ..files.finite import is_finite
from ..files.placing import to_mesh
from ..files.tensor import Tensor, to_device
from ..nn import compiled
from ..nn.forks import refuse_in_fork
from ..nn.mesh import mesh_of, place, shardings
from ..nn.positions import resample_relative
from ..nn.resampling import resample_patch_kernel, resample_positions
from .report import LoadReport

_PATCHES = "embeddings.patch_embedding.projection.kernel"
POSITIONS, RELATIVE_POSITIONS = "embeddings.position_embedding.embedding", ".relative_positions.embedding"
# Groups of parameters that may be replaced by new ones. All others belong to the backbone and must be loaded.
_HEADS = ("classifier.", "distillation_classifier.", "readout.attention_pooling.", "representation.")


# Fields that change the outputs but no shape of a parameter.
_SAME_WEIGHTS = (
    "readout",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "position_embedding",
    "rope_theta",
    "norm_position",
    "classifier_input",
)


def fit(
    params: Mapping[str, Any],
    source: ViTClsConfig,
    module: Any,
    key: jax.Array,
    report: LoadReport,
    ignore_mismatched_sizes: bool = False,
    mesh: Mesh | None = None,
) -> Any:
    """Parameters for `module` from `params`, those of a model with config `source`.

    The leaves of `params` are arrays, or tensors of a file that are read here. Only the parameters of a new head are
    drawn, from `key`. All are placed on `mesh`; default: that of `params`, or else JAX's default device. Every change
    is recorded in `report`. Raises CheckpointError if the backbones differ.
    """
    target: ViTClsConfig = module.config
    tensors = {canonical(name): leaf for name, leaf in flatten_dict(unfreeze(dict(params)), sep=".").items()}
    fitted = adapt(tensors, source, module, report, ignore_mismatched_sizes)
    names = {canonical(name): name for name in parameter_shapes(type(module), target)}
    leaves = {names[name]: leaf for name, leaf in fitted.items()}
    leaves |= draw(module, key, (*target.image_hw, target.num_channels), [names[name] for name in report.new_keys])
    mesh = mesh_of(params) if mesh is None else mesh
    note = report.note_nonfinite
    if mesh is None:
        loaded = to_device(leaves, note)
    else:
        unread = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, Tensor)}
        loaded = to_mesh(unread, shardings(unread, mesh), note)
        loaded |= place({name: leaf for name, leaf in leaves.items() if name not in unread}, mesh)
    report.cast_keys += [name for name in fitted if str(fitted[name].dtype) != str(loaded[names[name]].dtype)]
    return unflatten_dict(loaded, sep=".")


def draw(
    module: nn.Module, key: jax.Array, image_shape: tuple[int, ...], names: Collection[str] | None = None
) -> dict[str, Any]:
    """Initial values of the parameters in `names` (dotted; None for all), for images of shape (H, W, C)."""
    if names is not None:
        return compiled.draw(module)(key, image_shape=image_shape, names=frozenset(names)) if names else {}
    refuse_in_fork()
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = module.lazy_init(key, images)  # not compiled as one function, which would take longer
    return flatten_dict(variables["params"], sep=".")


def adapt(
    tensors: Mapping[str, Any],
    source: ViTClsConfig,
    module: Any,
    report: LoadReport,
    ignore_mismatched_sizes: bool = False,
) -> dict[str, Any]:
    """The tensors of a checkpoint with config `source` that `module` uses; names are canonical.

    A tensor of a file is read only if it must be interpolated, as position embeddings and the patch embedding are for
    another grid and patch size. A head may be new, dropped, or of another width. Parameters of a new head are not in
    the result; `report.new_keys` lists them. Raises CheckpointError if the backbones differ.
    """
    target: ViTClsConfig = module.config
    shapes = {canonical(name): shape for name, shape in parameter_shapes(type(module), target).items()}
    tensors = dict(tensors)
    report.changed_fields += [name for name in _SAME_WEIGHTS if getattr(source, name) != getattr(target, name)]
    if source.patch_size != target.patch_size and _PATCHES in tensors:
        kernel = _read(_PATCHES, tensors[_PATCHES], report)
        tensors[_PATCHES] = resample_patch_kernel(kernel, target.patch_size, target.position_interpolation)
        report.interpolated_keys.append(_PATCHES)
    tables = [name for name in tensors if name in shapes and (name == POSITIONS or name.endswith(RELATIVE_POSITIONS))]
    for name in tables if source.grid != target.grid else ():
        table = _read(name, tensors[name], report)
        tensors[name] = _interpolate(table, source, target)
        report.interpolated_keys.append(name)
    mismatched = {
        name: f"has shape {tensors[name].shape}, the model expects {shapes[name].shape}"
        for name in tensors
        if name in shapes and tensors[name].shape != shapes[name].shape
    }
    changed = [name for name in FIELD_NAMES if getattr(source, name) != getattr(target, name)]
    changes = ", ".join(f"{name}={getattr(target, name)!r}" for name in changed)
    replaced = tuple({_head_of(name, difference, changes) for name, difference in mismatched.items()})
    if mismatched and not _head_changes(source, target, ignore_mismatched_sizes):
        name, difference = next(iter(mismatched.items()))
        raise CheckpointError(f"tensor {name!r} {difference}; pass ignore_mismatched_sizes=True for a new head")
    report.mismatched_keys += mismatched
    kept = {name: array for name, array in tensors.items() if name in shapes and not name.startswith(replaced)}
    report.dropped_keys += [
        name for name in tensors if name not in shapes and _head_of(name, "is not in the model", changes)
    ]
    absent = sorted(set(shapes) - set(kept) - set(report.missing_keys))
    report.new_keys += [name for name in absent if _head_of(name, "is not in the checkpoint", changes)]
    return kept


def _head_changes(source: ViTClsConfig, target: ViTClsConfig, ignore_mismatched_sizes: bool) -> bool:
    fields = ("num_labels", "readout", "representation_size", "classifier_input")
    return ignore_mismatched_sizes or any(getattr(source, f) != getattr(target, f) for f in fields)


def _head_of(name: str, problem: str, changes: str) -> str:
    """The group in `_HEADS` that a parameter belongs to.

    Raises CheckpointError for a parameter of the backbone, with the changes of the config.
    """
    for head in _HEADS:
        if name.startswith(head):
            return head
    rule = (
        f"the new config differs in the backbone, but only a head may be drawn anew (changed: {changes or 'nothing'})"
    )
    raise CheckpointError(f"tensor {name!r} {problem}: {rule}")


def _read(name: str, tensor: Any, report: LoadReport) -> Any:
    if not isinstance(tensor, Tensor):
        return tensor
    array = tensor.read()
    if tensor.digest is None and not is_finite(array):
        report.note_nonfinite(name, tensor.file)
    return array


def _interpolate(table: Any, source: ViTClsConfig, target: ViTClsConfig) -> jax.Array:
    """Learned positions (prefix + N, D), or a table of relative ones, on the target's grid.

    The rows of the prefix, and those of [CLS], are unchanged.
    """
    if source.position_embedding == "relative":
        return resample_relative(jnp.asarray(table), source.grid, target.grid, target.position_interpolation)
    rows, columns = source.grid
    prefix, patches = jnp.split(jnp.asarray(table), [table.shape[0] - rows * columns])
    patches = resample_positions(patches, source.grid, target.grid, target.position_interpolation)
    return jnp.concatenate([prefix, patches])
