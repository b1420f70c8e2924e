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
from ..nn.scan import is_stacked, unstack, unstack_params
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
    """State and a batch of `train_batch_size` images -> the next state and, by name, what is measured of the step.

    That is "loss", the mean over the valid examples of the whole batch, in however many parts it is computed;
    "grad_norm", before clipping; "finite", whether both are; and "finite_by_name", for each parameter whether its
    gradient is. Randomness is a function of seed and step alone.
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
        norm, finite_by_name = optax.tree.norm(gradient), _finite_by_name(gradient)
        if arguments.max_grad_norm:
            gradient, _ = optax.clip_by_global_norm(arguments.max_grad_norm).update(gradient, optax.EmptyState())
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:  # the average begins short, so that the initial parameters are forgotten
            decay = jnp.minimum(arguments.ema_decay, (1 + state.step) / (10 + state.step))
            ema = optax.incremental_update(params, ema, 1 - decay)
        state = TrainState(state.step + 1, params, opt_state, ema, state.loss_sum + loss)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        return state, {"loss": loss, "grad_norm": norm, "finite": finite, "finite_by_name": finite_by_name}

    return jax.jit(step, donate_argnums=0)


def _finite_by_name(gradient: Any) -> dict[str, jax.Array]:
    """Whether a gradient is finite, by dotted name; (L - 1,) where blocks are stacked."""
    leaves: dict[str, Any] = flatten_dict(gradient, sep=".")
    return {
        name: jnp.isfinite(leaf).all(axis=tuple(range(is_stacked(name), leaf.ndim))) for name, leaf in leaves.items()
    }


def check_finite(step: int, metrics: dict[str, Any]) -> None:
    """Raise FloatingPointError, naming the step and a parameter, where a loss or a gradient is not finite."""
    if metrics["finite"]:  # the one value that every step fetches
        return
    names = [name for name, finite in unstack(jax.device_get(metrics["finite_by_name"])).items() if not finite]
    at = f", and the gradient of {names[0]} and {len(names) - 1} others" if names else ""
    remedy = "nothing of it was saved; try a lower learning_rate, more warmup_steps, or a smaller max_grad_norm"
    raise FloatingPointError(f"step {step}: the loss is {float(metrics['loss'])}{at}: {remedy}")
