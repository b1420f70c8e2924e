"""Time of the probe beside scikit-learn's logistic regression, digits and wide rows: `python -m benchmarks.probe`.

Writes results/probe.md.
"""

import argparse
import os
import time
import warnings
from importlib.metadata import version

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from modeling_vit_cls.evaluation.probe import CS, logistic_regression

from .report import write

EVERY = 11  # of the 45 values of C: 1e-6, 5.6e-4, 0.32, 180, 1e5


def main() -> None:
    """Measure, print and write a row for each C and solver."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000, help="Number of the wide rows.")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="lbfgs failed to converge")  # at its 1,000 iterations
    pixels, labels = load_digits(return_X_y=True)
    lines = [f"scikit-learn {version('scikit-learn')}; load average {os.getloadavg()[0]:.1f} at the start", ""]
    lines += ["| rows | C | solver | seconds of the processor | loss |", "|---|---|---|---|---|"]
    lines += compare(f"digits, {len(pixels):,} x {pixels.shape[1]}", pixels / 16, labels)
    lines += compare(f"10 classes, {arguments.rows:,} x 192", *wide(arguments.rows))
    write("probe", lines)


def wide(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 192) of 10 overlapping classes, whose scales span three orders as those of a backbone do."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 10
    rows = generator.normal(size=(10, 192))[labels] / 8 + generator.normal(size=(count, 192))
    return rows * np.logspace(0, -3, 192) @ np.linalg.qr(generator.normal(size=(192, 192)))[0], labels


def compare(name: str, features: np.ndarray, labels: np.ndarray) -> list[str]:
    """Fit each C by the probe and by scikit-learn from zero, and the probe also as one sweep over all: lines."""
    logistic_regression(features, labels, CS[:1], 10)  # compiles
    lines = []
    for c in CS[::EVERY]:
        start = time.process_time()
        (kernel,), (bias,) = logistic_regression(features, labels, [c], 10)
        seconds = time.process_time() - start
        lines.append(f"| {name} | {c:.3g} | probe | {seconds:.2f} | {loss(features, labels, c, kernel, bias):.7f} |")
        start = time.process_time()
        theirs = LogisticRegression(C=c, max_iter=1000).fit(features, labels)
        seconds, value = time.process_time() - start, loss(features, labels, c, theirs.coef_.T, theirs.intercept_)
        lines.append(f"| {name} | {c:.3g} | scikit-learn | {seconds:.2f} | {value:.7f} |")
    start = time.process_time()
    logistic_regression(features, labels, CS, 10)
    lines.append(f"| {name} | all {len(CS)} | probe | {time.process_time() - start:.2f} | |")
    return lines


def loss(features: np.ndarray, labels: np.ndarray, c: float, kernel: np.ndarray, bias: np.ndarray) -> float:
    """Mean cross-entropy and squares of the kernel."""
    logits = features @ kernel + bias
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    entropy = log_loss(labels, odds / odds.sum(axis=1, keepdims=True))
    return entropy + float((kernel**2).sum()) / (2 * c * len(labels))


if __name__ == "__main__":
    main()
