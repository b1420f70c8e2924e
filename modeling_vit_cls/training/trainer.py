"""FlaxTrainer: a trainer with the names, callbacks and checkpoint-N folders of transformers' Trainer."""

import copy
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import EvalPrediction, PredictionOutput, TrainOutput, speed_metrics

from .. import processes
from ..errors import BadImageError, ConfigError, shorten
from ..families.open import open_checkpoint
from ..images.batch import Batch, broken_rows
from ..images.batches import batches_per_epoch, training_batches
from ..images.classes import class_names, named_after, renumbered
from ..images.processor import ViTClsImageProcessor
from ..images.rows import unskipped
from ..images.sources import labelled
from ..modeling_vit_cls import FlaxViTClsForImageClassification
from ..nn.forks import refuse_in_fork
from ..nn.mesh import checked_mesh, place
from ..nn.scan import is_stacked, stack_params, unstack
from ..pretrained.loading import load_params
from ..pretrained.processor_fit import check_processor
from ..scores import refuse_unless_single_label
from .arguments import TrainingArguments, chosen_checkpoint
from .best import is_best
from .binding import Run, run_of
from .callbacks import close_bars, export_callbacks, has_stopped_early, make_handler, restore_callbacks
from .checks import check_parts, check_run, refuse_in_readers, warn_of_random_parts
from .evaluation import BadImages, as_json, as_numbers, evaluate
from .optimizer import make_optimizer, make_schedule
from .processing_class import trained_with
from .reports import TrainerReports, losses_between, mean_loss, training_losses
from .run_folder import RunFolder, checkpoint_to_resume, copy_checkpoint, remove_outdated
from .state import (
    abstract,
    check_own_checkpoint,
    params_to_save,
    read_training_state,
    write_trainer_state,
    write_training_state,
)
from .step import TrainState, check_finite, initial_state, make_train_step, placed_ahead, places_to_read
from .stop import StopSignals
from .together import check_same_run, shared_metrics

# The events after which the decisions of callbacks are read.
_DECIDING = ("on_train_begin", "on_step_end", "on_epoch_end", "on_evaluate", "on_log", "on_save")
_log = logging.getLogger(__name__)


class FlaxTrainer(TrainerReports):
    """Train, evaluate and predict with an image classifier, as transformers' Trainer does for PyTorch.

    Args:
        model: the classifier.
        args: the training arguments; default: `TrainingArguments("tmp_trainer")`.
        train_dataset, eval_dataset: a `datasets.Dataset` with a column of images and one of classes. Classes are
            matched with the model's by name; class numbers without names are the model's. A model with default names
            ("LABEL_0") takes the names of `train_dataset`.
        processing_class: the image processor; default: the model's. It is saved with the model.
        compute_metrics: function from EvalPrediction (logits, labels) to more metrics, besides loss and accuracy.
        callbacks: more `TrainerCallback`s. Their `on_step_end` also gets `rows`, the rows of the step's examples.

    A killed run that is resumed from its last checkpoint ends with the same bits, because order, augmentation and
    dropout are functions of seed and step. With `ema_decay`, the moving average of the parameters is evaluated and
    saved. Evaluation reads images in threads for any `dataloader_num_workers`.

    Attributes:
        folder: the run's folder, `args.output_dir`. Only one process at a time can train into it.
        go_on: the command that resumes the run, which is shown when it is stopped.
    """

    def __init__(
        self,
        model: FlaxViTClsForImageClassification,
        args: TrainingArguments | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: ViTClsImageProcessor | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        **unknown: Any,
    ):
        args = TrainingArguments("tmp_trainer") if args is None else args
        check_parts(self, model, args, compute_metrics, callbacks, unknown)
        refuse_unless_single_label(model.config, "FlaxTrainer")
        checked_mesh(args.device_mesh, model.config)
        self.model, self.args, self.compute_metrics = model, args, compute_metrics
        self.processing_class = trained_with(model, processing_class)
        check_processor(model, self.processing_class, "processing_class")
        model.image_processor = self.processing_class
        self._id2label: Any = model.config.id2label
        self.train_dataset = None if train_dataset is None else self._fitting(train_dataset, "train_dataset")
        if self._id2label is not model.config.id2label:
            self._name_classes()
        self.eval_dataset = None if eval_dataset is None else self._fitting(eval_dataset, "eval_dataset")
        self._bad_images = BadImages(args.max_bad_images)
        self.folder, self.go_on = RunFolder(args.output_dir), "trainer.train(resume_from_checkpoint=True)"
        self._stop, self._facts = StopSignals(), None
        self._event: str | None = None  # for which callbacks are being called
        self.state, self.control = _new_state(), TrainerControl()
        self.callback_handler = make_handler(args, callbacks or [], model, self.processing_class)
        self._evaluated = model.without_params(jnp.bfloat16) if args.bf16 else model
        self._call("on_init_end")

    @property
    def bad_images(self) -> list[str]:
        """The images that could not be read, in order: their paths, or row numbers for images without a path."""
        return self._bad_images.names

    @property
    def bad_training_images(self) -> list[str]:
        """The `bad_images` of the training data; in a resumed run, all since its first step."""
        return self._bad_images.of("train")

    def add_callback(self, callback: TrainerCallback | type[TrainerCallback]) -> None:
        """Add a callback."""
        self.callback_handler.add_callback(callback)

    def remove_callback(self, callback: TrainerCallback | type[TrainerCallback]) -> None:
        """Remove a callback; it may be given by its class."""
        self.callback_handler.remove_callback(callback)

    def train(self, resume_from_checkpoint: bool | str | os.PathLike[str] | None = None) -> TrainOutput:
        """Train. The model then has the trained parameters; after an error or a stop, those of the last step.

        Args:
            resume_from_checkpoint: a checkpoint-N folder, or True for the last one in `output_dir`, if there is one.

        After Ctrl-C or SIGTERM the current step is finished and a checkpoint is written; then KeyboardInterrupt or
        SystemExit(143) is raised. A second signal ends the run at once. A signal after the last step is ignored, so
        that the model can be saved.

        In a run of several processes, all of them call this. Callbacks run in process 0 alone, which also writes; what
        they decide, and a signal to any process, counts for all; `evaluate`, `predict`, `save_model` and `model.params`
        need all processes, and are a ConfigError in a callback. A process in which an error is raised ends at once.

        Raises FloatingPointError, naming the step and a parameter, if the loss or a gradient is not finite; ConfigError
        if a checkpoint belongs to another run, another run is training into `output_dir`, or the folder cannot be
        written; BadImageError for broken images, with on_bad_image="skip" if no image could be read.
        """
        refuse_in_fork()
        refuse_in_readers(self.args.dataloader_num_workers)
        try:
            with self.folder, self._stop:
                return self._train(resume_from_checkpoint)
        except Exception as error:
            if processes.count() > 1:  # the others would wait for this one
                processes.leave(error, self.state.global_step)
            raise
        finally:
            close_bars(self.callback_handler)

    def _train(self, resume_from_checkpoint: bool | str | os.PathLike[str] | None) -> TrainOutput:
        args, started = self.args, time.time()
        check_run(self)
        assert self.train_dataset is not None
        resume = args.resume_from_checkpoint if resume_from_checkpoint is None else resume_from_checkpoint
        checkpoint = checkpoint_to_resume(Path(args.output_dir), chosen_checkpoint(resume))
        steps_per_epoch = batches_per_epoch(len(self.train_dataset), args.train_batch_size)
        total = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps_per_epoch)
        self.state, self._facts, self._bad_images.empty_steps = _new_state(), None, set()
        self.state.max_steps = total
        if processes.count() > 1:
            check_same_run(self._run_facts(), Path(args.output_dir), checkpoint)
        if args.freeze_backbone and checkpoint is None:
            warn_of_random_parts(self.model.params)
        params = place(self.model.params, args.device_mesh)
        params = stack_params(params) if args.scans_layers else params
        optimizer = make_optimizer(args, params, total)
        self._schedule = make_schedule(args, total)
        state = initial_state(params, optimizer, args.ema_decay > 0, args.device_mesh)
        if checkpoint is not None:
            like = abstract(state)
            del state  # its memory is needed for the one that is read
            state, self.state = read_training_state(checkpoint, like, self._run_facts())
            self._follow(state)
            restore_callbacks(self.callback_handler, self.state)
            self.state.is_world_process_zero = self.state.is_local_process_zero = processes.is_first()
            self._bad_images.restore(self.train_dataset, self.state)
            self._copy_best()
        self.state.max_steps, self.state.num_train_epochs = total, math.ceil(total / steps_per_epoch)
        self.state.train_batch_size = args.train_batch_size
        self.state.compute_steps(args, total)
        first_step = self.state.global_step
        step = make_train_step(self._training_module(), optimizer, self.processing_class, args)

        self._call("on_train_begin")
        if checkpoint is None or not has_stopped_early(self.callback_handler):
            state = self._run(state, step, steps_per_epoch)
        empty = self._bad_images.empty_steps
        if 0 < self.state.global_step == len(empty):
            rule = "no image of train_dataset could be read, the first was"
            raise BadImageError(f"{rule} {self.bad_training_images[0]}: nothing was learned")
        steps = self.state.global_step - first_step
        images = steps * len(self.train_dataset) / steps_per_epoch
        metrics = speed_metrics("train", started, num_samples=round(images), num_steps=steps)
        metrics["train_loss"] = mean_loss(self.state, float(state.loss_sum), empty)
        self.log(metrics)
        if args.load_best_model_at_end and self.state.best_model_checkpoint:
            self._load(Path(self.state.best_model_checkpoint))
        else:
            self.model.params = state.eval_params
        self._call("on_train_end")
        metrics["epoch"] = float(self.state.epoch or 0)
        return TrainOutput(self.state.global_step, metrics["train_loss"], metrics)

    def evaluate(self, eval_dataset: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Measure and log loss, accuracy and what `compute_metrics` returns on a dataset; default: `eval_dataset`.

        Training calls it too, with the parameters of the last step. Each name begins with the prefix; one that does
        already stays.
        """
        self._refuse_in_callbacks("evaluate")
        dataset = self.eval_dataset if eval_dataset is None else self._fitting(eval_dataset, "eval_dataset")
        if dataset is None:
            raise ConfigError("eval_dataset", None, "is needed to evaluate")
        metrics = self._evaluate(dataset, metric_key_prefix).metrics or {}
        self.log({name: value for name, value in metrics.items() if not name.endswith(("_runtime", "_per_second"))})
        self._call("on_evaluate", metrics=metrics)
        return metrics

    def predict(self, test_dataset: Any, metric_key_prefix: str = "test") -> PredictionOutput:
        """Logits (N, K), labels (N,) and metrics for a dataset of N images with labels."""
        self._refuse_in_callbacks("predict")
        try:
            rows = self._fitting(test_dataset, "test_dataset")
        except ConfigError as error:
            if error.field != "label_column_name":
                raise
            rule = f"{error.rule}; ImageClassificationPipeline predicts images without labels"
            raise ConfigError(error.field, error.value, rule) from error
        output = self._evaluate(rows, metric_key_prefix)
        self._call("on_predict", metrics=output.metrics)
        return output

    def save_model(self, output_dir: str | os.PathLike[str] | None = None) -> None:
        """Save model, config, image processor and trainer state in one step; default: into `args.output_dir`."""
        self._refuse_in_callbacks("save_model")
        folder = Path(self.args.output_dir if output_dir is None else output_dir)
        # before a training each process has a model of its own: on the mesh it is one, which process 0 writes
        params = None if processes.count() == 1 else place(self.model.params, self.args.device_mesh)
        self.model.write_checkpoint(folder, params, also=lambda build: write_trainer_state(build, self.state))

    def log(self, logs: dict[str, float]) -> None:
        """Add an entry to the log and call the callbacks. Raises ConfigError for values that JSON cannot keep."""
        logs = {**as_json("logs", logs), "epoch": round(float(self.state.epoch or 0), 4)}
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self._call("on_log", logs=logs)

    def _run(self, state: TrainState, step: Callable, steps_per_epoch: int) -> TrainState:
        """Run the remaining steps, with the events for callbacks."""
        last, parts = None, self.args.gradient_accumulation_steps
        for batch, placed in placed_ahead(self._training_batches(), self.args.device_mesh, parts):
            if self.state.global_step % steps_per_epoch == 0:
                self._call("on_epoch_begin")
            self._call("on_step_begin")
            if last is None:
                processes.ready(step, state, placed)
            state, metrics = processes.settled(step(state, placed))
            self._follow(state)
            self.state.global_step += 1
            self.state.epoch = self.state.global_step / steps_per_epoch
            if last is not None:
                self._check(*last)  # the previous step, while the device computes this one
            last = (self.state.global_step, metrics, batch)
            self._call("on_step_end", rows=batch.rows)
            state = self._log_evaluate_save(state, last)
            if self.state.global_step % steps_per_epoch == 0 or self.control.should_training_stop:
                self._call("on_epoch_end")
                state = self._log_evaluate_save(state, last)
            if self.control.should_training_stop or self._stop.agreed is not None:
                break
        if last is not None:
            self._check(*last)
        if self._stop.agreed is not None:
            self._stop.end(self.state.global_step, self._save_checkpoint(state), self.go_on)
        return state

    def _check(self, step: int, metrics: dict[str, Any], batch: Batch) -> None:
        """Check what a step measured, and record its images that could not be read."""
        check_finite(step, metrics)
        valid = batch.valid if processes.count() == 1 else np.asarray(metrics["valid"])  # here only of its own images
        self._bad_images.note(self.train_dataset, broken_rows(batch.rows, valid), "train")
        if not valid.any():
            self._bad_images.empty_steps.add(step)

    def _log_evaluate_save(self, state: TrainState, last: tuple[int, dict[str, Any], Batch]) -> TrainState:
        """Log, evaluate and save, as far as the callbacks decided; in this order, as in transformers."""
        control = self.control
        if control.should_log or control.should_evaluate or control.should_save:
            self._check(*last)
        if control.should_log:
            control.should_log = False
            last_log = max((step for step, _ in training_losses(self.state)), default=0)
            if losses := losses_between(last_log, self.state.global_step, self._bad_images.empty_steps):
                loss = float(state.loss_sum) / losses
                rate = float(np.asarray(self._schedule(self.state.global_step - 1)))
                self.log({"loss": loss, "grad_norm": float(last[1]["grad_norm"]), "learning_rate": rate})
                zero = jnp.zeros_like(state.loss_sum, device=state.loss_sum.sharding)
                state = state.replace(loss_sum=zero)  # pyright: ignore[reportAttributeAccessIssue]
        if control.should_evaluate:
            control.should_evaluate = False
            if self.eval_dataset is None:
                raise ConfigError("eval_dataset", None, f"is needed for eval_strategy={self.args.eval_strategy!r}")
            self._note_best(self.evaluate())
            self._follow(state)  # without the copy that was evaluated
        if control.should_save:
            control.should_save = False
            self._save_checkpoint(state)
        return state

    def _follow(self, state: TrainState) -> None:
        """Give the model the parameters of a state, which are copied if they are read before the next step."""
        params = state.params if state.ema is None else state.ema

        def read() -> Any:
            self._refuse_in_callbacks("model.params")
            return _copied(params)

        self.model.defer_params(read)

    def _refuse_in_callbacks(self, name: str) -> None:
        """Raise ConfigError in a callback of a run of several processes, for what needs them all."""
        if self._event is not None and processes.count() > 1:
            rule = f"{name} needs all processes, and callbacks run in process 0 alone: set control.should_evaluate or "
            raise ConfigError("callbacks", self._event, rule + "control.should_save, or call it outside of callbacks")

    def _save_checkpoint(self, state: TrainState) -> Path:
        output_dir, step = Path(self.args.output_dir), self.state.global_step
        folder = output_dir / f"checkpoint-{step}"
        export_callbacks(self.callback_handler, self.state)
        self._bad_images.export(self.state)
        also = partial(write_training_state, state=state, trainer_state=self.state, run=self._run_facts())
        self.model.write_checkpoint(folder, params_to_save(state), also=also)
        if processes.is_first():
            remove_outdated(output_dir, self.args.save_total_limit, step, self.state.best_model_checkpoint)
        self._call("on_save")
        return folder

    def _run_facts(self) -> Run:
        """The facts that a checkpoint must share with this run. Computed once, because the datasets are read for it."""
        if self._facts is None:
            data = self.train_dataset, self.eval_dataset if self.args.eval_strategy != "no" else None
            self._facts = run_of(self.args, self.model, self.processing_class, self.state.max_steps, *data)
        return self._facts

    def _note_best(self, metrics: dict[str, float]) -> None:
        if is_best(self.state, self.args, metrics) and self.args.load_best_model_at_end:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            self.state.best_model_checkpoint = str(folder)
            self.control.should_save = True  # at any step: the best checkpoint is loaded at the end

    def _evaluate(self, dataset: Any, prefix: str) -> PredictionOutput:
        args, started = self.args, time.perf_counter()
        size = args.eval_batch_size
        steps = range(batches_per_epoch(len(dataset), size))
        vars(self.callback_handler)["eval_dataloader"] = steps  # the progress bar needs its length

        def leave_out(row: int, error: BadImageError) -> None:
            if args.on_bad_image == "raise":
                raise unskipped(error) from error
            self._bad_images.note(dataset, [row], prefix)

        predictions, losses, label_ids = evaluate(
            self._evaluated,
            self.model.params,
            dataset,
            processor=self.processing_class,
            batch_size=size,
            on_bad_image=leave_out,
            after=lambda: self._call("on_prediction_step"),
        )
        metrics = {"loss": float(losses.mean(dtype=np.float64))}
        metrics["accuracy"] = float((predictions.argmax(-1) == label_ids).mean())
        if self.compute_metrics is not None:
            metrics |= as_numbers(self.compute_metrics(EvalPrediction(predictions, label_ids)))
        metrics["runtime"] = time.perf_counter() - started
        metrics["samples_per_second"] = len(label_ids) / metrics["runtime"]
        metrics["steps_per_second"] = len(steps) / metrics["runtime"]
        metrics = {
            name if name.startswith(f"{prefix}_") else f"{prefix}_{name}": value
            for name, value in shared_metrics(metrics).items()
        }
        return PredictionOutput(predictions, label_ids, metrics)

    def _training_batches(self) -> Iterator[Batch]:
        """The batches of the remaining steps; none after the last step."""
        args = self.args
        batches = training_batches(
            self.train_dataset,
            self.processing_class,
            batch_size=args.train_batch_size,
            num_epochs=self.state.num_train_epochs,
            seed=args.seed,
            start_step=self.state.global_step,
            crop_scale=args.random_resized_crop_scale,
            num_workers=args.dataloader_num_workers,
            on_bad_image=args.on_bad_image,
            places=places_to_read(args.device_mesh, args.train_batch_size, args.gradient_accumulation_steps),
        )
        return islice(batches, self.state.max_steps - self.state.global_step)

    def _fitting(self, dataset: Any, field: str) -> Any:
        """Images and labels of a dataset, with the model's class numbers. Raises ConfigError for other classes.

        A model with default names takes the class names of its first dataset; later datasets are matched with these.
        """
        rows = labelled(dataset, id2label=self._id2label, field=field)
        self._id2label = named_after(self._id2label, class_names(rows))
        return renumbered(rows, self._id2label)

    def _name_classes(self) -> None:
        """Give the model the class names of its training data, in a copy of its config, which others may share."""
        config = copy.deepcopy(self.model.config)
        config.id2label = dict(self._id2label)
        config.label2id = {name: number for number, name in config.id2label.items()}
        self.model.config = config
        names = shorten(list(config.id2label.values()), 200)
        _log.info("the model's classes had no names: they are those of train_dataset now: %s", names)

    def _training_module(self) -> Any:
        """The linen module for training: with dtype, gradient checkpointing and scan as in the arguments."""
        module: Any = self.model.module
        recompute = self.args.gradient_checkpointing or module.gradient_checkpointing
        scan = self.args.scans_layers
        return module.clone(dtype=self._evaluated.dtype, gradient_checkpointing=recompute, scan=scan)

    def _copy_best(self) -> None:
        """Check before the first step that the best checkpoint belongs to this run, and copy it into its folder."""
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint:
            best = Path(self.state.best_model_checkpoint)
            check_own_checkpoint(best, self._run_facts())
            if processes.is_first():
                copy_checkpoint(best, Path(self.args.output_dir))
            self.state.best_model_checkpoint = str(Path(self.args.output_dir) / best.name)

    def _load(self, checkpoint: Path) -> None:
        """Load the parameters of a checkpoint of this run into the model."""
        check_own_checkpoint(checkpoint, self._run_facts())
        mesh = self.args.device_mesh
        source, model = open_checkpoint(checkpoint), self.model
        model.params = load_params(source, model.module, model.key, False, False, mesh)[0]

    def _call(self, event: str, **kwargs: Any) -> None:
        """Call the callbacks of process 0 for an event, and keep the control that they return, in all processes."""
        control = self.control
        if event == "on_train_begin":
            control.should_training_stop = control.should_epoch_stop = False
        if event == "on_step_begin":
            control.should_log = control.should_evaluate = control.should_save = False
        if processes.is_first():
            outer, self._event = self._event, event
            try:
                self.control = self.callback_handler.call_event(event, self.args, self.state, control, **kwargs)
            finally:
                self._event = outer
        if event not in _DECIDING:
            return
        if processes.count() > 1 and self._event is None:  # in a callback that logs, process 0 is alone
            vars(self.control).update(self._stop.share(vars(self.control)))
        if self.control.should_epoch_stop:
            rule = "an epoch cannot end early, because order and randomness are functions of the step: set"
            raise ConfigError("should_epoch_stop", True, f"{rule} should_training_stop, which ends the training")


def _copied(params: Any) -> Any:
    """A copy of the parameters of a state, unstacked: the next step writes into its arrays."""
    leaves: dict[str, Any] = flatten_dict(params, sep=".")
    copies = {name: leaf if is_stacked(name) else jnp.copy(leaf) for name, leaf in leaves.items()}
    return unflatten_dict(unstack(copies), sep=".")


def _new_state() -> TrainerState:
    """The state before the first step."""
    first = processes.is_first()
    return TrainerState(is_world_process_zero=first, is_local_process_zero=first)
