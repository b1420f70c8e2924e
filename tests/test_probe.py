"""Logistic regression on features: the loss of scikit-learn's for each C, C chosen on held-out rows."""

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from modeling_vit_cls import ConfigError
from modeling_vit_cls.evaluation import probe
from modeling_vit_cls.evaluation.probe import CS, fit_probe, logistic_regression
from modeling_vit_cls.images.sampling import hold_out

SOME = (1e-6, 1e-2, 1.0, 1e3, 1e5)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """100 digits as features of width 16, far from zero."""
    pixels, labels = load_digits(n_class=5, return_X_y=True)
    mix = np.random.default_rng(0).normal(size=(64, 16)) / 8
    return (pixels[:300] @ mix / 4 + 3).astype(np.float32), labels[:300]


def loss(kernel, bias, features, labels, c, strength=1) -> float:
    """Mean cross-entropy and squares of the kernel, in float64."""
    logits = features.astype(np.float64) @ kernel + bias
    own = logits[np.arange(len(labels)), labels]
    others = np.where(np.eye(logits.shape[1], dtype=bool)[labels], -np.inf, logits - own[:, None])
    return np.logaddexp(0, logsumexp(others, axis=1)).mean() + strength * (kernel**2).sum() / (2 * c * len(labels))


@pytest.mark.parametrize("classes", [5, 2])
def test_the_loss_is_that_of_scikit_learn_for_each_c(digits, classes):
    rows = digits[1] < classes
    features, labels = digits[0][rows][:100], digits[1][rows][:100]
    kernels, biases = logistic_regression(features, labels, SOME, classes)
    for c, kernel, bias in zip(SOME, kernels, biases):
        theirs = LogisticRegression(C=c, tol=1e-12, max_iter=20_000).fit(features.astype(np.float64), labels)
        weights, offset, strength = theirs.coef_.T, theirs.intercept_, 1
        if classes == 2:  # scikit-learn's kernel is the difference of the two
            weights, offset, strength = np.hstack([-weights, weights]) / 2, np.r_[-offset, offset] / 2, 2
        ours, wanted = (loss(*w, features, labels, c, strength) for w in ((kernel, bias), (weights, offset)))
        assert ours == pytest.approx(wanted, rel=1e-4), c
        agreeing = (features @ kernel + bias).argmax(axis=1) == theirs.predict(features.astype(np.float64))
        assert (~agreeing).sum() <= 1


def test_scales_and_dependent_features_cost_no_accuracy(digits):
    """A trained backbone's features: separable, of many scales, with a sum that is constant."""
    scales = np.logspace(-3, 1, 16)
    features, labels = (digits[0][:120] * scales).astype(np.float64), digits[1][:120]
    features = np.hstack([features, -features.sum(axis=1, keepdims=True)])
    kernels, biases = logistic_regression(features, labels, CS[::11], 5)
    for c, kernel, bias in zip(CS[::11], kernels, biases):
        theirs = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-9, max_iter=1000).fit(features, labels)
        wanted = loss(theirs.coef_.T, theirs.intercept_, features, labels, c)
        assert loss(kernel, bias, features, labels, c) == pytest.approx(wanted, rel=1e-5), c


def test_a_warning_names_what_was_stopped_early(digits, monkeypatch, caplog):
    monkeypatch.setattr(probe, "_STEPS", 2)
    features, labels = digits[0][:77], digits[1][:77]  # a shape of its own, which no other test has compiled
    logistic_regression(features, labels, SOME, 5)
    (message,) = caplog.messages
    assert message.startswith("a probe with C = ")
    assert "1e+05 was stopped after 2 steps" in message
    assert "1e-06" not in message


def test_blocks_of_rows_change_nothing(digits, monkeypatch):
    features, labels = digits[0][:100], digits[1][:100]
    whole = logistic_regression(features, labels, SOME[1:3], 5)
    monkeypatch.setattr(probe, "_BLOCK", 17 * 33)  # 33 rows in a block, the last not full
    for a, b in zip(whole, logistic_regression(features, labels, SOME[1:3], 5)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_c_is_chosen_on_held_out_rows_and_the_probe_is_fitted_to_all(digits):
    features, labels = digits
    fitted = fit_probe(features, labels, list("01234"), SOME)
    kept, held_out = hold_out(labels.tolist(), 0.1, 0)
    accuracies = []
    for c in SOME:
        model = LogisticRegression(C=c, max_iter=20_000).fit(features[kept].astype(np.float64), labels[kept])
        accuracies.append(model.score(features[held_out].astype(np.float64), labels[held_out]))
    assert fitted.held_out_accuracy == pytest.approx(max(accuracies))
    assert accuracies[SOME.index(fitted.c)] == max(accuracies)
    (kernel,), (bias,) = logistic_regression(features, labels, [fitted.c], 5)
    np.testing.assert_allclose(fitted.kernel, kernel, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fitted.bias, bias, rtol=1e-5, atol=1e-6)
    probabilities = fitted.probabilities(features)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (probabilities.argmax(axis=1) == labels).mean() > 0.9
    assert fitted.kernel.dtype == fitted.bias.dtype == np.float32


def test_a_bar_counts_the_cs(digits, capsys):
    fit_probe(*digits, list("01234"), SOME[:2], title="probe of cls")
    shown = capsys.readouterr().err
    assert "probe of cls: 100%" in shown
    assert "2/2" in shown
    fit_probe(*digits, list("01234"), SOME[:2], disable_tqdm=None)
    assert capsys.readouterr().err == "", "not a terminal"


def test_the_protocols_cs():
    assert (len(CS), CS[0], CS[-1]) == (45, pytest.approx(1e-6), pytest.approx(1e5))
    assert np.allclose(np.diff(np.log(CS)), np.log(10) / 4)


def test_bad_input_is_one_line(digits):
    features, labels = digits[0][:40], digits[1][:40]
    broken = np.where(np.arange(40)[:, None] == 3, np.inf, features)
    for call, message in (
        (lambda: fit_probe(features, labels * 0, ["a"]), "a probe needs at least two"),
        (lambda: fit_probe(features, labels, list("012345")), "class='5': has no image in the training split"),
        (lambda: fit_probe(features[:2], np.arange(2), list("01")), "none can be held out"),
        (lambda: fit_probe(broken, labels, list("01234")), "must be finite in float32: row 3 is not"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()
