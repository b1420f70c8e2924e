"""Time of the probe beside scikit-learn's logistic regression, digits and wide rows: `python -m benchmarks.probe`."""

import argparse
import time
import warnings

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from modeling_vit_cls.evaluation.probe import CS, logistic_regression

EVERY = 11  # of the 45 values of C: 1e-6, 5.6e-4, 0.32, 180, 1e5


def main() -> None:
    """Print a row for each C and solver: seconds of the processor, and the loss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000, help="Number of the wide rows.")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="lbfgs failed to converge")  # at its 1,000 iterations
    pixels, labels = load_digits(return_X_y=True)
    print(f"digits, {len(pixels):,} x {pixels.shape[1]}")
    compare(pixels / 16, labels)
    print(f"features of 10 classes, {arguments.rows:,} x 192")
    compare(*wide(arguments.rows))


def wide(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 192) of 10 overlapping classes, whose scales span three orders as those of a backbone do."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 10
    rows = generator.normal(size=(10, 192))[labels] / 8 + generator.normal(size=(count, 192))
    return rows * np.logspace(0, -3, 192) @ np.linalg.qr(generator.normal(size=(192, 192)))[0], labels


def compare(features: np.ndarray, labels: np.ndarray) -> None:
    """Fit each C by the probe and by scikit-learn from zero, and the probe also as one sweep over all."""
    logistic_regression(features, labels, CS[:1], 10)  # compiles
    for c in CS[::EVERY]:
        start = time.process_time()
        (kernel,), (bias,) = logistic_regression(features, labels, [c], 10)
        report(c, "probe", time.process_time() - start, loss(features, labels, c, kernel, bias))
        start = time.process_time()
        theirs = LogisticRegression(C=c, max_iter=1000).fit(features, labels)
        seconds = time.process_time() - start
        report(c, "scikit-learn", seconds, loss(features, labels, c, theirs.coef_.T, theirs.intercept_))
    start = time.process_time()
    logistic_regression(features, labels, CS, 10)
    print(f"{len(CS)} values of C by the probe: {time.process_time() - start:.1f} s", flush=True)


def loss(features: np.ndarray, labels: np.ndarray, c: float, kernel: np.ndarray, bias: np.ndarray) -> float:
    """Mean cross-entropy and squares of the kernel."""
    logits = features @ kernel + bias
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    entropy = log_loss(labels, odds / odds.sum(axis=1, keepdims=True))
    return entropy + float((kernel**2).sum()) / (2 * c * len(labels))


def report(c: float, solver: str, seconds: float, value: float) -> None:
    """Print one row."""
    print(f"C {c:8.2g}  {solver:<14}{seconds:8.2f} s  loss {value:.7f}", flush=True)


if __name__ == "__main__":
    main()
