"""One mesh of devices for everything that runs, and a table that says how it divides each parameter, by name.

The axes are "data" (each device has its own images), "fsdp" (its own images, and a part of each large parameter) and
"tensor" (a part of the heads and of the MLP, for the same images). Every mesh has all three; an axis that is not used
has size 1, and one device is a mesh of size 1.
"""

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ..configuration_vit_cls import ViTClsConfig
from ..errors import ConfigError, did_you_mean
from .scan import is_stacked

AXES = ("data", "fsdp", "tensor")
_AUTO = (AxisType.Auto,) * len(AXES)
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

    Axes that are not named have size 1. `devices`: default all of all processes, or JAX's default device if one was set
    (`jax.default_device`). Raises ConfigError, with the number of devices, for an unknown axis, for one that is given
    twice, and for sizes that do not divide the devices.
    """
    devices = (_default() or jax.devices()) if devices is None else list(devices)
    shape = tuple(axis_sizes(text, len(devices)).values())
    return jax.make_mesh(shape, AXES, _AUTO, devices=devices)


def axis_sizes(text: str, devices: int | None = None) -> dict[str, int]:
    """The size of each axis by the text of a mesh, for a number of devices; None for the number that the sizes give.

    Raises ConfigError as `make_mesh` does, and for an axis of size -1 without a number of devices.
    """
    given: dict[str, int] = {}
    for part in text.replace(" ", "").split(",") if isinstance(text, str) else [""]:
        axis, _, size = part.partition("=")
        if axis not in AXES or not re.fullmatch(r"-1|[1-9]\d*", size):
            hint = did_you_mean(axis, AXES)
            raise ConfigError("mesh", text, f"must be like 'data=-1,fsdp=8', of the axes {', '.join(AXES)}{hint}")
        if axis in given:
            raise ConfigError("mesh", text, f"gives the size of {axis} twice")
        given[axis] = int(size)
    sizes = {axis: given.get(axis, 1) for axis in AXES}
    known = math.prod(size for size in sizes.values() if size > 0)
    rest = list(sizes.values()).count(-1)
    if rest > 1:
        raise ConfigError("mesh", text, "only one axis may have size -1")
    if devices is None and rest:
        raise ConfigError("mesh", text, "has size -1, for the rest of the devices: give their number")
    devices = known if devices is None else devices
    sizes = {axis: devices // known if size < 0 else size for axis, size in sizes.items()}
    if math.prod(sizes.values()) != devices:
        rule = f"needs a multiple of {known} devices" if rest else f"gives {known} devices"
        raise ConfigError("mesh", text, f"{rule}, but there are {devices}")
    return sizes


def local_mesh() -> Mesh | None:
    """All devices of this process as "data"; None if there is only one, or one was set (`jax.default_device`)."""
    devices = _default() or jax.local_devices()
    return make_mesh(devices=devices) if len(devices) > 1 else None


def _default() -> list[Any]:
    """JAX's default device, if one was set."""
    is_set = jax.config.jax_default_device is not None  # pyright: ignore[reportAttributeAccessIssue]
    return [*jax.numpy.zeros(()).devices()] if is_set else []


def checked_mesh(mesh: Any, config: ViTClsConfig) -> Mesh:
    """A user's mesh with automatic axes, as the models need. Raises ConfigError if it does not fit the model."""
    if isinstance(mesh, str):
        mesh = make_mesh(mesh)
    if not isinstance(mesh, Mesh) or tuple(mesh.axis_names) != AXES:
        names = tuple(mesh.axis_names) if isinstance(mesh, Mesh) else type(mesh).__name__
        raise ConfigError("mesh", names, f"must be a jax.sharding.Mesh with the axes {AXES}, as make_mesh returns")
    refuse_unfit(mesh.shape, config)
    return Mesh(mesh.devices, AXES, axis_types=_AUTO)


def refuse_unfit(sizes: Mapping[str, int], config: ViTClsConfig) -> None:
    """Raise ConfigError for a mesh of these axes if it does not fit the model."""
    tensor = sizes["tensor"]
    for name in ("num_attention_heads", "intermediate_size"):
        if getattr(config, name) % tensor:
            raise ConfigError("mesh", f"tensor={tensor}", f"must divide {name}={getattr(config, name)}")


def partition(name: str, shape: Sequence[int], mesh: Any) -> PartitionSpec:
    """The partition of an array by its dotted name, of which only the end counts: also for moments and averages.

    The leading axis of stacked blocks is never divided, and neither is an axis that the mesh does not divide evenly.
    The result is in JAX's shortest form, so that it equals the one of a compiled function's output.
    """
    stacked = len(shape) > 0 and is_stacked(name)
    own = shape[1:] if stacked else shape
    axes = next((axes for pattern, axes in _PARTITIONS if pattern.search(name) and len(axes) == len(own)), ())
    sizes = mesh.shape
    fitting = [axis if axis and sizes[axis] > 1 and size % sizes[axis] == 0 else None for axis, size in zip(axes, own)]
    while fitting and fitting[-1] is None:
        fitting.pop()
    return PartitionSpec(*[None] * stacked, *fitting) if fitting else PartitionSpec()


def shardings(shapes: Mapping[str, Any], mesh: Any) -> dict[str, NamedSharding]:
    """The sharding of each array by its dotted name; `shapes` has anything with a `shape`."""
    return {name: NamedSharding(mesh, partition(name, leaf.shape, mesh)) for name, leaf in shapes.items()}


def tree_shardings(tree: Any, mesh: Any) -> Any:
    """`shardings` for a tree of arrays, such as a state of training."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
    return jax.tree.unflatten(structure, shardings(named, mesh).values())


def place(tree: Any, mesh: Mesh) -> Any:
    """A tree of arrays on a mesh, divided by the table. In a run of several processes each one has all values."""

    def put(leaf: Any, sharding: NamedSharding) -> jax.Array:
        if sharding.is_fully_addressable or not getattr(leaf, "is_fully_addressable", True):
            return jax.device_put(leaf, sharding)
        values = np.asarray(leaf)
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    return jax.tree.map(put, tree, tree_shardings(tree, mesh))


def on_local_devices(tree: Any) -> Any:
    """A tree of arrays with a copy on each device of this process; unchanged if there is only one."""
    mesh = local_mesh()
    return tree if mesh is None else place(tree, mesh)


def mesh_of(*trees: Any) -> Mesh | None:
    """The mesh that arrays were placed on; None for arrays on one device, and inside a function that JAX transforms."""
    meshes = {}
    for leaf in jax.tree.leaves(trees):
        if isinstance(leaf, Tracer):
            return None
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and sharding.mesh.axis_names == AXES and sharding.mesh.size > 1:
            meshes[sharding.mesh] = None
    return next(iter(meshes), None)


def ways(mesh: Any) -> int:
    """The number of parts into which a mesh, or None, divides a batch."""
    return 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]


def divisible(examples: int, mesh: Any) -> int:
    """The next number of examples that a mesh, or None, divides evenly."""
    return -(-examples // ways(mesh)) * ways(mesh)


def batch_sharding(mesh: Mesh, examples: int) -> NamedSharding:
    """The sharding of an array (B, ...) of examples: divided, or whole on each device if the number does not divide."""
    return NamedSharding(mesh, PartitionSpec() if examples % ways(mesh) else BATCH)


def own_places(mesh: Mesh | None, examples: int) -> np.ndarray:
    """The places of a batch whose examples are on devices of this process: all of them in a run of one process."""
    places = np.arange(examples)
    if mesh is None:
        return places
    indices = batch_sharding(mesh, examples).addressable_devices_indices_map((examples,)).values()
    return np.unique(np.concatenate([places[index] for index in indices]))


def across(mesh: Mesh | None) -> AbstractContextManager[Any]:
    """The context in which a function is traced that runs on a mesh: `by_batch` and `by_name` then know it."""
    if mesh is None or mesh.size == 1:
        return nullcontext()
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def _mesh_of_context() -> Any:
    """The mesh of the context in which a function is traced; None without one, and inside `jax.shard_map`."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.axis_names != AXES or AxisType.Manual in mesh.axis_types:
        return None
    return mesh


def by_batch(x: jax.Array) -> jax.Array:
    """The same array (B, ...), with its examples divided over the mesh of the context, if there is one.

    Without it XLA may divide features instead: with "fsdp", each device would then hold all images of the batch.
    """
    mesh = _mesh_of_context()
    if mesh is None or x.shape[0] % ways(mesh):
        return x
    return jax.lax.with_sharding_constraint(x, BATCH)


def everywhere(x: jax.Array) -> jax.Array:
    """The same array, whole on each device of the mesh of the context, if there is one."""
    if _mesh_of_context() is None:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec())


def by_name(tree: Any) -> Any:
    """The same tree of arrays, divided by the table over the mesh of the context, if there is one."""
    mesh: Any = _mesh_of_context()
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, tree_shardings(tree, mesh))
