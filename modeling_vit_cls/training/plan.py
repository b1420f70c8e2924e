"""What a training step needs on each device of a mesh: memory, traffic, work. By formula: nothing is built or compiled.

The state is counted by the real shapes, partitions and optimiser. The activations are those of blocks that run as a
scan (`scan_layers`, the default but on a GPU), with attention by plain products.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import AbstractMesh, AxisType

from ..configuration_vit_cls import ViTClsConfig
from ..families.open import parameter_shapes
from ..nn.flops import gflops_per_image
from ..nn.mesh import AXES, refuse_unfit, shardings, tree_shardings, ways
from ..nn.scan import is_stacked, stack_params
from ..nn.vit import FlaxViTClsForImageClassificationModule
from .arguments import TrainingArguments
from .optimizer import make_optimizer
from .step import initial_state

USABLE = 0.9  # of a device's memory; the rest is for programs, buffers of collectives, and gaps

# What XLA holds at once of the block that is in the backward pass, in float32: attention maps, the MLP's activations,
# and arrays of the tokens; and of the last block, outside the scan, if it computes all tokens. Measured: docs/plan.md.
_MAPS, _HIDDEN, _TOKENS, _LAST = 3, 2, 14, 20
_FLOAT32 = 4  # bytes
_LABELS = 9  # bytes of an image's label, row and mark of validity


@dataclass(frozen=True)
class Plan:
    """What a training step needs on one device.

    Attributes:
        parameters: number of parameters of the model.
        mesh: size of each axis.
        images: images of a step on one device, `per_device_train_batch_size`. Devices along "tensor" share them.
        batch: images of a step on all devices.
        memory: bytes, by what they hold, when most is held.
        traffic: bytes that the device sends in a step, and receives, by purpose; all collectives run in rings.
        tflops: floating-point operations of a step, in units of 1e12.
        bytes_per_image: the part of `memory` that one image takes.
    """

    parameters: int
    mesh: dict[str, int]
    images: int
    batch: int
    memory: dict[str, int]
    traffic: dict[str, int]
    tflops: float
    bytes_per_image: int

    @property
    def total(self) -> int:
        """All bytes of memory."""
        return sum(self.memory.values())

    def largest(self, memory: float) -> int:
        """The most images that fit on a device with this number of bytes; 0 if not even one does."""
        fixed = self.total - self.images * self.bytes_per_image
        return max(0, math.floor((USABLE * memory - fixed) / self.bytes_per_image))

    def fits(self, memory: float) -> bool:
        """Whether a device with this number of bytes has enough."""
        return self.total <= USABLE * memory

    def to_dict(self) -> dict[str, Any]:
        """All fields and the total, for JSON."""
        return {**asdict(self), "total": self.total}


def make_plan(config: ViTClsConfig, sizes: Mapping[str, int], arguments: TrainingArguments) -> Plan:
    """The plan of a classifier's training step on a mesh of these axes. Raises ConfigError if they do not fit it.

    Args:
        config: the classifier's.
        sizes: of the axes, as `axis_sizes` gives them.
        arguments: `per_device_train_batch_size`, `gradient_checkpointing`, `bf16`, `optim` and `ema_decay` count; the
            mesh of the arguments does not, and neither does gradient accumulation.
    """
    refuse_unfit(sizes, config)
    mesh = AbstractMesh(tuple(sizes[axis] for axis in AXES), AXES, axis_types=(AxisType.Auto,) * len(AXES))
    shapes = parameter_shapes(FlaxViTClsForImageClassificationModule, config)
    params = jax.eval_shape(stack_params, unflatten_dict(dict(shapes), sep="."))
    state = _state(params, mesh, arguments)
    images = arguments.per_device_train_batch_size
    pixels = math.prod(config.image_hw) * config.num_channels + _LABELS
    kept, at_work = _activations(config, mesh, arguments)
    memory = {
        **state,
        "gradient": state["parameters"],
        "gathered parameters": _gathered(params, mesh),
        "images": images * pixels,
        "activations kept": images * kept,
        "one block at work": images * at_work,
    }
    return Plan(
        parameters=sum(leaf.size for leaf in shapes.values()),
        mesh=dict(sizes),
        images=images,
        batch=images * ways(mesh),
        memory=memory,
        traffic=_traffic(config, params, mesh, arguments),
        # the backward pass is twice the work of a forward pass
        tflops=(3 + arguments.gradient_checkpointing) * images * gflops_per_image(config) / sizes["tensor"] / 1000,
        bytes_per_image=pixels + kept + at_work,
    )


def _state(params: Any, mesh: AbstractMesh, arguments: TrainingArguments) -> dict[str, int]:
    """Bytes on one device of what stays from step to step."""
    optimizer = make_optimizer(arguments, params, total_steps=1)
    start = partial(initial_state, optimizer=optimizer, with_ema=arguments.ema_decay > 0)
    state = jax.eval_shape(start, params)

    def on_one(tree: Any) -> int:
        leaves = zip(jax.tree.leaves(tree), jax.tree.leaves(tree_shardings(tree, mesh)))
        return sum(math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf, sharding in leaves)

    parts = {"parameters": state.params, "optimizer": state.opt_state, "moving average": state.ema}
    return {name: on_one(tree) for name, tree in parts.items()}


def _gathered(params: Any, mesh: AbstractMesh) -> int:
    """Bytes of the parameters that "fsdp" divides of one block, which a device gathers to compute it."""
    leaves: dict[str, Any] = flatten_dict(params, sep=".")
    specs = {name: sharding.spec for name, sharding in shardings(leaves, mesh).items() if is_stacked(name)}
    parts = {name: mesh.shape["tensor"] if "tensor" in spec else 1 for name, spec in specs.items() if "fsdp" in spec}
    return sum(leaves[name].size // leaves[name].shape[0] * _FLOAT32 // part for name, part in parts.items())


def _activations(config: ViTClsConfig, mesh: AbstractMesh, arguments: TrainingArguments) -> tuple[int, int]:
    """Bytes of an image on one device: what the blocks keep for the backward pass, and what one block holds.

    A block keeps its input and the products of `SAVE_PRODUCTS`, or its input alone if it is computed again.
    """
    width, tensor = config.hidden_size, mesh.shape["tensor"]
    hidden = config.intermediate_size * (2 if config.mlp == "swiglu" else 1)
    recomputes = arguments.gradient_checkpointing
    products = 0 if recomputes else 4 * width / tensor + width + hidden / tensor  # heads and mixed, middle, hidden
    kept = (config.num_hidden_layers - 1) * config.num_tokens * (width + products) * (2 if arguments.bf16 else 4)
    again = config.intermediate_size if recomputes else 0
    divided = _MAPS * config.num_attention_heads * config.num_tokens + _HIDDEN * hidden + again
    tokens = _TOKENS + (0 if config.readout in ("cls", "cls_concat") else _LAST)
    at_work = config.num_tokens * (divided / tensor + tokens * width) * _FLOAT32
    return math.ceil(kept), math.ceil(at_work)


def _traffic(config: ViTClsConfig, params: Any, mesh: AbstractMesh, arguments: TrainingArguments) -> dict[str, int]:
    """Bytes that one device sends in a step: (n - 1) / n of an array to gather or scatter it, twice that to sum it.

    Parameters are gathered in float32, for the forward pass and again for the backward pass. "tensor" sums tokens after
    attention and after the MLP, and the gradients of what query, key, value and the MLP's layers read (Shoeybi et al.
    2019, figure 4); a block that is computed again sums once more.
    """
    _, fsdp, tensor = (mesh.shape[axis] for axis in AXES)
    gathered = scattered = summed = 0.0
    for leaf, sharding in zip(jax.tree.leaves(params), jax.tree.leaves(tree_shardings(params, mesh))):
        parts = fsdp if "fsdp" in sharding.spec else 1
        copies = ways(mesh) // parts
        whole = leaf.size * _FLOAT32 / (tensor if "tensor" in sharding.spec else 1)
        gathered += 2 * whole * (1 - 1 / parts)
        scattered += whole * (1 - 1 / parts)
        summed += 2 * whole / parts * (1 - 1 / copies)
    sums = 2 + 3 + (2 if config.mlp == "swiglu" else 1) + arguments.gradient_checkpointing
    tokens = arguments.per_device_train_batch_size * config.num_tokens * config.hidden_size
    tokens *= config.num_hidden_layers * (2 if arguments.bf16 else 4)
    traffic = {"gather parameters": gathered, "reduce-scatter gradient": scattered, "all-reduce gradient": summed}
    traffic["all-reduce tokens"] = 2 * sums * tokens * (1 - 1 / tensor)
    return {name: round(size) for name, size in traffic.items()}
