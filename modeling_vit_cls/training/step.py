"""One update as a jitted function; images arrive as uint8."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict

from ..images.augmentation import augment, normalise
from ..images.batch import Batch
from ..images.processor import ViTClsImageProcessor
from ..nn.scan import is_stacked, unstack_params
from .arguments import TrainingArguments


@flax.struct.dataclass
class TrainState:
    """All that changes in training: updates made, float32 parameters, the optimiser's state, their moving average.

    Parameters may be stacked, and then the rest is. `loss_sum` is the sum of losses since the last log. `ema` is None
    where there is no average.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    ema: Any
    loss_sum: jax.Array

    @property
    def eval_params(self) -> Any:
        """The parameters to evaluate and save, block by block."""
        return unstack_params(self.params if self.ema is None else self.ema)


def initial_state(params: Any, optimizer: optax.GradientTransformation, with_ema: bool) -> TrainState:
    """The state before the first update; the arrays are copies, since a step consumes its state."""
    params = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32), params)
    ema = jax.tree.map(jnp.array, params) if with_ema else None
    return TrainState(jnp.int32(0), params, optimizer.init(params), ema, jnp.float32(0))


def make_train_step(
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    processor: ViTClsImageProcessor,
    arguments: TrainingArguments,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]:
    """State and a batch of `train_batch_size` images -> the next state, and loss, gradient norm and `squares`.

    `squares` are the gradient's sums of squares by parameter. Randomness is a function of seed and step alone. The loss
    is the mean over valid examples of the whole batch, in however many parts it is computed.
    """
    parts = arguments.gradient_accumulation_steps

    def loss_of(params: Any, batch: Batch, key: jax.Array) -> jax.Array:
        images, valid = normalise(jnp.asarray(batch.pixels), processor), jnp.asarray(batch.valid)
        augment_key, dropout_key = jax.random.split(key)
        targets = jax.nn.one_hot(batch.labels, module.config.num_classes)  # pyright: ignore[reportAttributeAccessIssue]
        images, targets = augment(augment_key, images, targets, valid, arguments.augmentation)
        targets = optax.smooth_labels(targets, arguments.label_smoothing_factor)
        rngs = {"dropout": dropout_key}
        outputs: Any = module.apply({"params": params}, images, deterministic=False, readout_only=True, rngs=rngs)
        return jnp.sum(optax.softmax_cross_entropy(outputs.logits, targets), where=valid)

    def gradient_of(params: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        if parts == 1:
            return jax.value_and_grad(loss_of)(params, batch, key)

        def add(total: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, jax.value_and_grad(loss_of)(params, *part)), None

        split = jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), batch)
        zero = (jnp.float32(0), jax.tree.map(jnp.zeros_like, params))
        return jax.lax.scan(add, zero, (split, jax.random.split(key, parts)))[0]

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        key = jax.random.fold_in(jax.random.key(arguments.seed), state.step)
        loss, gradient = gradient_of(state.params, batch, key)
        examples = jnp.maximum(jnp.sum(batch.valid), 1)
        loss, gradient = loss / examples, jax.tree.map(lambda leaf: leaf / examples, gradient)
        squares = _squares(gradient)
        norm = jnp.sqrt(sum(square.sum() for square in squares.values()))
        if arguments.max_grad_norm:
            factor = jnp.minimum(1.0, arguments.max_grad_norm / (norm + 1e-6))
            gradient = jax.tree.map(lambda leaf: leaf * factor, gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:  # the average begins short, so that the initial parameters are forgotten
            decay = jnp.minimum(arguments.ema_decay, (1 + state.step) / (10 + state.step))
            ema = optax.incremental_update(params, ema, 1 - decay)
        state = TrainState(state.step + 1, params, opt_state, ema, state.loss_sum + loss)
        return state, {"loss": loss, "grad_norm": norm, "squares": squares}

    return jax.jit(step, donate_argnums=0)


def _squares(gradient: Any) -> dict[str, jax.Array]:
    """The sum of a gradient's squares by dotted name; (L - 1,) where blocks are stacked."""
    leaves: dict[str, Any] = flatten_dict(gradient, sep=".")
    return {name: jnp.sum(leaf**2, axis=tuple(range(is_stacked(name), leaf.ndim))) for name, leaf in leaves.items()}
