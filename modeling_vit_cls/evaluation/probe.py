"""Logistic regression on features, for many strengths of regularisation at once."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.scipy.sparse.linalg import cg

from ..errors import ConfigError
from ..images.sampling import hold_out
from ..install import needs
from ..scores import scores_of
from .features import check_features

try:
    import optax
    from tqdm.auto import tqdm
except ImportError as error:
    raise needs("optax and tqdm", "to fit a probe", "train") from error

_log = logging.getLogger(__name__)
CS = tuple(np.logspace(-6, 5, 45).tolist())
_HELD_OUT = 0.1  # share of the training rows that chooses C
_STEPS = 100  # of Newton's method
_CONJUGATE_GRADIENTS = 1000  # in a step
_HALVINGS = 30  # of a step
_TOLERANCE = 1e-5  # what the last step promised to take off the loss, relative to it
_BLOCK = 2**24  # features, and logits, in memory at once: 128 MB


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
    features: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    cs: Sequence[float] = CS,
    seed: int = 0,
    *,
    title: str = "probe",
    disable_tqdm: bool | None = False,
) -> Probe:
    """Fit a probe to features (N, F) and labels (N,) of classes with these names.

    A tenth of each class is held out. The C with the best accuracy on it is taken, of equal ones that with the highest
    mean probability of the true class, and the classifier is fitted again to all rows. The default `cs` are 45 numbers
    from 1e-6 to 1e5, as in the evaluation of DINOv2. A progress bar with this `title` counts them; `disable_tqdm` True
    shows none, None shows it in a terminal only.

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
    bar = tqdm(cs, desc=title, unit="C", disable=disable_tqdm)
    kernels, biases = logistic_regression(features[kept], labels[kept], bar, len(names))
    logits = np.einsum("nf,cfk->cnk", features[held_out].astype(np.float64), kernels) + biases[:, None]
    accuracies = (logits.argmax(axis=2) == labels[held_out]).mean(axis=1)
    likelihoods = scores_of(logits, "softmax")[:, np.arange(len(held_out)), labels[held_out]].mean(axis=1)
    best = max(range(len(cs)), key=lambda i: (accuracies[i], likelihoods[i]))
    kernels, biases = logistic_regression(features, labels, cs[best : best + 1], len(names))
    kernel, bias = kernels[0].astype(np.float32), biases[0].astype(np.float32)
    return Probe(kernel, bias, float(cs[best]), float(accuracies[best]))


def logistic_regression(
    features: np.ndarray, labels: np.ndarray, cs: Iterable[float], classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression for each C of `cs`: -> kernels (C, F, K) and biases (C, K), float64.

    The loss is that of scikit-learn's LogisticRegression: the mean cross-entropy of the N rows, and the sum of squares
    of the kernel divided by 2 C N (by C N for two classes, whose kernels there are w and 0). The bias is not
    regularised. Each C starts from the solution of the one before it, the first from zero; see `_fit`.
    """
    count, width = features.shape
    centre = features.mean(axis=0, dtype=np.float64)  # taken off for more digits; the bias makes up for it
    size = max(1, min(count, _BLOCK // max(width + 1, classes)))
    padding = -count % size
    weights, unfinished = [], []
    with jax.enable_x64(True):
        ones = np.pad(features - centre, ((0, 0), (0, 1)), constant_values=1)  # the bias is the last row of the weights
        rows = jnp.asarray(np.pad(ones, ((0, padding), (0, 0))).reshape(-1, size, width + 1))
        blocks = jnp.asarray(np.pad(labels, (0, padding), constant_values=-1).reshape(-1, size))
        solution = jnp.zeros((width + 1, classes))
        for c in cs:
            solution, is_minimum = _fit(rows, blocks, solution, (2 if classes == 2 else 1) / (c * count), count)
            weights.append(np.asarray(solution))
            if not is_minimum:
                unfinished.append(f"{c:.3g}")
    if unfinished:
        _log.warning("a probe with C = %s was stopped after %d steps, above its minimum", ", ".join(unfinished), _STEPS)
    kernels, biases = np.stack(weights)[:, :-1], np.stack(weights)[:, -1]
    kernels = kernels - kernels.mean(axis=2, keepdims=True)
    return kernels, biases - np.einsum("f,cfk->ck", centre, kernels)


@jax.jit
def _fit(
    rows: jax.Array, labels: jax.Array, start: jax.Array, strength: jax.Array, count: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Weights (F + 1, K), and whether they are at the minimum, by Newton's method from weights `start`.

    The rows come in blocks (b, n, F + 1) with labels (b, n), -1 for a row of padding.

    A step solves for the Newton direction by conjugate gradients, which multiply by the Hessian but do not form it, and
    goes along it, halved until the loss falls enough. The last step is the first that promises, by the second order,
    at most 1e-5 of the loss. The number of conjugate gradients depends on the scales of the features, so they work on
    "whitened" weights: those of features whose covariance, each row weighted by how undecided `start` is on it, is the
    identity.
    """

    def covariance(block: jax.Array, labels: jax.Array) -> jax.Array:
        probabilities = jax.nn.softmax(block @ start)
        undecided = jnp.where(labels >= 0, 1 - (probabilities**2).sum(axis=1), 0)
        return (block * undecided[:, None]).T @ block

    curvature = _sum(covariance, rows, labels) / (count * start.shape[1])
    rounding = 1e-14 * jnp.trace(curvature)  # of dependent features, whose covariance is singular
    diagonal = rounding + strength * (jnp.arange(len(curvature)) < len(curvature) - 1)
    factor = jnp.linalg.cholesky(curvature + jnp.diag(diagonal))
    whitening = solve_triangular(factor, jnp.eye(len(factor)), lower=True).T

    def loss(whitened: jax.Array) -> jax.Array:
        weights = whitening @ whitened

        def cross_entropy(block: jax.Array, labels: jax.Array) -> jax.Array:
            losses = optax.softmax_cross_entropy_with_integer_labels(block @ weights, labels)
            return jnp.where(labels >= 0, losses, 0).sum()

        return _sum(cross_entropy, rows, labels) / count + strength / 2 * (weights[:-1] ** 2).sum()

    search = optax.scale_by_backtracking_linesearch(_HALVINGS, decrease_factor=0.5, increase_factor=np.inf)

    def step(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        whitened, _, number = carry
        gradient, hessian = jax.linearize(jax.grad(loss), whitened)
        direction, _ = cg(hessian, -gradient, tol=0.1, maxiter=_CONJUGATE_GRADIENTS)
        value = loss(whitened)
        promise = -(gradient * direction).sum() / 2
        update: Any
        update, _ = search.update(direction, search.init(whitened), whitened, value=value, grad=gradient, value_fn=loss)
        return whitened + update, promise <= _TOLERANCE * value, number + 1

    def goes_on(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return ~carry[1] & (carry[2] < _STEPS)

    whitened, is_minimum, _ = jax.lax.while_loop(goes_on, step, (factor.T @ start, jnp.asarray(False), jnp.asarray(0)))
    return whitening @ whitened, is_minimum


def _sum(of_block: Callable[[jax.Array, jax.Array], jax.Array], rows: jax.Array, labels: jax.Array) -> jax.Array:
    """The sum of a function of blocks. Only one block's arrays are in memory at once, also for derivatives."""
    if len(rows) == 1:
        return of_block(rows[0], labels[0])
    zero = jnp.zeros_like(jax.eval_shape(of_block, rows[0], labels[0]))
    add = jax.checkpoint(lambda total, block: (total + of_block(*block), None), prevent_cse=False)
    return jax.lax.scan(add, zero, (rows, labels))[0]
