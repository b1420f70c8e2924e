"""The reports of a trainer: metrics, state, card and push, under the names of transformers' Trainer."""

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from transformers import TrainerState

from .. import processes
from ..errors import ConfigError
from ..files.folder import replace_file
from ..names import is_repo_id
from .arguments import TrainingArguments
from .evaluation import as_json
from .foreign import refuse_card_facts
from .state import write_trainer_state


class TrainerReports:
    """Metrics, state, card and push of a trainer; `args` and `state` are the trainer's.

    In a run of several processes all of them call these methods, and process 0 alone prints, writes and pushes.
    """

    args: TrainingArguments
    state: TrainerState

    def is_world_process_zero(self) -> bool:
        """Whether this is process 0, or the only one."""
        return processes.is_first()

    def log_metrics(self, split: str, metrics: dict[str, float]) -> None:
        """Print the metrics of a split as a table."""
        if not processes.is_first():
            return
        texts = {name: _formatted(name, value) for name, value in sorted(as_json("metrics", metrics).items())}
        widths = [max((len(text) for text in column), default=0) for column in (texts, texts.values())]
        print(f"***** {split} metrics *****")
        for name, value in texts.items():
            print(f"  {name:<{widths[0]}} = {value:>{widths[1]}}")

    def save_metrics(self, split: str, metrics: dict[str, float], combined: bool = True) -> None:
        """Write metrics to `SPLIT_results.json` in `output_dir`, and with `combined` also into `all_results.json`.

        Raises ConfigError, naming the file, if the old `all_results.json` does not contain metrics as JSON, and for a
        value that JSON cannot keep.
        """
        if not processes.is_first():
            return
        metrics = as_json("metrics", metrics)
        folder = Path(self.args.output_dir)
        _write_json(folder / f"{split}_results.json", metrics)
        if combined:
            file = folder / "all_results.json"
            _write_json(file, _read_metrics(file) | metrics)

    def save_state(self) -> None:
        """Write the trainer's state, with the log, into `output_dir`."""
        if processes.is_first():
            write_trainer_state(Path(self.args.output_dir), self.state)

    def save_model(self, output_dir: str | os.PathLike[str] | None = None) -> None:
        """Save the model, config, image processor and trainer state; implemented by the trainer."""
        raise NotImplementedError

    def create_model_card(self, model_name: str | None = None, **facts: Any) -> None:
        """Write README.md and its pictures into `output_dir`, from what was saved there.

        `model_name` is the id in the card's example; by default the folder's name. A card that the user wrote or edited
        stays, with a warning. Raises CheckpointError if no model was saved, and ConfigError for the other arguments of
        transformers' method: this card contains only what was measured.
        """
        refuse_card_facts(facts)
        if not processes.is_first():
            return
        from ..cards import write_card  # imported here, because only cards need jinja2 and matplotlib

        write_card(self.args.output_dir, repo_id=model_name)

    def push_to_hub(
        self,
        commit_message: str = "End of training",
        blocking: bool = True,
        token: str | bool | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **facts: Any,
    ) -> Any:
        """Save the model, write its card, and push both with results and log to `hub_model_id` in one commit.

        Args:
            commit_message: as in transformers, the first argument, and not the name of the repository.
            private: for a new repository; default: `hub_private_repo`.

        Returns what was pushed, with its `.url`; None in a process other than 0. There is no commit if the repository
        is up to date.
        """
        refuse_card_facts(facts)
        if is_repo_id(commit_message):
            rule = "is a repository's name: set hub_model_id in the training arguments to it, and leave this out"
            raise ConfigError("commit_message", commit_message, rule)
        if not blocking:
            raise ConfigError("blocking", blocking, "a push returns when its one commit is made: leave it out")
        from ..cards import card_to_push
        from ..hub.push import push_folder

        folder = Path(self.args.output_dir)
        repo_id = self.args.hub_model_id or folder.resolve().name
        self.save_model()
        if not processes.is_first():
            return None
        self.create_model_card(repo_id)
        return push_folder(
            folder,
            repo_id,
            private=self.args.hub_private_repo if private is None else private,
            token=token,
            revision=revision,
            commit_message=commit_message,
            with_results=True,
            card=card_to_push(folder, repo_id),
        )


def losses_between(before: float, last: float, empty_steps: Collection[int]) -> int:
    """How many updates after the step `before` up to `last` have a loss: all but the `empty_steps`."""
    return sum(step not in empty_steps for step in range(int(before) + 1, int(last) + 1))


def mean_loss(state: TrainerState, rest: float, empty_steps: Collection[int]) -> float:
    """The mean loss of all updates of a run that have one; `rest` is the sum of losses since the last log."""
    total, last = rest, 0
    for step, loss in training_losses(state):
        total += loss * losses_between(last, step, empty_steps)
        last = step
    return total / max(losses_between(0, state.global_step, empty_steps), 1)


def training_losses(state: TrainerState) -> list[tuple[int, float]]:
    """Step and loss of each entry of the trainer's own in the log of its training; callbacks may log a loss too."""
    own = [entry for entry in state.log_history if entry.keys() >= {"loss", "grad_norm", "learning_rate"}]
    return [(int(entry["step"]), entry["loss"]) for entry in own]


def _formatted(name: str, value: Any) -> str:
    """A metric as text: hours:minutes:seconds for a runtime, four decimals for a float."""
    if name.endswith("_runtime"):
        minutes, seconds = divmod(float(value), 60)
        return f"{int(minutes // 60)}:{int(minutes % 60):02}:{seconds:05.2f}"
    return str(round(value, 4)) if isinstance(value, float) else str(value)


def _read_metrics(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        metrics = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("combined", True, f"{file} cannot be read as JSON ({error}): remove it") from error
    if not isinstance(metrics, dict):
        raise ConfigError("combined", True, f"{file} holds no JSON object of metrics: remove it")
    return metrics


def _write_json(file: Path, content: Any) -> None:
    replace_file(file, _json(content).encode())


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, sort_keys=True)
