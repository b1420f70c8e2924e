"""Training: arguments, optimiser, step, trainer, recipes; the names are those of transformers' Trainer."""

from typing import TYPE_CHECKING, Any

from .arguments import TrainingArguments

if TYPE_CHECKING:
    from .trainer import FlaxTrainer

__all__ = ["FlaxTrainer", "TrainingArguments"]


def __getattr__(name: str) -> Any:
    """Import the trainer on first use, so that your own loop over `training.step` needs neither grain nor datasets."""
    if name == "FlaxTrainer":
        from .trainer import FlaxTrainer

        return FlaxTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
