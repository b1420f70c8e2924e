"""One training step as a jitted function: from uint8 images to updated parameters."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..images.augmentation import augment, normalise
from ..images.batch import Batch
from ..images.processor import ViTClsImageProcessor
from ..nn.fused_attention import program_options
from ..nn.mesh import BATCH, across, by_batch, by_name, everywhere, own_places, tree_shardings
from ..nn.scan import is_stacked, unstack, unstack_params
from .arguments import TrainingArguments
from .optimizer import trained


@flax.struct.dataclass
class TrainState:
    """All arrays that change in training.

    Attributes:
        step: number of updates made.
        params: float32 parameters, stacked (nn/scan.py) if the blocks run as a scan.
        opt_state: state of the optimiser.
        ema: exponential moving average of the parameters, or None.
        loss_sum: sum of the losses since the last log; a batch without a valid example adds 0.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    ema: Any
    loss_sum: jax.Array

    @property
    def eval_params(self) -> Any:
        """The parameters to evaluate and save, unstacked: the moving average if there is one."""
        return unstack_params(self.params if self.ema is None else self.ema)


def initial_state(
    params: Any, optimizer: optax.GradientTransformation, with_ema: bool, mesh: Mesh | None = None
) -> TrainState:
    """The state before the first update, divided over `mesh`; None leaves it where `params` are.

    Its arrays are copies, because a step donates the arrays of its state.
    """

    def initial(params: Any) -> TrainState:
        params = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32), params)
        ema = jax.tree.map(jnp.array, params) if with_ema else None
        return TrainState(jnp.int32(0), params, optimizer.init(params), ema, jnp.float32(0))

    if mesh is None:
        return initial(params)
    if mesh.size == 1:  # also its numbers get the sharding that a step gives them: else the second step compiles again
        state = initial(params)
        return jax.device_put(state, tree_shardings(state, mesh))
    return jax.jit(initial, out_shardings=tree_shardings(jax.eval_shape(initial, params), mesh))(params)


def make_train_step(
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    processor: ViTClsImageProcessor,
    arguments: TrainingArguments,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]:
    """The jitted training step: state and a batch of `train_batch_size` images -> next state and measurements.

    The arrays of the batch have shape (B, ...), or (parts, B / parts, ...) with gradient accumulation over `parts`. On
    the mesh of the arguments, the examples of each part are divided, and the state as `initial_state` divides it.

    Measurements are "loss", the mean over the valid examples of the batch, 0 without any, for any number of gradient
    accumulation steps; "grad_norm", the norm of the gradient before clipping; "finite", whether both are finite;
    "finite_by_name", whether the gradient of each parameter is finite; "valid" (B,), that of the batch. Random numbers
    depend only on seed and step.
    """
    parts, mesh = arguments.gradient_accumulation_steps, arguments.device_mesh

    def loss_of(params: Any, batch: Batch, key: jax.Array) -> jax.Array:
        if arguments.freeze_backbone:  # no gradient of what is frozen is computed, and it has no part in clipping
            stop = jax.lax.stop_gradient
            params = jax.tree.map(lambda leaf, kind: leaf if kind == "train" else stop(leaf), params, trained(params))
        images, valid = by_batch(normalise(jnp.asarray(batch.pixels), processor)), jnp.asarray(batch.valid)
        augment_key, dropout_key = jax.random.split(key)
        classes: int = module.config.num_classes  # pyright: ignore[reportAttributeAccessIssue]
        targets = jax.nn.one_hot(batch.labels, classes, dtype=jnp.float32)
        images, targets = map(by_batch, augment(augment_key, images, targets, valid, arguments.augmentation))
        targets = optax.smooth_labels(targets, arguments.label_smoothing_factor)
        rngs = {"dropout": dropout_key}
        deterministic = arguments.freeze_backbone  # a linear probe reads features without dropout; it has none itself
        outputs: Any = module.apply({"params": params}, images, deterministic, readout_only=True, rngs=rngs)
        return jnp.sum(optax.softmax_cross_entropy(outputs.logits, targets), where=valid)

    def gradient_of(params: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        if parts == 1:
            return jax.value_and_grad(loss_of)(params, batch, key)

        def add(total: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, jax.value_and_grad(loss_of)(params, *part)), None

        split = batch if batch.valid.ndim == 2 else in_parts(batch, parts)
        zero = (jnp.float32(0), jax.tree.map(jnp.zeros_like, params))
        return jax.lax.scan(add, zero, (split, jax.random.split(key, parts)))[0]

    def update(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        key = jax.random.fold_in(jax.random.key(arguments.seed), state.step)
        loss, gradient = gradient_of(state.params, batch, key)
        gradient = by_name(gradient)
        examples = jnp.maximum(jnp.sum(batch.valid), 1)
        loss, gradient = loss / examples, jax.tree.map(lambda leaf: leaf / examples, gradient)
        norm, finite_by_name = optax.tree.norm(gradient), _finite_by_name(gradient)
        if arguments.max_grad_norm:
            gradient, _ = optax.clip_by_global_norm(arguments.max_grad_norm).update(gradient, optax.EmptyState())
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:  # a smaller decay in the first steps, to forget the initial parameters
            decay = jnp.minimum(arguments.ema_decay, (1 + state.step) / (10 + state.step))
            ema = optax.incremental_update(params, ema, 1 - decay)
        state = TrainState(state.step + 1, params, opt_state, ema, state.loss_sum + loss)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        metrics = {"loss": loss, "grad_norm": norm, "finite": finite, "finite_by_name": finite_by_name}
        return by_name(state), metrics | {"valid": everywhere(jnp.asarray(batch.valid).reshape(-1))}

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        with across(mesh):
            return update(state, batch)

    return jax.jit(step, donate_argnums=0, compiler_options=program_options(module))


def in_parts(batch: Batch, parts: int) -> Batch:
    """The arrays of a batch (B, ...) as (parts, B / parts, ...)."""
    return Batch(*(leaf.reshape(parts, -1, *leaf.shape[1:]) for leaf in batch))


def places_to_read(mesh: Mesh, batch_size: int, parts: int) -> np.ndarray:
    """The places of a global batch whose examples this process must read: all of them in a run of one process."""
    size = batch_size // parts
    return np.arange(batch_size).reshape(parts, size)[:, own_places(mesh, size)].reshape(-1)


def placed_ahead(batches: Iterable[Batch], mesh: Mesh, parts: int) -> Iterator[tuple[Batch, Batch]]:
    """Each batch and its copy on the mesh, which is made before the batch before it is given out.

    A GPU starts a copy to its memory when all that was asked for earlier is done. So it copies the images of a step
    while it computes the step before only if the copy was asked for before that step. An error comes in the place of
    its batch.
    """
    ahead: list[tuple[Batch, Batch]] = []
    try:
        for batch in batches:
            placed = batch, place_batch(batch, mesh, parts)
            yield from ahead
            ahead = [placed]
    except Exception:
        yield from ahead
        raise
    yield from ahead


def place_batch(batch: Batch, mesh: Mesh, parts: int) -> Batch:
    """The batch of all processes on their mesh, from the images of this process, those at `places_to_read`."""
    if mesh.size == 1:
        return jax.device_put(batch)  # without a device, as the model's parameters decide where a step runs
    own = in_parts(batch, parts) if parts > 1 else batch
    sharding = NamedSharding(mesh, PartitionSpec(None, *BATCH) if parts > 1 else BATCH)
    placed = Batch(*(jax.make_array_from_process_local_data(sharding, leaf) for leaf in own._replace(rows=own.valid)))
    return placed._replace(rows=jax.make_array_from_callback(own.rows.shape, sharding, own.rows.__getitem__))


def _finite_by_name(gradient: Any) -> dict[str, jax.Array]:
    """Whether the gradient of each parameter is finite, by dotted name; (L - 1,) for stacked parameters."""
    leaves: dict[str, Any] = flatten_dict(gradient, sep=".")
    return {
        name: jnp.isfinite(leaf).all(axis=tuple(range(is_stacked(name), leaf.ndim))) for name, leaf in leaves.items()
    }


def check_finite(step: int, metrics: dict[str, Any]) -> None:
    """Raise FloatingPointError, naming the step and a parameter, if the loss or a gradient is not finite."""
    if metrics["finite"]:  # the only value that is fetched from the device in every step
        return
    names = [name for name, finite in unstack(jax.device_get(metrics["finite_by_name"])).items() if not finite]
    at = f", and the gradient of {names[0]} and {len(names) - 1} others" if names else ""
    remedy = "nothing of it was saved; try a lower learning_rate, more warmup_steps, or a smaller max_grad_norm"
    raise FloatingPointError(f"step {step}: the loss is {float(metrics['loss'])}{at}: {remedy}")
