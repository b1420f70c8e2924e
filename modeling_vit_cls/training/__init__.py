"""Training: arguments, optimiser, step, trainer, recipes; the names are those of transformers' Trainer."""

from .arguments import TrainingArguments
from .trainer import FlaxTrainer

__all__ = ["FlaxTrainer", "TrainingArguments"]
