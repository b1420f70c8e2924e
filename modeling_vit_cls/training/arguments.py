"""Arguments of training, under the names of transformers' TrainingArguments where it has them."""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from typing import Any, Literal

import jax

from ..data.augmentation import Augmentation
from ..errors import ConfigError

Strategy = Literal["no", "steps", "epoch"]


def argument(text: str, default: Any = dataclasses.MISSING, factory: Any = dataclasses.MISSING) -> Any:
    """A field with a help text, as HfArgumentParser shows it."""
    return field(default=default, default_factory=factory, metadata={"help": text})


@dataclass
class TrainingArguments:
    """How to train. Raises ConfigError, naming the field, for a value that makes no sense.

    The effective batch is `per_device_train_batch_size * gradient_accumulation_steps` images; a step counts one update.
    """

    output_dir: str = argument("Folder for the model, checkpoints and results.")
    num_train_epochs: int = argument("Passes over the training data.", 3)
    max_steps: int = argument("Updates in all; overrides num_train_epochs where positive.", -1)
    per_device_train_batch_size: int = argument("Images in a forward and backward pass.", 32)
    per_device_eval_batch_size: int = argument("Images in a forward pass of evaluation.", 64)
    gradient_accumulation_steps: int = argument("Forward and backward passes to an update.", 1)

    learning_rate: float = argument("Peak learning rate.", 5e-4)
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = argument("Decay after the warm-up, to zero.", "cosine")
    warmup_steps: float = argument("Updates of linear warm-up; below 1 a share of all updates.", 0)
    optim: Literal["adamw", "sgd"] = argument("AdamW, or SGD with Nesterov's momentum.", "adamw")
    weight_decay: float = argument("Of kernels alone: norms, biases, tokens and positions are spared.", 0.0)
    adam_beta1: float = argument("AdamW's first decay rate; SGD's momentum.", 0.9)
    adam_beta2: float = argument("AdamW's second decay rate.", 0.999)
    adam_epsilon: float = argument("AdamW's epsilon.", 1e-8)
    max_grad_norm: float = argument("Largest norm of the whole gradient; 0 does not clip.", 1.0)
    label_smoothing_factor: float = argument("Share of each label that is spread over all classes.", 0.0)
    layer_decay: float = argument("Factor of the learning rate from each block to the one below it.", 1.0)
    ema_decay: float = argument("Of the moving average of parameters that is evaluated and saved; 0 for none.", 0.0)
    freeze_backbone: bool = argument("Train the classifier alone: a linear probe.", False)

    random_resized_crop_scale: float = argument("Smallest share of the area that a random crop keeps; 1 for none.", 1.0)
    horizontal_flip: bool = argument("Mirror half of the images.", False)
    mixup_alpha: float = argument("Parameter of mixup's Beta distribution; 0 for none.", 0.0)
    cutmix_alpha: float = argument("Parameter of CutMix's Beta distribution; 0 for none.", 0.0)

    bf16: bool = argument("Compute in bfloat16; the parameters stay in float32.", False)
    gradient_checkpointing: bool = argument("Recompute blocks in the backward pass: less memory, more work.", False)
    scan_layers: bool | None = argument(
        "One program for all blocks: compile time does not grow with depth; default: except on a GPU, which is faster "
        "with a program for each block.",
        None,
    )

    seed: int = argument("Of initial parameters, order, augmentation and dropout.", 0)
    dataloader_num_workers: int = argument("Processes that read images; 0 for threads of this one.", 0)
    on_bad_image: Literal["raise", "skip"] = argument("At a broken image: an error, or go on without it.", "raise")
    max_bad_images: int = argument("More broken images than these are an error all the same.", 100)

    logging_strategy: Strategy = argument("When to log.", "steps")
    logging_steps: int = argument("Updates between logs.", 50)
    logging_first_step: bool = argument("Log the first update too.", False)
    eval_strategy: Strategy = argument("When to evaluate.", "no")
    eval_steps: int = argument("Updates between evaluations.", 500)
    save_strategy: Strategy = argument("When to write checkpoint-N.", "epoch")
    save_steps: int = argument("Updates between checkpoints.", 500)
    save_total_limit: int | None = argument("Newest checkpoints to keep, beside the best; default all.", None)
    load_best_model_at_end: bool = argument("End with the checkpoint that evaluated best.", False)
    metric_for_best_model: str = argument("What 'best' means: a metric of evaluation.", "loss")
    greater_is_better: bool | None = argument("Default: unless the metric is a loss.", None)
    early_stopping_patience: int | None = argument("Evaluations without improvement before training stops.", None)
    resume_from_checkpoint: bool = argument("Go on from the last checkpoint in output_dir, if there is one.", False)
    report_to: list[str] = argument("Of transformers' integrations: tensorboard, trackio, wandb, ...", factory=list)
    run_name: str | None = argument("Name of the run in reports; default output_dir.", None)
    project: str = argument("Project of the run in reports.", "vit-cls")
    disable_tqdm: bool = argument("No progress bars.", False)

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            _check(self, name, getattr(self, name) > 0, "must be positive")
        for name in _NOT_NEGATIVE:
            _check(self, name, getattr(self, name) >= 0, "must not be negative")
        for name in ("adam_beta1", "adam_beta2", "label_smoothing_factor", "ema_decay"):
            _check(self, name, 0 <= getattr(self, name) < 1, "must be at least 0 and below 1")
        for name in ("layer_decay", "random_resized_crop_scale"):
            _check(self, name, 0 < getattr(self, name) <= 1, "must be above 0 and at most 1")
        _check(self, "max_steps", self.max_steps != 0, "must be positive, or -1 for num_train_epochs")
        needed = {"load_best_model_at_end": self.load_best_model_at_end, "early_stopping_patience": self.stops_early}
        for name, wanted in needed.items():
            _check(self, name, not wanted or self.eval_strategy != "no", "needs an eval_strategy other than 'no'")
        same = self.save_strategy == self.eval_strategy
        if same and self.save_strategy == "steps":
            same = self.save_steps % self.eval_steps == 0
        rule = "needs the save_strategy to be the eval_strategy, and save_steps a multiple of eval_steps"
        _check(self, "load_best_model_at_end", same or not self.load_best_model_at_end, rule)
        _check(
            self,
            "early_stopping_patience",
            not self.stops_early or self.load_best_model_at_end,
            "needs load_best_model_at_end",
        )
        if self.greater_is_better is None:
            self.greater_is_better = not self.metric_for_best_model.endswith("loss")
        self.run_name = self.run_name or self.output_dir

    @property
    def stops_early(self) -> bool:
        """Whether training may end before its last step."""
        return self.early_stopping_patience is not None

    @property
    def scans_layers(self) -> bool:
        """Whether one program runs all blocks."""
        return jax.default_backend() != "gpu" if self.scan_layers is None else self.scan_layers

    @property
    def train_batch_size(self) -> int:
        """Images to an update."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    @property
    def augmentation(self) -> Augmentation:
        """The fields of `Augmentation`."""
        return Augmentation(**{name: getattr(self, name) for name in Augmentation._fields})

    # What transformers' callbacks and reports read of its own TrainingArguments.
    eval_delay = 0
    process_index = 0
    world_size = 1
    hub_private_repo = None
    trackio_space_id = trackio_bucket_id = trackio_static_space_id = None

    @property
    def logging_dir(self) -> str:
        """Where transformers 4.57 lets TensorBoard write."""
        return os.path.join(self.output_dir, "runs")

    def to_dict(self) -> dict[str, Any]:
        """All fields."""
        return dataclasses.asdict(self)

    def to_sanitized_dict(self) -> dict[str, Any]:
        """All fields, as reports take them: numbers and texts."""
        return {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in self.to_dict().items()
        }

    def to_json_string(self) -> str:
        """All fields as JSON."""
        return json.dumps(self.to_dict(), indent=2)


_POSITIVE = ("num_train_epochs", "per_device_train_batch_size", "per_device_eval_batch_size")
_POSITIVE += (
    "gradient_accumulation_steps",
    "learning_rate",
    "adam_epsilon",
    "logging_steps",
    "eval_steps",
    "save_steps",
)
_NOT_NEGATIVE = ("warmup_steps", "weight_decay", "max_grad_norm", "mixup_alpha", "cutmix_alpha", "max_bad_images")
_NOT_NEGATIVE += ("dataloader_num_workers", "seed")


def _check(arguments: TrainingArguments, name: str, good: bool, rule: str) -> None:
    if not good:
        raise ConfigError(name, getattr(arguments, name), rule)
