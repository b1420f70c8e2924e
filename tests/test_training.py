"""The trainer: what it computes, what it keeps, what it refuses."""

import copy
import json
import multiprocessing
from operator import length_hint

import datasets
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import arrays, tiny_config, tiny_model
from flax.traverse_util import flatten_dict, unflatten_dict
from transformers import TrainerCallback

from modeling_vit_cls import BadImageError, CheckpointError, ConfigError, FlaxViTClsForImageClassification, processes
from modeling_vit_cls.images.batch import Batch
from modeling_vit_cls.images.batches import training_batches
from modeling_vit_cls.images.sources import load_images
from modeling_vit_cls.nn.mesh import make_mesh
from modeling_vit_cls.nn.scan import stack_params, unstack_params
from modeling_vit_cls.training import FlaxTrainer, TrainingArguments
from modeling_vit_cls.training.optimizer import kernels, layer_rates, make_schedule
from modeling_vit_cls.training.step import initial_state, make_train_step, placed_ahead

ROWS = load_images("digits", "train").select(range(72))
DIGITS = {"num_channels": 1, "num_labels": 10}


def arguments(folder, **changes) -> TrainingArguments:
    few = {"num_train_epochs": 2, "per_device_train_batch_size": 32, "save_strategy": "no", "disable_tqdm": True}
    return TrainingArguments(str(folder), **(few | changes))


def trainer(folder, model=None, callbacks=None, **changes) -> FlaxTrainer:
    model = model or FlaxViTClsForImageClassification(tiny_config(**DIGITS))
    return FlaxTrainer(model, arguments(folder, **changes), ROWS, ROWS.select(range(20)), callbacks=callbacks)


def close(a, b, tolerance: float) -> bool:
    return all(np.allclose(x, y, atol=tolerance) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def one_batch(size: int, model):
    """The first `size` rows, filled up to 32."""
    few = {"batch_size": 32, "num_epochs": 1, "seed": 0}
    (batch,) = training_batches(ROWS.select(range(size)), model.image_processor, **few)
    return batch


def one_step(size: int, optimizer=None, **changes):
    """Parameters and metrics after one update on the first `size` rows, in batches of 32."""
    model, how = tiny_model(**DIGITS), arguments("unused", **changes)
    optimizer = optimizer or optax.sgd(0.1)
    step = make_train_step(model.module, optimizer, model.image_processor, how)
    batch = one_batch(size, model)
    state, metrics = step(initial_state(model.params, optimizer, False), batch)
    return model, batch, state.params, metrics


def test_a_step_is_the_gradient_of_the_mean_loss_of_the_examples_that_are_there():
    model, batch, params, metrics = one_step(20, max_grad_norm=0)

    def loss(params):
        pixels = model.image_processor(list(batch.pixels[:20]))["pixel_values"]
        logits = model(pixels, params=params, return_dict=True).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels[:20]).mean()

    value, gradient = jax.value_and_grad(loss)(model.params)
    assert float(metrics["loss"]) == pytest.approx(float(value), abs=1e-5)
    assert float(metrics["grad_norm"]) == pytest.approx(float(optax.tree.norm(gradient)), rel=1e-4)
    assert close(params, jax.tree.map(lambda p, g: p - 0.1 * g, model.params, gradient), 1e-5)


def test_the_update_does_not_depend_on_parts_scan_or_recomputation():
    _, _, whole, _ = one_step(25)
    parts = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4}
    for changes, stacked, recompute in ((parts, False, False), ({}, True, False), ({}, True, True)):
        model = tiny_model(**DIGITS)
        params = stack_params(model.params) if stacked else model.params
        module = model.module.clone(gradient_checkpointing=recompute, scan=stacked)
        step = make_train_step(module, optax.sgd(0.1), model.image_processor, arguments("unused", **changes))
        state, _ = step(initial_state(params, optax.sgd(0.1), False), one_batch(25, model))
        assert close(state.eval_params, whole, 1e-5)


def test_clipping_scales_the_whole_gradient():
    model, _, free, metrics = one_step(20, max_grad_norm=0)
    _, _, clipped, _ = one_step(20, max_grad_norm=0.01)
    ratio = 0.01 / float(metrics["grad_norm"])
    expected = jax.tree.map(lambda before, after: before + ratio * (after - before), model.params, free)
    assert close(clipped, expected, 1e-6)


def test_the_moving_average_is_that_of_the_formula():
    model, how = tiny_model(**DIGITS), arguments("unused", ema_decay=0.2)
    step = make_train_step(model.module, optax.sgd(0.1), model.image_processor, how)
    state, batch, want = initial_state(model.params, optax.sgd(0.1), True), one_batch(32, model), arrays(model.params)
    for decay in (1 / 10, 2 / 11, 0.2):  # (1 + t) / (10 + t) as long as it is less than ema_decay
        state, _ = step(state, batch)
        want = jax.tree.map(lambda mean, now, decay=decay: decay * mean + (1 - decay) * now, want, arrays(state.params))
        assert close(state.eval_params, want, 1e-6)
        assert not close(state.eval_params, state.params, 1e-3)


def test_decay_is_of_kernels_and_rates_fall_towards_the_embeddings():
    params = tiny_model(**DIGITS, num_register_tokens=2, layer_scale_init_value=0.1).params
    decayed = {name for name, chosen in flatten_dict(kernels(params), sep=".").items() if chosen}
    assert decayed
    assert all(name.endswith(".kernel") for name in decayed)
    rates = flatten_dict(layer_rates(params, 0.5), sep=".")
    assert rates["classifier.kernel"] == rates["vit_cls.norm.scale"] == 1
    assert rates["vit_cls.encoder.layer_01.mlp.fc1.kernel"] == 0.5
    assert rates["vit_cls.encoder.layer_00.mlp.fc1.kernel"] == 0.25
    assert rates["vit_cls.embeddings.cls_token"] == 0.125
    assert close(unstack_params(layer_rates(stack_params(params), 0.5)), layer_rates(params, 0.5), 0)


@pytest.mark.parametrize(("kind", "middle"), [("cosine", 0.5), ("linear", 0.5), ("constant", 1.0)])
def test_rates_warm_up_and_decay(kind, middle):
    schedule = make_schedule(arguments("x", learning_rate=1.0, warmup_steps=0.2, lr_scheduler_type=kind), 100)
    rates = [float(np.asarray(schedule(step))) for step in (0, 10, 20, 60, 100)]
    assert rates == pytest.approx([0, 0.5, 1, middle, 0 if kind != "constant" else 1], abs=1e-6)


def test_a_linear_probe_moves_the_classifier_alone(tmp_path):
    model = tiny_model(**DIGITS)
    before = flatten_dict(model.params, sep=".")
    trainer(tmp_path, model, freeze_backbone=True, learning_rate=0.01, weight_decay=0.1, layer_decay=0.8).train()
    moved = {
        name for name, leaf in flatten_dict(model.params, sep=".").items() if not np.array_equal(leaf, before[name])
    }
    assert moved == {"classifier.kernel", "classifier.bias"}


def test_a_linear_probe_reads_features_without_dropout(tmp_path):
    model = tiny_model(**DIGITS, drop_path_rate=0.5, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    run = trainer(tmp_path, model, freeze_backbone=True, per_device_train_batch_size=len(ROWS), max_steps=1)
    want = run.predict(ROWS).metrics["test_loss"]
    assert run.train().training_loss == pytest.approx(want, rel=1e-5)


@pytest.mark.world
def test_what_stays_as_it_was_drawn_at_random_is_told(tmp_path, caplog):
    tiny_model(**DIGITS, use_distillation_token=True).save_pretrained(tmp_path / "base")
    tiny_model(**DIGITS, readout="map", representation_size=8).save_pretrained(tmp_path / "whole")
    load = FlaxViTClsForImageClassification.from_pretrained
    new = {"readout": "map", "use_distillation_head": False}
    for model, part in (
        (FlaxViTClsForImageClassification(tiny_config(**DIGITS)), "the backbone"),
        (load(tmp_path / "base", **new), "readout.attention_pooling"),
        (load(tmp_path / "whole", readout="cls", representation_size=4), "representation"),
    ):
        caplog.clear()
        trainer(tmp_path / "run", model, freeze_backbone=True, max_steps=1).train()
        assert f"freeze_backbone leaves {part} as it was drawn at random" in caplog.text
    for base, fields in (("base", {}), ("whole", {"num_labels": 10})):
        caplog.clear()
        trainer(tmp_path / "run", load(tmp_path / base, **fields), freeze_backbone=True, max_steps=1).train()
        assert "at random" not in caplog.text


def test_what_is_frozen_has_no_part_in_the_norm_of_the_gradient(tmp_path):
    model = tiny_model(**DIGITS)
    before = flatten_dict(model.params, sep=".")
    changes = {"optim": "sgd", "adam_beta1": 0.0, "learning_rate": 1.0, "lr_scheduler_type": "constant"}
    changes |= {"max_grad_norm": 0.01, "max_steps": 1, "warmup_steps": 0, "logging_steps": 1}
    run = trainer(tmp_path, model, freeze_backbone=True, **changes)
    run.train()
    moved = [leaf - before[name] for name, leaf in flatten_dict(model.params, sep=".").items()]
    assert np.sqrt(sum(float(np.sum(np.square(leaf))) for leaf in moved)) == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [{}, {"bf16": True, "optim": "sgd", "learning_rate": 0.1}, {"ema_decay": 0.9, "mixup_alpha": 0.2}],
    ids=["adamw", "sgd in bfloat16", "average and mixup"],
)
def test_training_learns_its_examples_and_leaves_float32(tmp_path, changes):
    run = trainer(tmp_path, **{"num_train_epochs": 25, "learning_rate": 1e-2} | changes)
    before = run.evaluate()["eval_loss"]
    result = run.train()
    after = run.evaluate()
    assert after["eval_loss"] < 0.8 * before
    assert result.global_step == 75
    assert {leaf.dtype for leaf in jax.tree.leaves(run.model.params)} == {jnp.dtype("float32")}
    output = run.predict(ROWS)
    assert output.predictions.shape == (72, 10)
    assert output.metrics["test_accuracy"] == (output.predictions.argmax(-1) == np.asarray(ROWS["label"])).mean()


def test_a_model_in_float16_is_evaluated_but_not_trained(tmp_path):
    model = FlaxViTClsForImageClassification(tiny_config(**DIGITS), dtype="float16")
    run = trainer(tmp_path, model, max_steps=1)
    assert run.evaluate()["eval_loss"] > 0
    with pytest.raises(ConfigError, match="dtype='float16': .*small gradients become zero.*: give bf16=True"):
        run.train()
    assert trainer(tmp_path, model, max_steps=1, bf16=True).train().global_step == 1


@pytest.mark.world
def test_what_is_saved_is_what_was_trained(tmp_path):
    run = trainer(tmp_path / "run", num_train_epochs=1, logging_steps=1)
    run.train()
    run.save_model()
    model = FlaxViTClsForImageClassification.from_pretrained(tmp_path / "run")
    assert close(model.params, run.model.params, 0)
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in history] == [1, 2, 3, 3]
    assert set(history[0]) == {"loss", "grad_norm", "learning_rate", "epoch", "step"}


class Events(TrainerCallback):
    def __init__(self):
        self.seen, self.rows = [], []

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.seen.append("epoch")

    def on_step_end(self, args, state, control, rows, **kwargs):
        self.seen.append("step")
        self.rows.extend(rows[rows >= 0].tolist())
        if state.global_step == 5:
            control.should_training_stop = True

    def on_save(self, args, state, control, **kwargs):
        self.seen.append("save")


@pytest.mark.world
def test_a_run_compiles_its_step_once_and_so_does_one_that_goes_on(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(
        "modeling_vit_cls.training.trainer.make_train_step",
        lambda *parts: steps.append(make_train_step(*parts)) or steps[-1],
    )
    often = {"logging_steps": 1, "save_strategy": "steps", "save_steps": 2, "ema_decay": 0.9}
    often |= {"gradient_accumulation_steps": 2, "freeze_backbone": True, "layer_decay": 0.8}
    trainer(tmp_path, num_train_epochs=1, **often).train()
    trainer(tmp_path, **often).train(resume_from_checkpoint=True)
    assert [step._cache_size() for step in steps] == [1, 1]


def test_callbacks_see_and_stop_the_run(tmp_path):
    events = Events()
    run = trainer(tmp_path, callbacks=[events], num_train_epochs=4, save_strategy="epoch")
    assert run.train().global_step == 5
    assert events.seen == ["epoch", "step", "step", "step", "save", "epoch", "step", "step", "save"]
    assert sorted(events.rows[:72]) == list(range(72))


class Watching(TrainerCallback):
    """Measures, copies and saves the model of each step."""

    def __init__(self):
        self.losses, self.kept = [], []

    def on_step_end(self, args, state, control, model, **kwargs):
        self.kept.append((model.params, copy.deepcopy(model).params))
        self.losses.append(self.trainer.evaluate(metric_key_prefix="now")["now_loss"])
        self.trainer.save_model(f"{args.output_dir}/seen-{state.global_step}")
        assert self.trainer.predict(ROWS.select(range(20))).metrics["test_loss"] == self.losses[-1]
        if state.global_step == 4:
            raise KeyboardInterrupt


@pytest.mark.world
@pytest.mark.parametrize("changes", [{}, {"scan_layers": False, "ema_decay": 0.5}], ids=["stacked", "average"])
def test_callbacks_have_the_parameters_of_their_step_and_an_interrupted_run_those_of_the_last(tmp_path, changes):
    often = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    run = trainer(tmp_path, tiny_model(**DIGITS), [watching := Watching()], learning_rate=0.01, **often, **changes)
    watching.trainer = run
    with pytest.raises(KeyboardInterrupt):
        run.train()
    measured = [entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry]
    assert watching.losses[:3] == measured
    assert len(set(watching.losses)) == 4
    for step, kept in enumerate(watching.kept, 1):
        folders = [tmp_path / f"seen-{step}"] + [tmp_path / f"checkpoint-{step}"] * (step < 4)
        for folder in folders:
            saved = FlaxViTClsForImageClassification.from_pretrained(folder).params
            assert close(kept[0], saved, 0)
            assert close(kept[1], saved, 0)
    assert close(run.model.params, kept[0], 0)
    assert run.evaluate()["eval_loss"] == watching.losses[-1]

    again = trainer(tmp_path, tiny_model(**DIGITS), learning_rate=0.01, **often, **changes)
    began, (third, _) = [], watching.kept[2]
    again.add_callback(callback := TrainerCallback())
    callback.on_train_begin = lambda *_, model, **__: began.append(close(model.params, third, 0))
    again.train(resume_from_checkpoint=True)
    assert began == [True]


def test_what_needs_all_processes_is_refused_in_a_callback_which_process_0_calls_alone(tmp_path, monkeypatch):
    class Alone(TrainerCallback):
        refused = 0

        def on_step_end(self, args, state, control, model, **kwargs):
            calls = {"evaluate": run.evaluate, "predict": lambda: run.predict(ROWS), "save_model": run.save_model}
            with monkeypatch.context() as patch:
                patch.setattr(processes, "count", lambda: 2)
                run.log({"noted": 1.0})  # tells the others nothing, for they are elsewhere
                for name, call in (calls | {"model.params": lambda: model.params}).items():
                    with pytest.raises(ConfigError, match=f"callbacks='on_step_end': {name} needs all processes"):
                        call()
                    self.refused += 1

    run = trainer(tmp_path, tiny_model(**DIGITS), [alone := Alone()], max_steps=2)
    run.train()
    assert alone.refused == 8
    assert run.evaluate()


@pytest.mark.world
def test_the_best_checkpoint_is_kept_and_loaded_and_patience_ends(tmp_path):
    changes = {
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": 1,
        "save_steps": 1,
        "save_total_limit": 1,
    }
    changes |= {
        "load_best_model_at_end": True,
        "early_stopping_patience": 2,
        "learning_rate": 1e-9,
        "num_train_epochs": 9,
    }
    run = trainer(tmp_path, optim="sgd", metric_for_best_model="accuracy", **changes)
    assert run.train().global_step == 3  # the first is the best, two are no better
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-3"]
    assert run.state.best_model_checkpoint == str(tmp_path / "checkpoint-1")
    assert close(
        run.model.params, FlaxViTClsForImageClassification.from_pretrained(tmp_path / "checkpoint-1").params, 0
    )
    again = trainer(tmp_path, optim="sgd", metric_for_best_model="accuracy", **changes)
    assert again.train(resume_from_checkpoint=True).global_step == 3  # as the run that was not resumed
    assert close(again.model.params, run.model.params, 0)


def test_a_gradient_that_is_not_finite_is_named_and_never_saved(tmp_path):
    model = tiny_model(**DIGITS)
    params = flatten_dict(model.params, sep=".")
    params["classifier.kernel"] = params["classifier.kernel"].at[0, 0].set(np.inf)
    model.params = unflatten_dict(params, sep=".")
    with pytest.raises(FloatingPointError, match=r"step 1: the loss is (nan|inf), and the gradient of "):
        trainer(tmp_path / "run", model, save_strategy="steps", save_steps=1).train()
    assert not (tmp_path / "run").exists()


@pytest.mark.world
def test_a_run_goes_on_only_as_itself(tmp_path):
    trainer(tmp_path, num_train_epochs=1, save_strategy="epoch").train()
    again = {"num_train_epochs": 1, "save_strategy": "epoch"}
    with pytest.raises(ConfigError, match=r"holds checkpoint-3 of an earlier run"):
        trainer(tmp_path, **again).train()
    with pytest.raises(ConfigError, match=r"learning_rate=0\.5: the run in .* had 0\.0005"):
        trainer(tmp_path, **again, learning_rate=0.5).train(resume_from_checkpoint=True)
    run = trainer(tmp_path, **again)
    run.train_dataset = run.train_dataset.select(range(70))
    with pytest.raises(ConfigError, match="70 examples"):
        run.train(resume_from_checkpoint=True)
    file = tmp_path / "checkpoint-3" / "training_state.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"training_state\.safetensors"):
        trainer(tmp_path, **again).train(resume_from_checkpoint=True)
    file.write_bytes(whole)
    assert trainer(tmp_path, **again).train(resume_from_checkpoint=True).global_step == 3


@pytest.mark.world
def test_a_text_says_true_and_a_number_names_no_checkpoint(tmp_path):
    again = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    with pytest.raises(ConfigError, match="resume_from_checkpoint=1: must be True, False or a checkpoint-N folder"):
        trainer(tmp_path, **again).train(resume_from_checkpoint=1)
    for text in ("false", "true", str(tmp_path / "checkpoint-2")):
        assert trainer(tmp_path, **again).train(resume_from_checkpoint=text).global_step == 2


@pytest.mark.world
def test_a_run_that_has_ended_makes_no_further_step(tmp_path):
    again = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    first = trainer(tmp_path, **again)
    assert first.train().global_step == 2
    ended = trainer(tmp_path, **again)
    assert ended.train(resume_from_checkpoint=True).global_step == 2
    assert close(ended.model.params, first.model.params, 0)


def test_a_batch_is_on_the_device_before_the_step_before_it_starts():
    whole = [Batch(np.full((2, 8, 8, 1), i, np.uint8), *np.zeros((3, 2), np.int32)) for i in range(4)]
    read = iter(whole)
    for i, (batch, placed) in enumerate(placed_ahead(read, make_mesh("data=1", jax.devices()[:1]), 1)):
        assert batch is whole[i]
        assert isinstance(placed.pixels, jax.Array)
        assert np.array_equal(placed.pixels, batch.pixels)
        assert length_hint(read) == max(0, 2 - i)  # the next batch has been taken too, and only that
    assert i == 3


def test_broken_images_are_counted_logged_and_limited(tmp_path, caplog):
    broken = ROWS.select(range(40)).map(
        lambda row: {"image": {"bytes": b"none", "path": row["image"]["path"]}, "label": row["label"]},
        features=ROWS.features,
    )
    mixed = datasets.concatenate_datasets([broken.select(range(3)), ROWS.select(range(40, 72))])
    model = FlaxViTClsForImageClassification(tiny_config(**DIGITS))
    with pytest.raises(BadImageError, match=r"digits/\d+\.png"):
        FlaxTrainer(model, arguments(tmp_path), mixed).train()
    run = FlaxTrainer(model, arguments(tmp_path, on_bad_image="skip"), mixed)
    run.train()
    assert sorted(run.bad_images) == sorted(row["image"]["path"] for row in broken.select(range(3)))
    assert sum("is left out" in record.message for record in caplog.records) == 3
    with pytest.raises(BadImageError, match="more than max_bad_images=2"):
        FlaxTrainer(model, arguments(tmp_path, on_bad_image="skip", max_bad_images=2), mixed).train()


@pytest.mark.world
def test_reports_go_where_they_are_asked_to(tmp_path):
    trainer(tmp_path, report_to=["tensorboard"], logging_steps=1, num_train_epochs=1).train()
    assert list(tmp_path.rglob("events.out.tfevents.*"))


@pytest.mark.world
@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("learning_rate", {"learning_rate": -1.0}),
        ("max_steps", {"max_steps": 0}),
        ("layer_decay", {"layer_decay": 1.5}),
        ("load_best_model_at_end", {"load_best_model_at_end": True}),
        ("early_stopping_patience", {"early_stopping_patience": 2, "eval_strategy": "epoch"}),
        ("label_smoothing_factor", {"label_smoothing_factor": 1.0}),
    ],
)
def test_arguments_that_make_no_sense_are_named(field, changes):
    with pytest.raises(ConfigError) as error:
        arguments("x", **changes)
    assert error.value.field == field


def test_a_model_of_other_classes_or_another_size_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the dataset has 10 classes, the model 5"):
        trainer(tmp_path, FlaxViTClsForImageClassification(tiny_config(num_channels=1)))
    model = FlaxViTClsForImageClassification(tiny_config(num_channels=3, num_labels=10))
    other = FlaxViTClsForImageClassification(tiny_config(image_size=16, **DIGITS)).image_processor
    with pytest.raises(ConfigError, match="must give"):
        FlaxTrainer(model, arguments(tmp_path), ROWS, processing_class=other)


def test_a_script_that_its_readers_run_again_is_told_so(tmp_path, monkeypatch):
    """While a process of Python's multiprocessing runs the script of its parent, it has this mark."""
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(ConfigError, match="dataloader_num_workers=1: .* below `if __name__ == '__main__':`"):
        trainer(tmp_path, dataloader_num_workers=1).train()
