"""Arguments of transformers' TrainingArguments and Trainer that differ here: renamed, ignored, or refused."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any, TypeVar

import transformers

from ..errors import ConfigError, did_you_mean

_log = logging.getLogger(__name__)

# {name in a version of transformers: our name of the same argument}.
RENAMED = {
    "activation_checkpointing": "gradient_checkpointing",
    "evaluation_strategy": "eval_strategy",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "push_to_hub_model_id": "hub_model_id",
    "warmup_ratio": "warmup_steps",
}

# Arguments without an effect here: they concern PyTorch or its processes, or are always on.
IDLE = set(
    """
    _n_gpu average_tokens_across_devices dataloader_in_order dataloader_multiprocessing_context
    dataloader_persistent_workers dataloader_pin_memory dataloader_prefetch_factor
    do_eval do_predict do_train
    enable_jit_checkpoint eval_accumulation_steps eval_do_concat_batches eval_use_gather_object fp16_backend
    fp16_opt_level full_determinism half_precision_backend hub_always_push include_num_input_tokens_seen
    include_tokens_per_second jit_mode_eval length_column_name liger_kernel_config log_level
    log_level_replica log_on_each_node logging_nan_inf_filter mp_parameters past_index ray_scope remove_unused_columns
    restore_callback_states_from_checkpoint save_on_each_node save_safetensors skip_memory_metrics tf32 torch_compile
    torch_compile_backend torch_compile_mode torch_empty_cache_steps torchdynamo tpu_num_cores use_cache
    use_legacy_prediction_loop use_liger_kernel
    """.split()  # noqa: SIM905 (a list with one name per line would fill a screen)
)

_PUSH = "call trainer.push_to_hub() after training, or `vit-cls push FOLDER REPO_ID`"
_TOKEN = "arguments are written to files: use `hf auth login`, HF_TOKEN, or trainer.push_to_hub(token=) instead"
_DEVICES = "JAX places arrays itself: leave it out"
_MESH = "give mesh='data=-1' for a copy of the model on each device, or mesh='fsdp=-1' to divide it"
_DDP = ("ddp_backend", "ddp_broadcast_buffers", "ddp_bucket_cap_mb", "ddp_find_unused_parameters", "ddp_static_graph")
_DDP += ("ddp_timeout", "local_rank")
_METRICS = "compute_metrics gets all logits and labels: compute it there"
_ORDER = "each epoch is shuffled anew, by `seed`"
_CPU = "set JAX_PLATFORMS=cpu in the environment instead, before Python starts"
_RECOMPUTED = "gradient_checkpointing=True recomputes every block, without further settings"
_TRACKIO = "trackio keeps its reports on this machine, under the names `project` and `run_name`"

# What to do instead of other arguments. Values without an effect are accepted: None, False, transformers' default.
INSTEAD = {
    "accelerator_config": _DEVICES,
    "activation_checkpointing_kwargs": _RECOMPUTED,
    "adafactor": "give optim='adamw' or optim='sgd'",
    "auto_find_batch_size": "give per_device_train_batch_size, and gradient_accumulation_steps if memory is short",
    "batch_eval_metrics": _METRICS,
    "bf16_full_eval": "give bf16=True, which holds for evaluation too",
    "data_seed": _ORDER,
    "dataloader_drop_last": "the last batch of an epoch is filled up, so that every example is used once",
    **dict.fromkeys(_DDP, _MESH),
    "debug": 'run it under jax.config.update("jax_debug_nans", True)',
    "deepspeed": _MESH,
    "eval_delay": "evaluation begins at the first of eval_steps, or after the first epoch",
    "eval_on_start": "call trainer.evaluate() before trainer.train()",
    "fp16": "give bf16=True: bfloat16 needs no loss scaling",
    "fp16_full_eval": "give bf16=True, which holds for evaluation too",
    "fsdp": _MESH,
    "fsdp_config": _MESH,
    "fsdp_min_num_params": _MESH,
    "fsdp_transformer_layer_cls_to_wrap": _MESH,
    "gradient_checkpointing_kwargs": _RECOMPUTED,
    "group_by_length": _ORDER,
    "hub_revision": "give revision= to trainer.push_to_hub()",
    "hub_strategy": _PUSH,
    "hub_token": _TOKEN,
    "ignore_data_skip": "a resumed run always continues with the next examples, and reads none twice",
    "include_for_metrics": _METRICS,
    "include_inputs_for_metrics": _METRICS,
    "label_names": "the column of classes is recognised by its type, ClassLabel",
    "logging_dir": "TensorBoard's files are written to the folder `runs` of output_dir",
    "lr_scheduler_kwargs": "the schedules here have no settings beyond learning_rate and warmup_steps",
    "neftune_noise_alpha": "noise on embeddings is for language models: give mixup_alpha or cutmix_alpha",
    "no_cuda": _CPU,
    "optim_args": "give adam_beta1, adam_beta2, adam_epsilon",
    "optim_target_modules": "give freeze_backbone=True to train only the classifier, or layer_decay",
    "overwrite_output_dir": "give another output_dir, or resume_from_checkpoint=True to continue the run in it",
    "parallelism_config": _MESH,
    "prediction_loss_only": _METRICS,
    "push_to_hub": _PUSH,
    "push_to_hub_organization": "give hub_model_id='organization/name'",
    "push_to_hub_token": _TOKEN,
    "save_only_model": "checkpoint-N is for resuming; save_strategy='no' and trainer.save_model() write only a model",
    "tpu_metrics_debug": 'run it under jax.config.update("jax_debug_nans", True)',
    "trackio_bucket_id": _TRACKIO,
    "trackio_space_id": _TRACKIO,
    "trackio_static_space_id": _TRACKIO,
    "train_sampling_strategy": _ORDER,
    "use_cpu": _CPU,
    "use_mps_device": "set JAX_PLATFORMS in the environment instead, before Python starts",
}

# The same for keywords of transformers' Trainer.
TRAINER_INSTEAD = {
    "compute_loss_func": "the loss is the cross-entropy; label_smoothing_factor, mixup_alpha, cutmix_alpha change it",
    "data_collator": "leave it out: the trainer makes batches of a dataset's images and classes itself",
    "model_init": "give the model itself",
    "optimizer_cls_and_kwargs": "give `optim` and its settings in the TrainingArguments",
    "optimizers": "give `optim`, `learning_rate` and `lr_scheduler_type` in the TrainingArguments",
    "preprocess_logits_for_metrics": _METRICS,
    "tokenizer": "is called processing_class: give the image processor there",
    "feature_extractor": "is called processing_class: give the image processor there",
    "image_processor": "is called processing_class: give the image processor there",
}

_LOOP = "a step is one compiled function of JAX: for another one write a loop of your own (docs/own_loop.md)"
_DATA = "the trainer makes batches of a dataset's images and classes itself: change the dataset"
_EVALUATION = "override `evaluate`, or give compute_metrics"

# The same for methods of transformers' Trainer that subclasses override there, which FlaxTrainer would never call.
METHODS_INSTEAD = {
    **dict.fromkeys(("compute_loss", "compute_loss_context_manager"), TRAINER_INSTEAD["compute_loss_func"]),
    **dict.fromkeys(("create_optimizer", "create_scheduler"), TRAINER_INSTEAD["optimizers"]),
    **dict.fromkeys(("create_optimizer_and_scheduler", "get_decay_parameter_names"), TRAINER_INSTEAD["optimizers"]),
    "get_optimizer_cls_and_kwargs": TRAINER_INSTEAD["optimizers"],
    **dict.fromkeys(("get_train_dataloader", "get_eval_dataloader", "get_test_dataloader"), _DATA),
    **dict.fromkeys(("_get_train_sampler", "_get_eval_sampler", "num_examples", "num_tokens"), _DATA),
    **dict.fromkeys(("prediction_step", "prediction_loop", "evaluation_loop"), _EVALUATION),
    **dict.fromkeys(("training_step", "get_batch_samples", "autocast_smart_context_manager"), _LOOP),
    **dict.fromkeys(("_inner_training_loop", "_prepare_inputs", "set_initial_training_values"), _LOOP),
    **dict.fromkeys(("floating_point_ops", "store_flos", "torch_jit_model_eval"), _LOOP),
    "call_model_init": TRAINER_INSTEAD["model_init"],
    "compare_trainer_and_checkpoint_args": "a checkpoint of another run is always refused",
    "init_hf_repo": _PUSH,
    **dict.fromkeys(("create_accelerator_and_postprocess", "propagate_args_to_deepspeed"), _MESH),
    **dict.fromkeys(("get_total_train_batch_size", "get_tp_size", "get_cp_size", "get_sp_size"), _MESH),
}

_CARD_FACTS = {"language", "license", "tags", "finetuned_from", "tasks", "dataset_tags", "dataset", "dataset_args"}
_CARD = (
    "is not an argument here: the card is written from config.json, results.json and recipe.yaml; edit it afterwards"
)

T = TypeVar("T")


def takes_transformers_names(cls: type[T]) -> type[T]:
    """A class decorator: the dataclass also accepts arguments of transformers' TrainingArguments, see `own_names`."""
    constructor: Callable[..., None] = cls.__init__

    @wraps(constructor)
    def __init__(self: T, *args: Any, **kwargs: Any) -> None:
        constructor(self, *args, **own_names(kwargs, {field.name for field in dataclasses.fields(cls)}))  # pyright: ignore

    cls.__init__ = __init__
    return cls


def own_names(fields: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """Arguments under our names: renamed where needed, without those that have no effect (a warning names them).

    Raises ConfigError, naming the argument, for one that is not supported, and for an unknown one.
    """
    own, idle = {}, []
    for name, value in fields.items():
        if name in known:
            own[name] = value
        elif name in RENAMED:
            other = RENAMED[name]
            if value is not None and fields.get(other) is not None:
                raise ConfigError(name, value, f"is another name of {other}: give one of them")
            if name == "warmup_ratio" and isinstance(value, int | float) and value >= 1:
                raise ConfigError(name, value, "must be a share of all updates, below 1; warmup_steps counts updates")
            own |= {} if value is None else {other: value}
        elif name in IDLE:
            idle += [] if _changes_nothing(name, value) else [name]
        elif not _changes_nothing(name, value):
            raise ConfigError(name, value, foreign_rule(name, known))
    if idle:
        _log.warning("%s: these arguments concern only PyTorch, and are ignored", ", ".join(idle))
    return own


def foreign_rule(name: str, known: set[str]) -> str:
    """The rule in the error for an argument that we do not have."""
    if name in RENAMED:
        return f"is called {RENAMED[name]} here"
    if name in IDLE:
        return "concerns only PyTorch: leave it out"
    if name in INSTEAD:
        return f"is not an argument here: {INSTEAD[name]}"
    return f"is not an argument of training{did_you_mean(name, known)}"


def refuse_card_facts(facts: Mapping[str, Any]) -> None:
    """Raise ConfigError for arguments of transformers' `create_model_card`, unless they are None or empty."""
    for name, value in facts.items():
        if value is not None and value != []:
            raise ConfigError(name, value, _CARD if name in _CARD_FACTS else "is not an argument here")


def refuse_trainer_keywords(keywords: Mapping[str, Any], known: set[str]) -> None:
    """Raise ConfigError for the first keyword that FlaxTrainer does not have; None is allowed for transformers' own."""
    for name, value in keywords.items():
        if name not in TRAINER_INSTEAD:
            raise ConfigError(name, value, f"is not an argument of FlaxTrainer{did_you_mean(name, known)}")
        if value is not None and value != (None, None):
            raise ConfigError(name, value, f"is not an argument of FlaxTrainer: {TRAINER_INSTEAD[name]}")


def refuse_trainer_methods(trainer: Any) -> None:
    """Raise ConfigError for the first method that a subclass of FlaxTrainer overrides for transformers' Trainer."""
    for name, remedy in METHODS_INSTEAD.items():
        if callable(getattr(trainer, name, None)):
            raise ConfigError(name, type(trainer).__name__, f"FlaxTrainer never calls this method: {remedy}")


def _changes_nothing(name: str, value: Any) -> bool:
    if name not in IDLE and name not in INSTEAD:
        return False
    return value is None or value == _defaults().get(name, False) or (name in INSTEAD and value is False)


@cache
def _defaults() -> dict[str, Any]:
    """The defaults of the installed transformers' TrainingArguments."""
    defaults = {}
    for field in dataclasses.fields(transformers.TrainingArguments):
        factory = field.default_factory
        defaults[field.name] = field.default if factory is dataclasses.MISSING else factory()
    return defaults
