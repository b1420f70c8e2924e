"""Our metrics against scikit-learn's, and metrics of others by name."""

import evaluate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_hub import Repository
from sklearn.metrics import accuracy_score, f1_score, log_loss, top_k_accuracy_score

from modeling_vit_cls import ConfigError
from modeling_vit_cls.evaluation.metrics import (
    METRICS,
    Accuracy,
    ExpectedCalibrationError,
    MacroF1,
    NegativeLogLikelihood,
    TopKAccuracy,
    compute_metrics,
    load_metric,
    load_metrics,
)

PEERS = {
    "accuracy": Accuracy(),
    "macro_f1": MacroF1(),
    "top_2_accuracy": TopKAccuracy(2),
    "nll": NegativeLogLikelihood(),
}
SCRIPT = """
import datasets
import evaluate

class Share(evaluate.Metric):
    def _info(self):
        features = {"predictions": datasets.Value("int32"), "references": datasets.Value("int32")}
        return evaluate.MetricInfo("", citation="", features=datasets.Features(features))

    def _compute(self, predictions, references):
        return RESULT
"""
SHARE_OF_ALL = "{'share': sum(p == r for p, r in zip(predictions, references)) / len(references)}"
SHARE = SCRIPT.replace("RESULT", SHARE_OF_ALL)


def examples(seed: int, number: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, K) float32 and true classes (N,)."""
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(classes), number).astype(np.float32)
    return probabilities, generator.integers(0, classes, number)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(3, 12))
def test_numbers_are_scikit_learns(seed, number, classes):
    probabilities, references = examples(seed, number, classes)
    predictions = probabilities.argmax(axis=1)
    found = compute_metrics(PEERS, probabilities, references)
    assert found["accuracy"] == pytest.approx(accuracy_score(references, predictions))
    every = np.arange(classes)
    assert found["top_2_accuracy"] == pytest.approx(top_k_accuracy_score(references, probabilities, k=2, labels=every))
    assert found["macro_f1"] == pytest.approx(f1_score(references, predictions, average="macro"))
    sure = np.maximum(probabilities.astype(np.float64), 1e-10)
    wanted = log_loss(references, sure / sure.sum(axis=1, keepdims=True), labels=every)
    assert found["nll"] == pytest.approx(wanted, rel=1e-4)


def test_top_5_is_one_with_five_classes_and_exact_with_six():
    probabilities, references = examples(0, 200, 5)
    assert TopKAccuracy().compute(predictions=probabilities, references=references) == {"top_5_accuracy": 1.0}
    probabilities, references = examples(0, 200, 6)
    wrong = (probabilities.argmin(axis=1) == references).mean()
    assert 0 < wrong < 1
    found = TopKAccuracy().compute(predictions=probabilities, references=references)
    assert found["top_5_accuracy"] == pytest.approx(1 - wrong)


def test_equal_scores_are_no_better_than_chance():
    same = np.full((10, 10), 0.1)
    assert TopKAccuracy().compute(predictions=same, references=np.arange(10)) == {"top_5_accuracy": 0.5}


def test_calibration_error_by_hand():
    # Bin (12/15, 13/15]: confidence 0.85 twice, one right: |0.5 - 0.85| * 2/5. Bin (8/15, 9/15]: 0.55, 0.55, 0.6, of
    # which two are right: |2 - 1.7| / 5.
    rows = [[0.85, 0.15], [0.15, 0.85], [0.55, 0.45], [0.45, 0.55], [0.6 - 1e-6, 0.4 + 1e-6]]
    found = ExpectedCalibrationError().compute(predictions=rows, references=[0, 0, 0, 1, 1])
    assert found["ece"] == pytest.approx((2 * 0.35 + 0.3) / 5, abs=1e-6)


def test_calibration_error_bin_by_bin():
    confidence = np.random.default_rng(0).uniform(0.5, 1, 400).astype(np.float32)
    right = np.ceil(confidence * 15) % 2 == 0  # bins that are too sure beside bins that are not sure enough
    wanted = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            wanted += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    rows = np.stack([confidence, 1 - confidence], axis=1)
    found = ExpectedCalibrationError().compute(predictions=rows, references=np.where(right, 0, 1))
    assert found["ece"] == pytest.approx(wanted, rel=1e-5)


def test_calibration_error_of_the_certain_and_of_the_calibrated():
    ece = ExpectedCalibrationError()
    assert ece.compute(predictions=np.eye(4), references=[0, 1, 2, 3]) == {"ece": 0.0}
    assert ece.compute(predictions=np.eye(4), references=[1, 2, 3, 0]) == {"ece": 1.0}
    generator = np.random.default_rng(0)
    sure = generator.uniform(0.5, 1, 20_000)
    references = (generator.random(20_000) > sure).astype(int)
    assert ece.compute(predictions=np.stack([sure, 1 - sure], axis=1), references=references)["ece"] < 0.02


def test_an_impossible_class_costs_much_and_not_everything():
    found = NegativeLogLikelihood().compute(predictions=[[1.0, 0.0]], references=[1])
    assert 80 < found["nll"] < 100


def test_added_by_batch_and_from_jax():
    jnp = pytest.importorskip("jax.numpy")
    probabilities, references = examples(1, 30, 4)
    metric = NegativeLogLikelihood()
    for start in range(0, 30, 7):
        metric.add_batch(
            predictions=jnp.asarray(probabilities[start : start + 7]), references=references[start : start + 7]
        )
    assert metric.compute() == metric.compute(predictions=probabilities, references=references)


@pytest.mark.parametrize("name", METRICS)
def test_nothing_and_nan_are_errors(name):
    metric = load_metric(name)
    with pytest.raises(ValueError, match="no examples"):
        metric.compute(predictions=[], references=[])
    with pytest.raises(ValueError, match="no examples"):
        metric.compute()
    nan = [0, float("nan")] if name in ("accuracy", "macro_f1") else [[0.5, 0.5], [float("nan"), 0.5]]
    with pytest.raises(ValueError, match="NaN"):
        metric.compute(predictions=nan, references=[0, 1])
    good = [0, 1] if name in ("accuracy", "macro_f1") else [[0.5, 0.5], [0.5, 0.5]]
    for wrong in ([0, -1], [0, 0.5], [0, float("nan")]):
        with pytest.raises(ValueError, match="references"):
            metric.compute(predictions=good, references=wrong)
    with pytest.raises(ValueError, match="[Mm]ismatch"):
        metric.compute(predictions=good, references=[0, 1, 1])
    assert metric.compute(predictions=good, references=[0, 1])  # an error leaves nothing behind


def test_wrong_scores_are_errors():
    for metric in (TopKAccuracy(), NegativeLogLikelihood(), ExpectedCalibrationError()):
        with pytest.raises(ValueError, match="class 2, predictions are of 2 classes"):
            metric.compute(predictions=[[0.5, 0.5]], references=[2])
        with pytest.raises(ValueError, match="rows of one length"):
            metric.compute(predictions=[[0.5, 0.5], [1.0]], references=[0, 0])
    for metric in (NegativeLogLikelihood(), ExpectedCalibrationError()):
        with pytest.raises(ValueError, match="apply softmax"):
            metric.compute(predictions=[[2.0, -1.0]], references=[0])
    with pytest.raises(ValueError, match="predictions: expected class numbers"):
        Accuracy().compute(predictions=[0.7], references=[0])
    with pytest.raises(ConfigError, match="k=0"):
        TopKAccuracy(0)


def test_a_metric_in_a_folder(tmp_path):
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "share.py").write_text(SHARE)
    probabilities, references = examples(2, 50, 3)
    metrics = {name: load_metric(name) for name in (str(tmp_path / "share"), "accuracy", "nll")}
    found = compute_metrics(metrics, probabilities, references)
    assert list(found) == ["share", "accuracy", "nll"]
    assert found["share"] == found["accuracy"]


def test_a_metric_of_the_hub(hub):
    hub.repositories["evaluate-metric/accuracy"] = Repository()
    hub.repositories["evaluate-metric/accuracy"].commit({"accuracy.py": SHARE.encode()}, "a metric", "main")
    metric = load_metric("evaluate-metric/accuracy")
    assert type(metric).__name__ == "Share"
    assert metric.compute(predictions=[0, 1, 1, 1], references=[0, 1, 0, 1]) == {"share": 0.75}
    assert isinstance(load_metric("accuracy"), Accuracy)  # ours, which needs no network
    assert isinstance(load_metric(metric), evaluate.Metric)


def test_what_cannot_be_had_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("no_such_metric", "nobody/nothing", "./empty"):
        with pytest.raises(ConfigError, match=f"metrics='{name}': is neither one of accuracy, top_5_accuracy"):
            load_metric(name)
    (tmp_path / "broken.py").write_text("import evaluate\nimport a_package_that_is_not_there\n")
    with pytest.raises(ConfigError, match=r"broken.py': .*a_package_that_is_not_there"):
        load_metric("broken.py")


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("{'accuracy': 0.5}", "gives accuracy=0.5, expected one"),
        ("{'loss': float('nan')}", "gives loss=nan, expected one finite"),
        ("{'each': [0.5, 0.5]}", "TypeError"),
    ],
)
def test_metrics_that_fail_are_named(tmp_path, monkeypatch, result, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "share.py").write_text(SCRIPT.replace("RESULT", result))
    metrics = {name: load_metric(name) for name in ("accuracy", "share.py")}
    with pytest.raises(ConfigError, match=rf"share.py': .*{message}"):
        compute_metrics(metrics, *examples(0, 4, 3))


BINARY = "{'precision': __import__('sklearn.metrics').metrics.precision_score(references, predictions)}"

OF_ERRORS = "{'mean': sum(abs(p - r) for p, r in zip(predictions, references)) / sum(p != r for p, r in"
OF_ERRORS += " zip(predictions, references))}"


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (BINARY, "ValueError: .*Target is multiclass"),
        ("{'accuracy': 0.5}", "gives accuracy=0.5, expected one"),
        ("{'each': [0.5, 0.5]}", "TypeError"),
    ],
)
def test_a_metric_that_cannot_be_computed_of_the_classes_is_refused_once_it_is_loaded(
    tmp_path, monkeypatch, result, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "share.py").write_text(SCRIPT.replace("RESULT", result))
    with pytest.raises(ConfigError, match=rf"share.py': .*{message}"):
        load_metrics(["accuracy", "share.py"], 3)


@pytest.mark.parametrize(
    ("result", "classes"),
    [
        (SHARE_OF_ALL, 2),
        (SHARE_OF_ALL, 40),
        (BINARY, 2),
        (OF_ERRORS, 3),
        ("{'of_none': float('nan')}", 3),
        ("{'of_none': 0 / sum(p > 99 for p in predictions)}", 3),
    ],
)
def test_a_metric_that_other_examples_may_give_is_loaded(tmp_path, monkeypatch, result, classes):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "share.py").write_text(SCRIPT.replace("RESULT", result))
    assert list(load_metrics(["accuracy", "nll", "share.py"], classes)) == ["accuracy", "nll", "share.py"]
