"""Arguments of training, with the names of transformers' TrainingArguments where it has them."""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from .. import processes
from ..errors import ConfigError, did_you_mean
from ..images.augmentation import Augmentation
from ..nn.mesh import make_mesh, ways
from .fields import check_fields
from .foreign import takes_transformers_names

Strategy = Literal["no", "steps", "epoch"]

# Values of transformers that mean the same computation here.
_SAME = {"adamw_torch": "adamw", "adamw_torch_fused": "adamw", "adamw_hf": "adamw", "constant_with_warmup": "constant"}


def argument(text: str, default: Any = dataclasses.MISSING, factory: Any = dataclasses.MISSING, **more: Any) -> Any:
    """A dataclass field with the help text that HfArgumentParser shows; `more` goes to `add_argument`."""
    return field(default=default, default_factory=factory, metadata={"help": text, **more})


@takes_transformers_names
@dataclass
class TrainingArguments:
    """How to train. Raises ConfigError, naming the field, for a wrong value.

    A step is one update, on `train_batch_size` images of all devices: `per_device_train_batch_size *
    gradient_accumulation_steps` times the sizes of the mesh's axes "data" and "fsdp".
    Other arguments of transformers are renamed, ignored with a warning if they only concern PyTorch, or refused with a
    remedy: see `foreign.py`.
    """

    output_dir: str = argument("Folder for the model, checkpoints and results.", "trainer_output")
    num_train_epochs: float = argument("Passes over the training data; 2.5 ends in the middle of the third.", 3)
    max_steps: int = argument("Updates of the whole run; if positive, num_train_epochs is ignored.", -1)
    per_device_train_batch_size: int = argument("Images of a device in a forward and backward pass.", 32)
    per_device_eval_batch_size: int = argument("Images of a device in a forward pass of evaluation.", 64)
    gradient_accumulation_steps: int = argument("Forward and backward passes per update.", 1)

    learning_rate: float = argument("Peak learning rate.", 5e-4)
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = argument(
        "Decay to zero after the warm-up, or a constant rate; the last two are the same.", "cosine"
    )
    warmup_steps: float = argument(
        "Updates of linear warm-up; a number below 1 is a share of all updates, rounded up.", 0
    )
    optim: Literal["adamw", "adamw_torch", "adamw_torch_fused", "adamw_hf", "sgd"] = argument(
        "AdamW, under any of its names, or SGD with Nesterov's momentum.", "adamw"
    )
    weight_decay: float = argument("Weight decay of kernels; norms, biases, tokens and positions have none.", 0.0)
    adam_beta1: float = argument("AdamW's first decay rate, or SGD's momentum.", 0.9)
    adam_beta2: float = argument("AdamW's second decay rate.", 0.999)
    adam_epsilon: float = argument("AdamW's epsilon.", 1e-8)
    max_grad_norm: float = argument("Largest norm of the whole gradient; 0 for no clipping.", 1.0)
    label_smoothing_factor: float = argument("Share of each label that is spread over all classes.", 0.0)
    layer_decay: float = argument("Factor of the learning rate from each block to the one below it.", 1.0)
    ema_decay: float = argument(
        "Decay of the moving average of parameters, which is evaluated and saved; 0 for none.", 0.0
    )
    freeze_backbone: bool = argument("Train only the classifier, a linear probe: the backbone has no dropout.", False)

    random_resized_crop_scale: float = argument(
        "Smallest share of an image's area in a random crop, cut before the image is resized; 1 for no crop.", 1.0
    )
    horizontal_flip: bool = argument("Mirror half of the images.", False)
    mixup_alpha: float = argument("Parameter of mixup's Beta distribution; 0 for none.", 0.0)
    cutmix_alpha: float = argument("Parameter of CutMix's Beta distribution; 0 for none.", 0.0)

    bf16: bool = argument("Compute in bfloat16; the parameters stay in float32.", False)
    gradient_checkpointing: bool = argument("Recompute blocks in the backward pass: less memory, more work.", False)
    mesh: str = argument(
        "How to use several devices, as 'data=-1,fsdp=8': data gives each device its own images, fsdp also a part of "
        "the parameters, tensor a part of each block; -1 is the rest of the devices.",
        "data=-1",
    )
    scan_layers: bool | None = argument(
        "One program for all blocks, so that compile time does not grow with depth; default: yes, except on a GPU, "
        "which is faster with a program for each block.",
        None,
    )

    seed: int = argument("Seed of initial parameters, order, augmentation and dropout.", 0)
    dataloader_num_workers: int = argument(
        "Processes that read training images; 0 for threads, as evaluation has. A script with them trains below "
        "`if __name__ == '__main__':`.",
        0,
    )
    on_bad_image: Literal["raise", "skip"] = argument(
        "What to do with a broken image: stop with an error, or leave it out.", "raise"
    )
    max_bad_images: int = argument("With on_bad_image=skip, stop with an error at more broken images than this.", 100)

    logging_strategy: Strategy = argument("When to log.", "steps")
    logging_steps: float = argument("Updates between logs; a number below 1 is a share of all updates.", 50)
    logging_first_step: bool = argument("Log the first update too.", False)
    eval_strategy: Strategy = argument("When to evaluate.", "no")
    eval_steps: float | None = argument(
        "Updates between evaluations; a number below 1 is a share of all updates; default: logging_steps.", None
    )
    save_strategy: Strategy = argument("When to write checkpoint-N.", "epoch")
    save_steps: float = argument("Updates between checkpoints; a number below 1 is a share of all updates.", 500)
    save_total_limit: int | None = argument(
        "Number of checkpoints to keep, with the newest and the best; default, and 0 or less: all.", None
    )
    load_best_model_at_end: bool = argument("Load the best checkpoint at the end.", False)
    metric_for_best_model: str = argument("The metric of evaluation that decides which checkpoint is best.", "loss")
    greater_is_better: bool | None = argument(
        "Whether a larger metric is better; default: yes, unless its name ends in loss.", None
    )
    early_stopping_patience: int | None = argument("Evaluations without improvement before training stops.", None)
    resume_from_checkpoint: str | None = argument(
        "Continue from this checkpoint-N folder; true: from the last one in output_dir, if there is one.",
        None,
        nargs="?",
        const="true",
    )
    report_to: list[str] = argument("Reports by transformers' integrations: tensorboard, ...; all; none.", factory=list)
    run_name: str | None = argument("Name of the run in reports; default output_dir.", None)
    project: str = argument("Project of the run in reports.", "vit-cls")
    disable_tqdm: bool = argument("No progress bar, but a line for each log, as without a terminal.", False)
    hub_model_id: str | None = argument(
        "Repository of trainer.push_to_hub(); default: the last name of output_dir.", None
    )
    hub_private_repo: bool | None = argument("Make a new repository private.", None)

    def __post_init__(self) -> None:
        self._normalise()
        for name in _POSITIVE:
            _check(self, name, getattr(self, name) > 0, "must be positive")
        for name in ("eval_steps", "early_stopping_patience"):
            value = getattr(self, name)
            _check(self, name, value is None or value > 0, "must be positive")
        _check(self, "seed", self.seed < 2**32, "must be below 2**32")
        for name in _NOT_NEGATIVE:
            _check(self, name, getattr(self, name) >= 0, "must not be negative")
        for name in ("adam_beta1", "adam_beta2", "label_smoothing_factor", "ema_decay"):
            _check(self, name, 0 <= getattr(self, name) < 1, "must be at least 0 and below 1")
        for name in ("layer_decay", "random_resized_crop_scale"):
            _check(self, name, 0 < getattr(self, name) <= 1, "must be above 0 and at most 1")
        _check(self, "max_steps", self.max_steps != 0, "must be positive, or -1 for num_train_epochs")
        evaluating = {
            "load_best_model_at_end": self.load_best_model_at_end,
            "early_stopping_patience": self.stops_early,
        }
        for name, is_set in evaluating.items():
            _check(self, name, not is_set or self.eval_strategy != "no", "needs an eval_strategy other than 'no'")
        same = self.save_strategy == self.eval_strategy
        if same and self.save_strategy == "steps" and self.eval_steps is not None:
            same = _is_multiple(self.save_steps, self.eval_steps)
        rule = "needs save_strategy and eval_strategy to be equal, and save_steps to be a multiple of eval_steps"
        _check(self, "load_best_model_at_end", same or not self.load_best_model_at_end, rule)
        _check(
            self,
            "early_stopping_patience",
            not self.stops_early or self.load_best_model_at_end,
            "needs load_best_model_at_end",
        )
        if self.greater_is_better is None:
            self.greater_is_better = self.derived["greater_is_better"]
        self.run_name = self.run_name or self.derived["run_name"]
        make_mesh(self.mesh)

    def _normalise(self) -> None:
        """Convert each field to its type, and values with several forms in transformers to one form."""
        for name in ("output_dir", "disable_tqdm", "gradient_checkpointing", "metric_for_best_model"):
            if getattr(self, name) is None:  # the default in transformers
                setattr(self, name, getattr(type(self), name))
        self.report_to = _integrations(self.report_to)
        resume: Any = self.resume_from_checkpoint
        if isinstance(resume, bool):
            self.resume_from_checkpoint = str(resume)
        check_fields(self)
        _check(self, "output_dir", self.output_dir.strip() != "", "must not be empty: give a folder")
        self.output_dir = os.path.expanduser(self.output_dir)
        self.resume_from_checkpoint = chosen_checkpoint(self.resume_from_checkpoint)  # pyright: ignore
        self.optim = _SAME.get(self.optim, self.optim)  # pyright: ignore[reportAttributeAccessIssue]
        self.lr_scheduler_type = _SAME.get(self.lr_scheduler_type, self.lr_scheduler_type)  # pyright: ignore
        self.eval_steps = self.eval_steps or self.derived["eval_steps"]
        if self.save_total_limit is not None and self.save_total_limit <= 0:
            self.save_total_limit = None
        for name in ("warmup_steps", "logging_steps", "eval_steps", "save_steps"):
            value = getattr(self, name)
            if value is not None and value >= 1:
                _check(self, name, value == int(value), "must be a whole number of updates, or a share of them below 1")
                setattr(self, name, int(value))

    @property
    def derived(self) -> dict[str, Any]:
        """By name the values that fields without one take from other fields."""
        return {
            "eval_steps": self.logging_steps if self.eval_strategy == "steps" else None,
            "greater_is_better": not self.metric_for_best_model.endswith("loss"),
            "run_name": self.output_dir,
        }

    @property
    def stops_early(self) -> bool:
        """Whether training may end before its last step."""
        return self.early_stopping_patience is not None

    @property
    def scans_layers(self) -> bool:
        """Whether one program runs all blocks."""
        return jax.default_backend() != "gpu" if self.scan_layers is None else self.scan_layers

    @property
    def device_mesh(self) -> Mesh:
        """The mesh of the devices. Raises ConfigError if there are other numbers of them."""
        return make_mesh(self.mesh)

    @property
    def train_batch_size(self) -> int:
        """The number of images in an update, of all devices."""
        return self.per_device_train_batch_size * ways(self.device_mesh) * self.gradient_accumulation_steps

    @property
    def eval_batch_size(self) -> int:
        """The number of images in a forward pass of evaluation, of all devices."""
        return self.per_device_eval_batch_size * ways(self.device_mesh)

    @property
    def augmentation(self) -> Augmentation:
        """The arguments about augmentation."""
        return Augmentation(**{name: getattr(self, name) for name in Augmentation._fields})

    # Read by transformers' callbacks and reports.
    eval_delay = 0
    trackio_space_id = trackio_bucket_id = trackio_static_space_id = None

    @property
    def process_index(self) -> int:
        """The number of this process, from 0."""
        return processes.index()

    @property
    def local_process_index(self) -> int:
        """The number of this process on its host, as Slurm or MPI tell it; else 0."""
        return processes.local_index() or 0

    @property
    def world_size(self) -> int:
        """The number of devices that have their own images."""
        return ways(self.device_mesh)

    @property
    def logging_dir(self) -> str:
        """The folder for TensorBoard, which transformers 4.57 reads here."""
        return os.path.join(self.output_dir, "runs")

    def to_dict(self) -> dict[str, Any]:
        """All fields, by name."""
        return dataclasses.asdict(self)

    def to_sanitized_dict(self) -> dict[str, Any]:
        """All fields as numbers and texts, for reports."""
        return {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in self.to_dict().items()
        }

    def to_json_string(self) -> str:
        """All fields as JSON."""
        return json.dumps(self.to_dict(), indent=2)


def chosen_checkpoint(value: Any) -> bool | str:
    """`resume_from_checkpoint` as True for the last checkpoint, False for none, or a folder; texts may say true too.

    Raises ConfigError for anything else.
    """
    if isinstance(value, bool | np.bool_ | None):
        return bool(value)
    if not isinstance(value, str | os.PathLike):
        raise ConfigError("resume_from_checkpoint", value, "must be True, False or a checkpoint-N folder")
    text = os.path.expanduser(os.fspath(value))
    truth: dict[str, bool | str] = {"true": True, "false": False, "": False}
    return truth.get(text.lower(), text)


def _integrations(names: Any) -> Any:
    """`report_to` as a list of transformers' integrations. None, a name, "none" and "all" mean the same as there."""
    names = [] if names is None else [names] if isinstance(names, str) else names
    if not isinstance(names, list | tuple):
        return names  # a wrong type, which check_fields reports
    if list(names) in (["none"], ["all"]):
        return get_available_reporting_integrations() if names[0] == "all" else []
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(INTEGRATION_TO_CALLBACK)
            hint = did_you_mean(name, INTEGRATION_TO_CALLBACK)
            raise ConfigError("report_to", name, f"must be all, none, or some of {known}{hint}")
    return names


def _is_multiple(steps: float, of: float) -> bool:
    """Whether `steps` is a multiple of `of`: both numbers of updates, or both shares of all updates."""
    if (steps < 1) != (of < 1):
        return False
    return round(steps * 1_000_000) % max(1, round(of * 1_000_000)) == 0


_POSITIVE = ("num_train_epochs", "per_device_train_batch_size", "per_device_eval_batch_size")
_POSITIVE += (
    "gradient_accumulation_steps",
    "learning_rate",
    "adam_epsilon",
    "logging_steps",
    "save_steps",
)
_NOT_NEGATIVE = ("warmup_steps", "weight_decay", "max_grad_norm", "mixup_alpha", "cutmix_alpha", "max_bad_images")
_NOT_NEGATIVE += ("dataloader_num_workers", "seed")


def _check(arguments: TrainingArguments, name: str, good: bool, rule: str) -> None:
    if not good:
        raise ConfigError(name, getattr(arguments, name), rule)
