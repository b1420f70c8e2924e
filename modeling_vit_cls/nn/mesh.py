"""One mesh of devices for everything that runs, and a table that says how it divides each parameter, by name.

The axes are "data" (each device has its own images), "fsdp" (its own images, and a part of every parameter) and
"tensor" (a part of the heads and of the MLP, for the same images). Every mesh has all three; an axis that is not used
has size 1, and one device is a mesh of size 1.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ..configuration_vit_cls import ViTClsConfig
from ..errors import ConfigError, did_you_mean
from .scan import is_stacked

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))  # the partition of examples

# From the end of a parameter's name to its partition: Linear kernels have shape (inputs, outputs). Other parameters
# (norms, biases of outputs, tokens, scales) are whole on each device. Megatron-LM: Shoeybi et al. 2019, section 3.
_TABLE: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"attention\.(query|key|value)\.kernel|mlp\.(fc1|gate)\.kernel", ("fsdp", "tensor")),
    (r"attention\.(query|key|value)\.bias|mlp\.(fc1|gate)\.bias", ("tensor",)),
    (r"attention\.out\.kernel|mlp\.fc2\.kernel", ("tensor", "fsdp")),
    (r"patch_embedding\.projection\.kernel", (None, None, None, "fsdp")),
    (r"position_embedding\.embedding", (None, "fsdp")),
    (r"((distillation_)?classifier|representation|projection)\.kernel", ("fsdp", None)),
)
_PARTITIONS = tuple((re.compile(rf"(^|\.)({pattern})$"), axes) for pattern, axes in _TABLE)


def make_mesh(text: str = "data=-1", devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh from a text such as "data=-1,fsdp=8": the size of each axis, of which one may be -1, for the rest.

    Axes that are not named have size 1. `devices`: default all devices of all processes. Raises ConfigError, with the
    number of devices, for an unknown axis and for sizes that do not divide the devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = dict.fromkeys(AXES, 1)
    for part in text.replace(" ", "").split(",") if isinstance(text, str) else [""]:
        axis, _, size = part.partition("=")
        if axis not in AXES or not re.fullmatch(r"-1|[1-9]\d*", size):
            hint = did_you_mean(axis, AXES)
            raise ConfigError("mesh", text, f"must be like 'data=-1,fsdp=8', of the axes {', '.join(AXES)}{hint}")
        sizes[axis] = int(size)
    known = math.prod(size for size in sizes.values() if size > 0)
    if list(sizes.values()).count(-1) > 1:
        raise ConfigError("mesh", text, "only one axis may have size -1")
    shape = [len(devices) // known if size < 0 else size for size in sizes.values()]
    if math.prod(shape) != len(devices):
        rule = f"gives {known} devices" if -1 not in sizes.values() else f"needs a multiple of {known} devices"
        raise ConfigError("mesh", text, f"{rule}, but there are {len(devices)}")
    return Mesh(np.array(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def checked_mesh(mesh: Any, config: ViTClsConfig) -> Mesh:
    """A user's mesh with automatic axes, as the models need. Raises ConfigError if it does not fit the model."""
    if isinstance(mesh, str):
        mesh = make_mesh(mesh)
    if not isinstance(mesh, Mesh) or tuple(mesh.axis_names) != AXES:
        names = tuple(mesh.axis_names) if isinstance(mesh, Mesh) else type(mesh).__name__
        raise ConfigError("mesh", names, f"must be a jax.sharding.Mesh with the axes {AXES}, as make_mesh returns")
    tensor = mesh.shape["tensor"]
    for name in ("num_attention_heads", "intermediate_size"):
        if getattr(config, name) % tensor:
            raise ConfigError("mesh", f"tensor={tensor}", f"must divide {name}={getattr(config, name)}")
    return Mesh(mesh.devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def partition(name: str, shape: Sequence[int], mesh: Mesh) -> PartitionSpec:
    """The partition of an array by its dotted name, of which only the end counts: also for moments and averages.

    The leading axis of stacked blocks is never divided, and neither is an axis that the mesh does not divide evenly.
    """
    stacked = len(shape) > 0 and is_stacked(name)
    own = shape[1:] if stacked else shape
    axes = next((axes for pattern, axes in _PARTITIONS if pattern.search(name) and len(axes) == len(own)), ())
    fitting = [axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(axes, own)]
    return PartitionSpec(*[None] * stacked, *fitting) if any(fitting) else PartitionSpec()


def shardings(shapes: Mapping[str, Any], mesh: Mesh) -> dict[str, NamedSharding]:
    """The sharding of each array by its dotted name; `shapes` has anything with a `shape`."""
    return {name: NamedSharding(mesh, partition(name, leaf.shape, mesh)) for name, leaf in shapes.items()}


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """`shardings` for a tree of arrays, such as a state of training."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
    return jax.tree.unflatten(structure, shardings(named, mesh).values())


def mesh_of(params: Any) -> Mesh | None:
    """The mesh that parameters were placed on; None for those on one device."""
    leaf = params
    while isinstance(leaf, Mapping):
        leaf = next(iter(leaf.values()), None)
    placement = getattr(leaf, "sharding", None)
    mesh = placement.mesh if isinstance(placement, NamedSharding) else None
    return mesh if isinstance(mesh, Mesh) and mesh.axis_names == AXES else None


def ways(mesh: Any) -> int:
    """The number of parts into which a mesh, or None, divides a batch."""
    return 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]


def by_batch(x: jax.Array) -> jax.Array:
    """The same array (B, ...), with its examples divided over the mesh of the context, if there is one.

    Without it XLA may divide features instead: with "fsdp", each device would then hold all images of the batch.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.axis_names != AXES or x.shape[0] % ways(mesh):
        return x
    return jax.lax.with_sharding_constraint(x, BATCH)
