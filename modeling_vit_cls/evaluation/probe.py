"""Logistic regression on features, for many strengths of regularisation at once."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ConfigError
from ..images.sampling import hold_out
from ..install import needs
from ..scores import scores_of
from .features import check_features

try:
    import optax
except ImportError as error:
    raise needs("optax", "to fit a probe", "train") from error

_log = logging.getLogger(__name__)
CS = tuple(np.logspace(-6, 5, 45).tolist())
_HELD_OUT = 0.1  # share of the training rows that chooses C
_ITERATIONS = 1000
_TOLERANCE = 1e-5  # of the loss, relative to its minimum
_LOGITS = 2**24  # logits in memory at once, 128 MB


@dataclass(frozen=True)
class Probe:
    """A linear classifier of features (N, F).

    Attributes:
        kernel: weights (F, K) float32.
        bias: (K,) float32.
        c: the inverse strength of its regularisation.
        held_out_accuracy: the accuracy on the rows that chose C, before the classifier was fitted to all rows.
    """

    kernel: np.ndarray
    bias: np.ndarray
    c: float
    held_out_accuracy: float

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Features (N, F) -> probabilities (N, K) float32."""
        logits = features.astype(np.float64) @ self.kernel + self.bias
        return scores_of(logits, "softmax").astype(np.float32)


def fit_probe(
    features: np.ndarray, labels: np.ndarray, names: Sequence[str], cs: Sequence[float] = CS, seed: int = 0
) -> Probe:
    """Fit a probe to features (N, F) and labels (N,) of classes with these names.

    A tenth of each class is held out. The C with the best accuracy on it is taken, of equal ones that with the highest
    mean probability of the true class, and the classifier is fitted again to all rows. The default `cs` are 45 numbers
    from 1e-6 to 1e5, as in the evaluation of DINOv2.

    Raises ConfigError for fewer than two classes, a class without a row, no class with two rows, and NaN.
    """
    check_features("features", features, labels)
    if len(names) < 2:
        raise ConfigError("classes", list(names), "a probe needs at least two")
    counts = np.bincount(labels, minlength=len(names))
    if not counts.all():
        rule = "has no image in the training split: a probe needs images of each class"
        raise ConfigError("class", names[int(counts.argmin())], rule)
    kept, held_out = hold_out(labels.tolist(), _HELD_OUT, seed)
    if not len(held_out):
        raise ConfigError("train_split", len(labels), "has one image of each class: none can be held out to choose C")
    kernels, biases = logistic_regression(features[kept], labels[kept], cs, len(names))
    logits = np.einsum("nf,cfk->cnk", features[held_out].astype(np.float64), kernels) + biases[:, None]
    accuracies = (logits.argmax(axis=2) == labels[held_out]).mean(axis=1)
    likelihoods = scores_of(logits, "softmax")[:, np.arange(len(held_out)), labels[held_out]].mean(axis=1)
    best = max(range(len(cs)), key=lambda i: (accuracies[i], likelihoods[i]))
    kernels, biases = logistic_regression(features, labels, cs[best : best + 1], len(names))
    kernel, bias = kernels[0].astype(np.float32), biases[0].astype(np.float32)
    return Probe(kernel, bias, float(cs[best]), float(accuracies[best]))


def logistic_regression(
    features: np.ndarray, labels: np.ndarray, cs: Sequence[float], classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression for each C of `cs` at once: -> kernels (C, F, K) and biases (C, K), float64.

    The loss is that of scikit-learn's LogisticRegression: the mean cross-entropy of the N rows, and the sum of squares
    of the kernel divided by 2 C N (by C N for two classes, whose kernels there are w and 0). The bias is not
    regularised. L-BFGS from zero, in float64; see `_fit` for its end.
    """
    centre = features.mean(axis=0, dtype=np.float64)  # taken off for fewer iterations; the bias makes up for it
    size = max(1, min(len(features), _LOGITS // (len(cs) * classes)))
    padding = -len(features) % size
    with jax.enable_x64(True):
        rows = jnp.asarray(np.pad(features - centre, ((0, padding), (0, 0))).reshape(-1, size, features.shape[1]))
        blocks = jnp.asarray(np.pad(labels, (0, padding), constant_values=-1).reshape(-1, size))
        parameters, steps = _fit(rows, blocks, jnp.asarray(cs, jnp.float64), np.float64(len(features)), classes=classes)
        kernels, biases = np.asarray(parameters["kernel"]), np.asarray(parameters["bias"])
        unfinished = [f"{c:.3g}" for c, step in zip(cs, np.asarray(steps)) if step == _ITERATIONS]
    if unfinished:
        _log.warning(
            "a probe with C = %s was stopped after %d iterations, above its minimum; features of one scale need fewer",
            ", ".join(unfinished),
            _ITERATIONS,
        )
    kernels = kernels - kernels.mean(axis=2, keepdims=True)
    return kernels, biases - np.einsum("f,cfk->ck", centre, kernels)


@partial(jax.jit, static_argnames="classes")
def _fit(
    rows: jax.Array, labels: jax.Array, cs: jax.Array, count: jax.Array, *, classes: int
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Kernels (C, F, K), biases (C, K) and numbers of iterations (C,).

    The rows come in blocks (b, n, F) with labels (b, n), -1 for a row of padding.

    With strength s = 1 / (C N) the loss is s-strongly convex in the kernel, so it lies at most |gradient|^2 / (2 s)
    above its minimum: L-BFGS ends when that is 1e-5 of the loss, or after 1,000 iterations. For the bias, which
    is not regularised, the strength counts as at most 1 / K.
    """

    def fit_one(c: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
        strength = (2 if classes == 2 else 1) / (c * count)

        def loss(parameters: dict[str, jax.Array]) -> jax.Array:
            def add(total: jax.Array, block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
                return total + _cross_entropy(parameters, *block), None

            if len(rows) == 1:
                total = _cross_entropy(parameters, rows[0], labels[0])
            else:  # only the logits of one block are in memory, also for the gradient
                total, _ = jax.lax.scan(jax.checkpoint(add, prevent_cse=False), jnp.zeros(()), (rows, labels))
            return total / count + strength / 2 * (parameters["kernel"] ** 2).sum()

        optimizer = optax.lbfgs()
        value_and_grad = optax.value_and_grad_from_state(loss)
        zeros = {"kernel": jnp.zeros((rows.shape[2], classes)), "bias": jnp.zeros(classes)}

        def goes_on(carry: tuple[Any, Any, jax.Array]) -> jax.Array:
            _, state, step = carry
            value, gradient = optax.tree.get(state, "value"), optax.tree.get(state, "grad")
            excess = optax.tree.norm(gradient, squared=True) / (2 * jnp.minimum(strength, 1 / classes))
            return (step == 0) | ((step < _ITERATIONS) & (excess > _TOLERANCE * value))

        def step(carry: tuple[Any, Any, jax.Array]) -> tuple[Any, Any, jax.Array]:
            parameters, state, number = carry
            value, grad = value_and_grad(parameters, state=state)
            updates, state = optimizer.update(grad, state, parameters, value=value, grad=grad, value_fn=loss)
            return optax.apply_updates(parameters, updates), state, number + 1

        start = zeros, optimizer.init(zeros), jnp.zeros((), jnp.int32)
        parameters, _, steps = jax.lax.while_loop(goes_on, step, start)
        return parameters, steps

    return jax.vmap(fit_one)(cs)


def _cross_entropy(parameters: Mapping[str, jax.Array], rows: jax.Array, labels: jax.Array) -> jax.Array:
    """The sum of -ln p of rows (n, F) with labels (n,), exact for p near 1 too; rows with label -1 count 0."""
    logits = jnp.einsum("nf,fk->kn", rows, parameters["kernel"]) + parameters["bias"][:, None]
    own = jax.nn.one_hot(labels, len(logits), axis=0, dtype=bool)
    others = jnp.where(own, -jnp.inf, logits - jnp.where(own, logits, 0).sum(axis=0, keepdims=True))
    return jnp.where(labels >= 0, jax.nn.softplus(jax.nn.logsumexp(others, axis=0)), 0).sum()
