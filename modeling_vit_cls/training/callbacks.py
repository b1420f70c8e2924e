"""transformers' callbacks around a run: which there are, what they keep in a checkpoint, how a run is shown."""

import sys
import time
from typing import Any

from tqdm.auto import tqdm
from transformers import EarlyStoppingCallback, ProgressCallback, TrainerCallback, TrainerState
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback, ExportableState
from transformers.utils.import_utils import is_in_notebook

from ..errors import ConfigError
from .arguments import TrainingArguments


class ImagesPerSecondCallback(ProgressCallback):
    """transformers' progress bar; it also shows how many images a second the updates since the last log took."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the bar where the run starts."""
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:
            self.training_bar.update(state.global_step)
        self.current_step = state.global_step
        self._since = time.perf_counter(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Show the log above the bar, and the speed in it."""
        if self.training_bar is None:
            return
        tqdm.write(log_line(state, logs or {}), file=sys.stderr)  # standard output is for results
        seconds, steps = time.perf_counter() - self._since[0], state.global_step - self._since[1]
        if steps:
            self.training_bar.set_postfix_str(f"{steps * args.train_batch_size / seconds:.1f} images/s")
            self._since = time.perf_counter(), state.global_step


class LogLinesCallback(TrainerCallback):
    """A line on standard error for each log: where there is no terminal for a bar, or none is wanted."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Write the line."""
        print(log_line(state, logs or {}), file=sys.stderr, flush=True)


def log_line(state: TrainerState, logs: dict[str, Any]) -> str:
    """ "step 50/200, epoch 0.5: training: loss 1.2, learning_rate 0.0005"."""
    phase = "training"
    if any(name.startswith("eval_") for name in logs):
        phase = "evaluation"
    elif "train_runtime" in logs:
        phase = "training ended"
    shown = {name.removeprefix("eval_").removeprefix("train_"): value for name, value in logs.items()}
    epoch = shown.pop("epoch", 0)
    values = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items())
    return f"step {state.global_step}/{state.max_steps}, epoch {epoch:g}: {phase}: {', '.join(values)}"


def make_handler(arguments: TrainingArguments, more: list[Any], model: Any, processing_class: Any) -> CallbackHandler:
    """The callbacks that the arguments ask for, and `more`. Raises ConfigError for a report that cannot be made."""
    chosen: list[type[TrainerCallback] | TrainerCallback] = [DefaultFlowCallback]
    for name in arguments.report_to:
        try:
            chosen += [integration() for integration in get_reporting_integration_callbacks([name])]
        except (ImportError, RuntimeError, ValueError) as error:
            remedy = "; pip install tensorboardX" if name == "tensorboard" else ""
            raise ConfigError("report_to", name, f"{error}{remedy}") from error
    chosen += more
    if arguments.early_stopping_patience is not None:
        chosen.append(EarlyStoppingCallback(arguments.early_stopping_patience))
    with_bar = not arguments.disable_tqdm and (sys.stderr.isatty() or is_in_notebook())
    chosen.append(ImagesPerSecondCallback if with_bar else LogLinesCallback)
    return CallbackHandler(chosen, model, processing_class, None, None)


def check_callbacks(handler: CallbackHandler, arguments: TrainingArguments) -> None:
    """Raise ConfigError for a callback that waits for evaluations where there are none."""
    if arguments.eval_strategy == "no" and any(isinstance(one, EarlyStoppingCallback) for one in handler.callbacks):
        raise ConfigError("eval_strategy", "no", "EarlyStoppingCallback needs evaluations: give 'epoch' or 'steps'")


def export_callbacks(handler: CallbackHandler, state: TrainerState) -> None:
    """Put into a trainer's state what its callbacks want to find there when the run goes on."""
    kept = [callback for callback in handler.callbacks if isinstance(callback, ExportableState)]
    state.stateful_callbacks = {type(callback).__name__: callback.state() for callback in kept}  # pyright: ignore


def restore_callbacks(handler: CallbackHandler, state: TrainerState) -> None:
    """Replace callbacks by themselves as they were when the state was written."""
    saved: Any = state.stateful_callbacks
    for i, callback in enumerate(handler.callbacks):
        if isinstance(callback, ExportableState) and type(callback).__name__ in saved:
            handler.callbacks[i] = type(callback).from_state(saved[type(callback).__name__])
