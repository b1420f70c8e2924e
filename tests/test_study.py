"""The readout study: two tiny runs from end to end, killed and gone on; its tables; its statistics beside SciPy's."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from benchmarks.study.corruptions import corrupted
from benchmarks.study.cost import measure_costs, read_costs
from benchmarks.study.plan import Study, StudyError
from benchmarks.study.record import Record
from benchmarks.study.report import write_report
from benchmarks.study.runner import run_all
from benchmarks.study.statistics import difference, spread
from modeling_vit_cls.training.run import build_model

ROOT = Path(__file__).parent.parent

TABLE = """
recipes:
  tiny: {minutes: 0.1, rates: [1.0e-3, 4.0e-3]}
models:
  cls: {readout: cls}
  mean: {readout: mean}
seeds: [0, 1]
choice: {seed: 100, share: 0.25}
"""
RECIPE = """
output_dir: build/study/tiny
config_overrides: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32,
  image_size: 8, patch_size: 4, num_channels: 1}
dataset_name: digits
max_train_samples: 200
train_val_split: 0.1
max_steps: 40
per_device_train_batch_size: 16
logging_steps: 10
eval_strategy: steps
eval_steps: 10
save_strategy: steps
save_steps: 2
save_total_limit: 1
test_split: test
disable_tqdm: true
"""
CHILD = """
import sys
from pathlib import Path
from benchmarks.study.plan import Study
from benchmarks.study.runner import run_all
run_all(Study(*map(Path, sys.argv[1:4])), sys.argv[4])
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A tiny study of which the learning rate and two of four runs are done; the first was killed and went on."""
    root = tmp_path_factory.mktemp("study")
    (root / "study.yaml").write_text(TABLE)
    (root / "tiny.yaml").write_text(RECIPE)
    study = Study(root / "study.yaml", root / "records", root / "runs")
    with pytest.raises(StudyError, match=r"tiny-cls-0 has no learning rate yet: .* --only 'tiny-cls-rate-\*'"):
        run_all(study, "tiny-cls-0")
    run_all(study, "tiny-*-rate-*")
    first = study.runs("tiny-cls-0")[0]
    kill_at_first_checkpoint(study, first.name)
    assert study.state(first) == "begun"
    run_all(study, "tiny-*-0")
    return study


def kill_at_first_checkpoint(study: Study, name: str) -> None:
    paths = [str(study.table), str(study.records), str(study.folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen([sys.executable, "-c", CHILD, *paths, name], env=environment) as child:
        while child.poll() is None and not any((study.folder / name).glob("checkpoint-*")):
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL


def test_a_killed_run_ends_as_one_that_was_not(study, tmp_path):
    again = replace(study, folder=tmp_path / "runs", records=tmp_path / "records")
    again.records.mkdir()
    for rate in study.runs("tiny-*-rate-*"):
        (again.records / f"{rate.name}.json").write_bytes((study.records / f"{rate.name}.json").read_bytes())
    run_all(again, "tiny-cls-0")
    (run,) = study.runs("tiny-cls-0")
    killed, whole = study.record(run), again.record(run)
    assert killed is not None
    assert whole is not None
    assert [row[0] for row in killed.curve] == [10, 20, 30, 40]
    for name in ("curve", "readings", "robustness", "accuracy"):
        assert getattr(killed, name) == getattr(whole, name)


def test_what_is_done_is_not_run_again(study):
    file = study.records / "tiny-cls-0.json"
    before = file.stat().st_mtime_ns
    assert study.state(study.runs("tiny-cls-0")[0]) == "done"
    run_all(study, "tiny-cls-0")
    assert file.stat().st_mtime_ns == before


def test_time_that_is_over_leaves_a_run_that_goes_on(study):
    (run,) = study.runs("tiny-mean-1")
    run_all(study, run.name, minutes=0)
    assert study.state(run) == "to do"


def test_records(study):
    """Each has its measurements, and no folder of this machine; the own reading is the accuracy of the benchmark."""
    for run in study.runs("tiny-*-0"):
        text = (study.records / f"{run.name}.json").read_text()
        assert str(study.folder) not in text
        assert len(text) < 6_000
        record = study.record(run)
        assert record.readings.keys() == {"classifier cls", "classifier mean", "probe cls", "probe mean"}
        own = record.readings[f"classifier {run.model}"]
        assert record.results.dataset.examples == 360
        assert 0.1 < record.accuracy <= 1
        assert own == pytest.approx(record.accuracy, abs=1.5 / 360)  # rounding may turn one image
        assert record.robustness["unchanged"] == pytest.approx(record.accuracy, abs=1.5 / 360)
        assert len(record.robustness) == 7
        assert record.results.recipe["learning_rate"] == study.chosen_rate("tiny", run.model)
    for run in study.runs("tiny-*-rate-*"):
        record = study.record(run)
        assert record.results.dataset.split != "test"
        assert record.curve[-1][0] == 10


def test_an_outdated_record_stops_the_study(study, tmp_path):
    (tmp_path / "study.yaml").write_text(TABLE)
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace("max_steps: 40", "max_steps: 60"))
    changed = replace(study, table=tmp_path / "study.yaml")
    run = changed.runs("tiny-*-rate-*")[0]
    assert changed.state(run) == "outdated"
    assert changed.record(run) is None
    with pytest.raises(StudyError, match="is of another recipe or learning rate"):
        run_all(changed)


def test_an_incomplete_study_names_what_is_missing_and_claims_nothing(study):
    text = write_report(study).read_text()
    assert "2 of 8 runs are missing, and nothing is said of them: 2 of tiny." in text
    assert "| mean | 1 of 2 runs |" in text
    for claim in ("higher", ": lower", "<br>"):
        assert claim not in text.partition("## tiny")[2]
    assert not (study.records / "tiny.png").exists()


@pytest.fixture
def whole(study, tmp_path):
    """A complete study: the records of seed 1 are those of seed 0 with other accuracies."""
    for file in study.records.glob("*.json"):
        record = Record.read(file)
        record.write(tmp_path / file.name)
        if file.stem.endswith("-0"):
            metrics = dict(record.results.metrics) | {"accuracy": record.accuracy + 0.01}
            other = dict(record.results.recipe or {}) | {"seed": 1}
            changed = replace(record, results=replace(record.results, metrics=metrics, recipe=other))
            changed.write(tmp_path / file.name.replace("-0.json", "-1.json"))
    return replace(study, records=tmp_path)


def test_a_complete_study_has_tables_and_curves(whole):
    text = write_report(whole).read_text()
    assert "All 8 runs are done." in text
    accuracies = {model: Record.read(whole.records / f"tiny-{model}-0.json").accuracy for model in ("cls", "mean")}
    gap = accuracies["mean"] - accuracies["cls"]
    half = 1 / 360  # one image of the test set, because the gaps of both seeds are equal
    verdict = "within the noise" if abs(gap) <= half else "higher" if gap > 0 else "lower"
    interval = f"{gap:+.4f} from {gap - half:+.4f} to {gap + half:+.4f}: {verdict}"
    row = f"| mean | {accuracies['mean'] + 0.005:.4f} ± 0.0071<br>{interval} |"
    assert row in text
    assert (whole.records / "tiny.png").read_bytes().startswith(b"\x89PNG")


def test_costs_are_measured_once_of_what_is_complete_and_compared_by_round(study, whole):
    measure_costs(study, rounds=2)
    assert read_costs(study, "tiny") is None
    assert "Processor time" not in write_report(whole).read_text()
    measure_costs(whole, rounds=2)
    _, costs = read_costs(whole, "tiny")
    assert {model: len(rounds) for model, rounds in costs.items()} == {"cls": 2, "mean": 2}
    assert all(time > 0 for rounds in costs.values() for time in rounds)
    written = (whole.records / "costs.json").stat().st_mtime_ns
    measure_costs(whole, rounds=2)
    assert (whole.records / "costs.json").stat().st_mtime_ns == written
    ratios = sorted(mean / cls for mean, cls in zip(costs["mean"], costs["cls"]))
    row = f"| mean | {sum(costs['mean']) / 2:.1f} | {sum(ratios) / 2:.2f}, {ratios[0]:.2f} to {ratios[1]:.2f} |"
    assert row in write_report(whole).read_text()


def test_intervals_are_those_of_scipy():
    generator = np.random.default_rng(0)
    for count in (2, 3, 10):
        values, reference = generator.normal(0.9, 0.01, (2, count))
        ours, theirs = difference(values, reference), ttest_rel(values, reference)
        interval = theirs.confidence_interval(0.95)
        np.testing.assert_allclose((ours.low, ours.high), (interval.low, interval.high), rtol=1e-9)
        assert (ours.verdict == "within the noise") == (theirs.pvalue >= 0.05)


def test_verdicts():
    assert difference([0.9, 0.91, 0.92], [0.8, 0.811, 0.819]).verdict == "higher"
    assert difference([0.8, 0.811, 0.819], [0.9, 0.91, 0.92]).verdict == "lower"
    assert difference([0.9, 0.8, 0.85], [0.85, 0.85, 0.85]).verdict == "within the noise"
    equal = [0.5, 0.5, 0.5], [0.4999, 0.4999, 0.4999]
    assert difference(*equal, resolution=0.001).verdict == "within the noise"
    assert spread([1.0, 2.0, 3.0]) == 1
    with pytest.raises(ValueError, match="at least two: got 1 and 1"):
        difference([0.9], [0.8])


def test_changed_images_are_the_same_for_all_and_change_as_much_as_they_should():
    images = np.full((6, 8, 8), 200, np.uint8)
    changed, again = corrupted(images), corrupted(images)
    assert all(np.array_equal(changed[name], again[name]) for name in changed)
    assert [*changed] == [
        "unchanged", "shift 0.125", "shift 0.25", "noise 0.1", "noise 0.3", "occlusion 0.25", "occlusion 0.5",
    ]  # fmt: skip
    assert np.array_equal(changed["unchanged"], images)
    black = {name: (pixels == 0).sum(axis=(1, 2)) for name, pixels in changed.items()}
    for name, count in {"shift 0.125": 8, "shift 0.25": 16, "occlusion 0.25": 4, "occlusion 0.5": 16}.items():
        assert (black[name] == count).all()
    grey = np.full((50, 20, 20), 128, np.uint8)
    assert corrupted(grey)["noise 0.1"].std() == pytest.approx(25.5, rel=0.02)


def test_the_study_of_the_repository():
    """Its recipes are read; models of a recipe differ in the readout and registers alone, sizes are as planned."""
    study = Study()
    runs = study.runs()
    assert len({run.name for run in runs}) == len(runs) == 4 * 5 * (3 + 3)
    hours = sum(study.minutes(run) for run in runs) / 60
    assert hours <= 6
    for recipe in study.fields["recipes"]:
        recipes = [study.recipe(run, 1e-3) for run in runs if run.recipe == recipe and run.rate is None]
        assert len({(r.training.max_steps, r.training.train_batch_size) for r in recipes}) == 1
        share = study.fields["choice"]["share"]
        assert recipes[0].training.max_steps * share % 10 == 0, "each tenth of a run is a row of its curve"
        sizes = [r.model.overrides for r in recipes]
        kinds = {json.dumps([size.pop("readout"), size.pop("num_register_tokens", 0)]) for size in sizes}
        assert len(kinds) == 5
        assert all(size == sizes[0] for size in sizes)


@pytest.mark.parametrize(("recipe", "parameters"), [("digits_small", 0.2e6), ("fashion_mnist_large", 1.5e6)])
def test_sizes_are_as_planned(recipe, parameters):
    study = Study()
    model = build_model(study.recipe(study.runs(f"{recipe}-cls-0")[0], 1e-3).model, [str(i) for i in range(10)], 0)
    assert model.num_parameters() == pytest.approx(parameters, rel=0.1)
