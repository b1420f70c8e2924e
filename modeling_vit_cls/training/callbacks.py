"""transformers' callbacks around a run: which there are, what they keep in a checkpoint, the progress bar."""

import time
from typing import Any

from transformers import EarlyStoppingCallback, ProgressCallback, TrainerCallback, TrainerState
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback, ExportableState

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
        """Show the log, and the speed."""
        super().on_log(args, state, control, logs, **kwargs)
        seconds, steps = time.perf_counter() - self._since[0], state.global_step - self._since[1]
        if self.training_bar is not None and steps:
            self.training_bar.set_postfix_str(f"{steps * args.train_batch_size / seconds:.1f} images/s")
            self._since = time.perf_counter(), state.global_step


def make_handler(arguments: TrainingArguments, more: list[Any], model: Any, processing_class: Any) -> CallbackHandler:
    """The callbacks that the arguments ask for, and `more`. Raises ValueError for an unknown `report_to`."""
    chosen: list[type[TrainerCallback] | TrainerCallback] = [DefaultFlowCallback]
    chosen += [*get_reporting_integration_callbacks(arguments.report_to), *more]
    if arguments.early_stopping_patience is not None:
        chosen.append(EarlyStoppingCallback(arguments.early_stopping_patience))
    if not arguments.disable_tqdm:
        chosen.append(ImagesPerSecondCallback)
    return CallbackHandler(chosen, model, processing_class, None, None)


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
