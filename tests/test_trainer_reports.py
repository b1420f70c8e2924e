"""What a trainer is given and what it says: refusals by name, losses, lines, best checkpoints, metrics, card, push."""

import ast
import json
import logging
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from conftest import tiny_config
from transformers import EarlyStoppingCallback, ProgressCallback, TrainerCallback
from transformers.trainer_callback import ExportableState

from modeling_vit_cls import ConfigError, FlaxViTClsForImageClassification, FlaxViTClsModel
from modeling_vit_cls.images.sources import load_images
from modeling_vit_cls.training import FlaxTrainer, TrainingArguments
from modeling_vit_cls.training.callbacks import export_callbacks
from modeling_vit_cls.training.foreign import METHODS_INSTEAD, TRAINER_INSTEAD
from modeling_vit_cls.training.run_folder import checkpoints_of, remove_outdated

pytestmark = pytest.mark.world

ROWS = load_images("digits", "train").select(range(24))
CONFIG = tiny_config(num_channels=1, num_labels=10, num_hidden_layers=1)


def trainer(folder, *, compute_metrics=None, callbacks=None, **changes) -> FlaxTrainer:
    """Three updates an epoch."""
    few = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "save_strategy": "no"}
    arguments = TrainingArguments(str(folder), **(few | changes))
    model = FlaxViTClsForImageClassification(CONFIG)
    return FlaxTrainer(model, arguments, ROWS, ROWS.select(range(8)), None, compute_metrics, callbacks)


def test_the_loss_of_a_run_is_the_mean_over_its_updates_however_it_is_logged_or_stopped(tmp_path, capsys):
    each = trainer(tmp_path / "each", logging_steps=1, num_train_epochs=1.5, eval_strategy="epoch")
    result = each.train()
    losses = [entry["loss"] for entry in each.state.log_history if "loss" in entry]
    assert (result.global_step, len(losses)) == (5, 5)  # the half of the second epoch is rounded up
    assert result.training_loss == pytest.approx(np.mean(losses))
    last = each.state.log_history[-1]
    assert {"train_loss", "train_runtime", "train_samples_per_second", "train_steps_per_second"} < set(result.metrics)
    assert set(last) == {*result.metrics, "step"}
    assert last["train_loss"] == result.metrics["train_loss"] == result.training_loss

    lines = capsys.readouterr()
    assert (lines.out, "\r" in lines.err) == ("", False)
    shown = lines.err.splitlines()
    assert shown[0].startswith("step 1/5, epoch 0.3333: training: loss ")
    assert [line for line in shown if line.startswith("step 3/5, epoch 1: evaluation: loss ")]
    assert shown[-1].startswith("step 5/5, epoch 1.6667: training ended: ")

    short = {"num_train_epochs": 1.5, "save_strategy": "steps", "save_steps": 2}
    never = trainer(tmp_path / "never", logging_steps=4, **short).train()
    assert never.training_loss == pytest.approx(result.training_loss, rel=1e-6)
    again = trainer(tmp_path / "never", logging_steps=4, **short)
    resumed = again.train(resume_from_checkpoint=str(tmp_path / "never" / "checkpoint-2"))
    assert resumed.training_loss == never.training_loss
    again.save_state()
    saved = json.loads((tmp_path / "never" / "trainer_state.json").read_text())["log_history"]
    assert set(saved[-1]) == {"train_loss", "epoch", "step"}  # times are other ones in each run


def test_a_loss_that_a_callback_logs_does_not_take_the_place_of_the_trainers(tmp_path):
    plain = trainer(tmp_path / "plain", logging_steps=2, num_train_epochs=2)
    callback = TrainerCallback()
    callback.on_step_end = lambda *_, **__: run.log({"loss": 100.0})
    run = trainer(tmp_path / "logged", logging_steps=2, num_train_epochs=2, callbacks=[callback])
    assert run.train().training_loss == plain.train().training_loss
    own = [entry for entry in run.state.log_history if entry.get("loss") != 100]
    assert own[:-1] == plain.state.log_history[:-1]  # the last ones have the times of the run


def test_ties_go_to_the_lower_loss_and_what_is_best_is_there_at_the_end(tmp_path):
    often = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 5}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "accuracy", "save_total_limit": 1}
    rates = {"learning_rate": 0.3, "optim": "adamw_torch", "num_train_epochs": 2}
    run = trainer(tmp_path, compute_metrics=lambda _: {"accuracy": 0.5}, **often, **best, **rates)
    run.train()
    losses = {entry["step"]: entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry}
    lowest = min(losses, key=losses.__getitem__)
    assert run.state.best_global_step == lowest
    assert run.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{lowest}")
    assert run.evaluate()["eval_loss"] == pytest.approx(losses[lowest], rel=1e-5)


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [(None, None, [1, 2, 3, 4]), (1, None, [4]), (2, None, [3, 4]), (1, 2, [2, 4]), (2, 2, [2, 4]), (3, 1, [1, 3, 4])],
)
def test_a_limit_counts_the_best_checkpoint_and_spares_the_newest(keep, best, left, tmp_path):
    for step in range(1, 5):
        (tmp_path / f"checkpoint-{step}").mkdir()
    remove_outdated(tmp_path, keep, 10, None if best is None else str(tmp_path / f"checkpoint-{best}"))
    assert [int(folder.name.partition("-")[2]) for folder in checkpoints_of(tmp_path)] == left


def test_numbers_of_numpy_and_jax_are_metrics_and_what_is_no_number_is_refused(tmp_path):
    often = {"eval_strategy": "epoch", "save_strategy": "epoch", "metric_for_best_model": "f1"}
    given = {"f1": np.float32(0.5), "n": np.int64(3), "of_jax": jnp.float32(2), "alone": np.array([4.0]), "plain": 1}
    run = trainer(tmp_path / "numbers", compute_metrics=lambda _: given, **often)
    run.train()
    kept = json.loads((tmp_path / "numbers" / "checkpoint-3" / "trainer_state.json").read_text())
    assert kept["best_metric"] == 0.5
    found = run.evaluate()
    assert [found[f"eval_{name}"] for name in given] == [0.5, 3, 2.0, 4.0, 1]
    run.save_metrics("eval", found)
    for wrong, rule in (
        (0.5, "compute_metrics='float': must return a dict"),
        ({"f1": np.ones(2)}, "numbers by name, but 'f1' is array"),
        ({"f1": "high"}, "numbers by name, but 'f1' is 'high'"),
    ):
        run.compute_metrics = lambda _, wrong=wrong: wrong
        with pytest.raises(ConfigError, match=rule):
            run.evaluate()


def test_numbers_of_numpy_and_jax_may_be_logged_and_kept_by_callbacks_and_what_json_has_not_is_refused(tmp_path):
    callback = Counted(1)
    callback.on_step_begin = lambda *_, **__: run.log({"mine": np.float32(1.5), "of_jax": jnp.bfloat16(2)})
    callback.count = np.int64(0)
    run = trainer(tmp_path, callbacks=[callback], save_strategy="steps", save_steps=1)
    run.train()
    kept = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    assert kept["log_history"][1] == {"mine": 1.5, "of_jax": 2.0, "epoch": 0.3333, "step": 1}
    assert kept["stateful_callbacks"]["Counted"]["attributes"]["count"] == 2
    run.save_metrics("mine", {"f1": np.float32(0.5), "each": np.arange(2)})
    assert json.loads((tmp_path / "mine_results.json").read_text()) == {"f1": 0.5, "each": [0, 1]}
    for name, call in (("logs", run.log), ("metrics", lambda values: run.save_metrics("mine", values))):
        with pytest.raises(ConfigError, match=f"{name}=.*'mine' must be a number, or what JSON can keep"):
            call({"mine": {1, 2}})
    callback.count = object()
    with pytest.raises(ConfigError, match="callbacks=.*'Counted' must be a number, or what JSON can keep"):
        export_callbacks(run.callback_handler, run.state)


def test_names_with_the_prefix_of_the_evaluation_keep_it(tmp_path):
    often = {"eval_strategy": "epoch", "metric_for_best_model": "eval_f1"}
    run = trainer(tmp_path, compute_metrics=lambda _: {"eval_f1": 0.5, "recall": 0.25}, **often)
    run.train()
    assert run.state.best_metric == 0.5
    assert {"eval_f1": 0.5, "eval_recall": 0.25}.items() <= run.evaluate().items()
    assert {"test_eval_f1": 0.5, "test_recall": 0.25}.items() <= run.evaluate(metric_key_prefix="test").items()


def test_an_evaluation_after_the_training_is_logged_as_those_within(tmp_path, capsys):
    class Events(TrainerCallback):
        def __init__(self):
            self.names = []

        def on_log(self, args, state, control, logs, **kwargs):
            self.names.append(("log", *sorted(logs)))

        def on_evaluate(self, args, state, control, metrics, **kwargs):
            self.names.append(("evaluate", *sorted(metrics)))

    events = Events()
    run = trainer(tmp_path, callbacks=[events], eval_strategy="epoch", logging_strategy="no")
    run.train()
    within = events.names[:2]
    assert [event for event, *_ in within] == ["log", "evaluate"]
    events.names.clear()
    metrics = run.evaluate()
    assert events.names == within
    *_, first, _, again = run.state.log_history  # the training's end is between them
    assert again == first == {**first, "eval_loss": metrics["eval_loss"], "epoch": 1.0, "step": 3}
    capsys.readouterr()
    run.evaluate(ROWS.select(range(4)), metric_key_prefix="test")
    assert set(run.state.log_history[-1]) == {"test_loss", "test_accuracy", "epoch", "step"}
    assert capsys.readouterr().err.startswith("step 3/3, epoch 1: evaluation: test_loss ")
    run.save_model()
    run.create_model_card()
    assert (tmp_path / "README.md").is_file()


class Counted(TrainerCallback, ExportableState):
    """Counts the steps, each as `by`."""

    def __init__(self, by: int, count: int = 0):
        self.by, self.count = by, count

    def on_step_end(self, args, state, control, **kwargs):
        self.count += self.by

    def state(self):
        return {"args": {"by": self.by}, "attributes": {"count": self.count}}


def test_callbacks_of_one_class_go_on_each_with_its_own_state(tmp_path):
    often = {"save_strategy": "steps", "save_steps": 1}
    trainer(tmp_path, callbacks=[Counted(1), Counted(10)], **often).train()
    stored = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())["stateful_callbacks"]
    assert [state["attributes"]["count"] for state in stored["Counted"]] == [2, 20]
    for given, counts in (([1, 10], [3, 30]), ([1], [3]), ([1, 10, 100], [3, 30, 100])):
        again = trainer(tmp_path, callbacks=[Counted(by) for by in given], **often)
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
        kept = [callback for callback in again.callback_handler.callbacks if isinstance(callback, Counted)]
        assert [callback.count for callback in kept] == counts


@pytest.mark.parametrize("event", ["on_epoch_begin", "on_step_end", "on_evaluate"])
def test_an_epoch_that_a_callback_would_end_early_is_refused(event, tmp_path):
    callback = TrainerCallback()
    setattr(callback, event, lambda args, state, control, **kwargs: setattr(control, "should_epoch_stop", True))
    run = trainer(tmp_path, callbacks=[callback], eval_strategy="steps", eval_steps=1)
    with pytest.raises(ConfigError, match=r"should_epoch_stop=True: .*set should_training_stop"):
        run.train()
    assert run.state.global_step == 1
    run.remove_callback(callback)
    assert run.train().global_step == 3


def test_a_callback_that_returns_something_else_is_named(tmp_path):
    run = trainer(tmp_path, callbacks=[Returning, EarlyStoppingCallback(1)], eval_strategy="steps", eval_steps=1)
    with pytest.raises(ConfigError, match="callbacks=True: on_evaluate of Returning must return None or a Trainer"):
        run.train()


class Returning(TrainerCallback):
    def on_evaluate(self, *_, **__):
        return True


def test_nan_is_never_the_best(tmp_path, caplog):
    values = iter([np.nan, 0.25, np.nan])
    often = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "f1", "greater_is_better": True}
    run = trainer(tmp_path, compute_metrics=lambda _: {"f1": next(values)}, **often)
    run.train()
    assert (run.state.best_metric, run.state.best_global_step) == (0.25, 2)
    assert "step 1: eval_f1 is NaN, which is never the best" in caplog.text


def test_a_trainer_without_arguments_has_the_defaults():
    model = FlaxViTClsForImageClassification(CONFIG)
    run = FlaxTrainer(model, None, ROWS, data_collator=None, optimizers=(None, None))
    assert run.args == TrainingArguments("tmp_trainer")


def test_what_a_trainer_does_not_take_is_refused_by_name(tmp_path):
    model = FlaxViTClsForImageClassification(CONFIG)
    arguments = TrainingArguments(str(tmp_path))
    for name in TRAINER_INSTEAD:
        with pytest.raises(ConfigError, match="is not an argument of FlaxTrainer: ") as error:
            FlaxTrainer(model, arguments, ROWS, **{name: object()})
        assert error.value.field == name
    with pytest.raises(ConfigError, match="train_dataet=.*did you mean 'train_dataset'"):
        FlaxTrainer(model, arguments, train_dataet=ROWS)
    for theirs in (transformers.TrainingArguments(str(tmp_path), use_cpu=True), {"output_dir": "x"}, "x"):
        with pytest.raises(ConfigError, match=r"args=.*must be modeling_vit_cls.training.TrainingArguments"):
            FlaxTrainer(model, theirs, ROWS)
    for wrong in (None, "my-vit", FlaxViTClsModel(CONFIG)):
        with pytest.raises(ConfigError, match="model=.*must be a FlaxViTClsForImageClassification"):
            FlaxTrainer(wrong, arguments, ROWS)
    with pytest.raises(ConfigError, match="callbacks=.*must be a list"):
        FlaxTrainer(model, arguments, ROWS, callbacks=EarlyStoppingCallback())
    with pytest.raises(ConfigError, match="compute_metrics='accuracy': must be a function"):
        FlaxTrainer(model, arguments, ROWS, compute_metrics="accuracy")


def test_methods_of_transformers_trainer_that_are_never_called_are_refused(tmp_path):
    model, arguments = FlaxViTClsForImageClassification(CONFIG), TrainingArguments(str(tmp_path))
    for name in METHODS_INSTEAD:
        with pytest.raises(ConfigError, match=f"{name}='Mine': FlaxTrainer never calls this method: "):
            type("Mine", (FlaxTrainer,), {name: lambda *_: None})(model, arguments, ROWS)
    run = trainer(tmp_path)
    run.compute_loss = lambda *_: 0
    with pytest.raises(ConfigError, match="compute_loss='FlaxTrainer': .*label_smoothing_factor"):
        run.train()

    class Adding(FlaxTrainer):
        def evaluate(self, *args, **kwargs):
            return super().evaluate(*args, **kwargs) | {"eval_f1": 0.5}

    often = {"eval_strategy": "epoch", "metric_for_best_model": "f1", "max_steps": 1, "save_strategy": "no"}
    added = Adding(model, TrainingArguments(str(tmp_path), **often), ROWS, ROWS, compute_metrics=lambda _: {})
    added.train()
    assert added.state.best_metric == 0.5


def test_each_public_method_of_transformers_trainer_is_there_or_refused_or_for_its_caller():
    source = Path(transformers.__file__).with_name("trainer.py").read_text()
    (theirs,) = [node for node in ast.parse(source).body if getattr(node, "name", None) == "Trainer"]
    names = {node.name for node in theirs.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"}
    for_callers = {"tokenizer", "pop_callback", "hyperparameter_search", "is_local_process_zero", "end"}
    for_callers |= {"get_num_trainable_parameters", "get_learning_rates", "get_optimizer_group"}
    assert names - set(METHODS_INSTEAD) - for_callers <= set(dir(FlaxTrainer))


def test_a_run_that_would_fail_later_is_refused_before_its_first_step(tmp_path):
    class Started(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            raise AssertionError

    late = [Started(), EarlyStoppingCallback(2)]
    with pytest.raises(ConfigError, match="eval_strategy='no': EarlyStoppingCallback needs evaluations"):
        trainer(tmp_path, callbacks=late).train()
    with pytest.raises(ConfigError, match="metric_for_best_model='f1': must be one of loss, accuracy"):
        trainer(tmp_path, callbacks=late, eval_strategy="epoch", metric_for_best_model="f1").train()
    run = trainer(tmp_path, callbacks=late, eval_strategy="epoch")
    run.eval_dataset = None
    with pytest.raises(ConfigError, match="eval_dataset=None: is needed for eval_strategy='epoch'"):
        run.train()


def test_a_bar_is_for_terminals_and_logs_go_above_it(tmp_path, monkeypatch, capsys):
    def names(**changes):
        return {type(one).__name__ for one in trainer(tmp_path, **changes).callback_handler.callbacks}

    assert "LogLinesCallback" in names()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "LogLinesCallback" in names(disable_tqdm=True)
    assert "ImagesPerSecondCallback" in names()
    run = trainer(tmp_path)
    run.state.max_steps = 3
    run._call("on_train_begin")
    run.log({"loss": 0.5})
    run._call("on_train_end")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "step 0/3, epoch 0: training: loss 0.5\n" in shown.err


def test_a_training_that_fails_or_is_stopped_closes_its_bar(tmp_path, monkeypatch):
    class Stops(TrainerCallback):
        def on_step_end(self, *_, **__):
            raise stop

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run = trainer(tmp_path, callbacks=[Stops()])
    bars = [one for one in run.callback_handler.callbacks if isinstance(one, ProgressCallback)]
    for stop in (ValueError("wrong"), KeyboardInterrupt("stopped")):
        with pytest.raises(type(stop)):
            run.train()
        assert [one.training_bar for one in bars] == [None]


def test_a_report_that_cannot_be_made_is_refused_by_name(tmp_path, monkeypatch):
    def fails(names):
        raise RuntimeError("TensorBoardCallback requires tensorboard to be installed")

    monkeypatch.setattr("modeling_vit_cls.training.callbacks.get_reporting_integration_callbacks", fails)
    with pytest.raises(ConfigError, match="report_to='tensorboard': .*pip install tensorboardX"):
        trainer(tmp_path, report_to="tensorboard")


def test_metrics_and_state_are_written_as_transformers_writes_them(tmp_path, capsys):
    run = trainer(tmp_path)
    run.save_metrics("train", {"train_loss": 0.5, "epoch": 1.0})
    run.save_metrics("eval", {"eval_accuracy": 0.25, "epoch": 2.0})
    run.save_metrics("test", {"test_accuracy": 0.125}, combined=False)
    read = {name: json.loads((tmp_path / f"{name}_results.json").read_text()) for name in ("train", "eval", "all")}
    assert read["train"] == {"train_loss": 0.5, "epoch": 1.0}
    assert read["all"] == {"train_loss": 0.5, "eval_accuracy": 0.25, "epoch": 2.0}
    assert (tmp_path / "test_results.json").exists()
    run.log_metrics("eval", {"eval_accuracy": 0.123456, "eval_runtime": 61.5})
    assert capsys.readouterr().out == (
        "***** eval metrics *****\n  eval_accuracy =     0.1235\n  eval_runtime  = 0:01:01.50\n"
    )
    run.save_state()
    assert json.loads((tmp_path / "trainer_state.json").read_text())["global_step"] == 0
    for text in ("[", "[1]"):
        (tmp_path / "all_results.json").write_text(text)
        with pytest.raises(ConfigError, match=r"all_results\.json"):
            run.save_metrics("train", {"train_loss": 0.5})


def test_a_trainer_writes_its_card_and_pushes_in_one_commit(tmp_path, hub, caplog):
    caplog.set_level(logging.ERROR)
    run = trainer(tmp_path / "run", hub_model_id="trainer/reports")
    pushed = run.push_to_hub("First", private=True)
    repository = hub.repositories["trainer/reports"]
    assert pushed.repo_id == "trainer/reports"
    files = repository.commits[repository.refs["main"]]
    assert {"config.json", "model.safetensors", "README.md", "trainer_state.json"} <= set(files)
    assert b"trainer/reports" in files["README.md"]
    assert len(repository.history) == 2  # the empty one, and this
    for name in ("license", "tags", "finetuned_from"):
        with pytest.raises(ConfigError, match=f"{name}=.*the card is written from"):
            run.create_model_card(**{name: "a"})
    with pytest.raises(ConfigError, match="blocking=False"):
        run.push_to_hub(blocking=False)
    with pytest.raises(ConfigError, match="commit_message='me/mine': is a repository's name: set hub_model_id"):
        run.push_to_hub("me/mine")
    assert len(repository.history) == 2
