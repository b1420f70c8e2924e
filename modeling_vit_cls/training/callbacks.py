"""transformers' callbacks of a run: their choice, their state in checkpoints, and the display of progress."""

import sys
import time
from typing import Any

from tqdm.auto import tqdm
from transformers import EarlyStoppingCallback, ProgressCallback, TrainerCallback, TrainerControl, TrainerState
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback, ExportableState
from transformers.utils.import_utils import is_in_notebook

from ..errors import ConfigError
from .arguments import TrainingArguments
from .evaluation import as_json


class ImagesPerSecondCallback(ProgressCallback):
    """transformers' progress bar, with the images per second since the last log."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the bar at the first step of this run, which is not 0 after a resume."""
        tell_devices(args)
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:
            self.training_bar.update(state.global_step)
        self.current_step = state.global_step
        self._since = time.perf_counter(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Write the log above the bar, and the speed into it."""
        if self.training_bar is None:
            return
        tqdm.write(log_line(state, logs or {}), file=sys.stderr)  # stdout is for results
        seconds, steps = time.perf_counter() - self._since[0], state.global_step - self._since[1]
        if steps:
            self.training_bar.set_postfix_str(f"{steps * args.train_batch_size / seconds:.1f} images/s")
            self._since = time.perf_counter(), state.global_step


class LogLinesCallback(TrainerCallback):
    """A line on stderr for each log, used without a terminal or with `disable_tqdm`."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write a line if there are several devices."""
        tell_devices(args)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Write one line."""
        print(log_line(state, logs or {}), file=sys.stderr, flush=True)


def tell_devices(args: TrainingArguments) -> None:
    """Write the devices and the images in an update on stderr, if there are several devices."""
    mesh = args.device_mesh
    if mesh.size > 1:
        axes = ", ".join(f"{axis}={size}" for axis, size in mesh.shape.items() if size > 1)
        line = f"training on {mesh.size} devices ({axes}): {args.train_batch_size:,} images in an update"
        print(line, file=sys.stderr, flush=True)


def log_line(state: TrainerState, logs: dict[str, Any]) -> str:
    """ "step 50/200, epoch 0.5: training: loss 1.2, learning_rate 0.0005"."""
    phase = "training"
    if "train_runtime" in logs:
        phase = "training ended"
    elif any(name.startswith("eval_") or name.endswith("_loss") for name in logs):  # of any prefix
        phase = "evaluation"
    values = {name.removeprefix("eval_").removeprefix("train_"): value for name, value in logs.items()}
    epoch = values.pop("epoch", 0)
    texts = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items())
    return f"step {state.global_step}/{state.max_steps}, epoch {epoch:g}: {phase}: {', '.join(texts)}"


class Callbacks(CallbackHandler):
    """transformers' handler, which raises ConfigError, naming the callback, for one that returns a wrong type."""

    def call_event(self, event: str, args: Any, state: Any, control: Any, **kwargs: Any) -> TrainerControl:
        """Call all callbacks for an event -> the control that the last one returned, or that was given."""
        names = ("model", "processing_class", "optimizer", "lr_scheduler", "train_dataloader", "eval_dataloader")
        parts = {name: getattr(self, name) for name in names} | kwargs
        for callback in self.callbacks:
            result = getattr(callback, event)(args, state, control, **parts)
            if not isinstance(result, TrainerControl | None):
                rule = f"{event} of {type(callback).__name__} must return None or a TrainerControl"
                raise ConfigError("callbacks", result, rule)
            control = control if result is None else result
        return control


def make_handler(arguments: TrainingArguments, more: list[Any], model: Any, processing_class: Any) -> CallbackHandler:
    """The handler of the callbacks that the arguments need, and of `more`.

    Raises ConfigError for a report whose library is missing or that cannot start.
    """
    callbacks: list[type[TrainerCallback] | TrainerCallback] = [DefaultFlowCallback]
    for name in arguments.report_to:
        try:
            callbacks += [integration() for integration in get_reporting_integration_callbacks([name])]
        except (ImportError, RuntimeError, ValueError) as error:
            remedy = "; pip install tensorboardX" if name == "tensorboard" else ""
            raise ConfigError("report_to", name, f"{error}{remedy}") from error
    callbacks += more
    if arguments.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(arguments.early_stopping_patience))
    with_bar = not arguments.disable_tqdm and (sys.stderr.isatty() or is_in_notebook())
    callbacks.append(ImagesPerSecondCallback if with_bar else LogLinesCallback)
    return Callbacks(callbacks, model, processing_class, None, None)


def close_bars(handler: CallbackHandler) -> None:
    """Close the bars of a training that was stopped or failed: on_train_end, which closes them, was not called."""
    for callback in handler.callbacks:
        if isinstance(callback, ProgressCallback):
            for bar in (callback.prediction_bar, callback.training_bar):
                if bar is not None:
                    bar.close()
            callback.training_bar = callback.prediction_bar = None


def check_callbacks(handler: CallbackHandler, arguments: TrainingArguments) -> None:
    """Raise ConfigError for a callback that needs evaluations in a run without them."""
    if arguments.eval_strategy == "no" and any(isinstance(one, EarlyStoppingCallback) for one in handler.callbacks):
        raise ConfigError("eval_strategy", "no", "EarlyStoppingCallback needs evaluations: give 'epoch' or 'steps'")


def export_callbacks(handler: CallbackHandler, state: TrainerState) -> None:
    """Store the state of the callbacks in a trainer's state, so that a resumed run finds it.

    As in transformers it is stored by the name of the class, as a list if there are several callbacks of one class.
    Raises ConfigError, naming the class, for a state that JSON cannot keep.
    """
    kept: Any = [callback for callback in handler.callbacks if isinstance(callback, ExportableState)]
    stored: Any = TrainerState(stateful_callbacks=kept).stateful_callbacks
    state.stateful_callbacks = as_json("callbacks", stored)  # pyright: ignore[reportAttributeAccessIssue]


def has_stopped_early(handler: CallbackHandler) -> bool:
    """Whether early stopping had ended the run whose callbacks were restored."""
    stopping = [callback for callback in handler.callbacks if isinstance(callback, EarlyStoppingCallback)]
    return any(callback.early_stopping_patience_counter >= callback.early_stopping_patience for callback in stopping)


def restore_callbacks(handler: CallbackHandler, state: TrainerState) -> None:
    """Give the callbacks the state that they had when the trainer's state was written; of one class in their order."""
    stored: Any = state.stateful_callbacks
    remaining = {name: list(states) if isinstance(states, list) else [states] for name, states in stored.items()}
    for i, callback in enumerate(handler.callbacks):
        states = remaining.get(type(callback).__name__)
        if isinstance(callback, ExportableState) and states:
            handler.callbacks[i] = type(callback).from_state(states.pop(0))
