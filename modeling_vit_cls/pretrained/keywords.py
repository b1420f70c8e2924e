"""Keywords of transformers' methods that load, save and push, and mean nothing here: ignored, renamed or refused."""

from collections.abc import Mapping
from typing import Any

import jax

from ..errors import ConfigError, did_you_mean
from ..keyword_table import Refused, without

# These cannot change what is loaded: repository code is never run, the format of a file is read from the file, and JAX
# manages memory and devices.
_IGNORED = {
    *("trust_remote_code", "code_revision", "from_pt", "from_flax", "use_safetensors", "weights_only", "mirror"),
    *("resume_download", "local_dir_use_symlinks", "low_cpu_mem_usage", "max_memory", "offload_folder"),
    *(
        "offload_state_dict",
        "offload_buffers",
        "generation_config",
        "kernel_config",
        "use_kernels",
        "use_flash_attention_2",
    ),
    *("adapter_kwargs", "_fast_init", "_from_auto", "_from_pipeline", "_commit_hash", "_configuration_file"),
}
# transformers' implementations of attention. All compute the same function.
_ATTENTION = {"eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention"}
_AUTOMATIC_MAPS = {"auto", "balanced", "balanced_low_0", "sequential"}  # values of device_map that name no device
_PLATFORMS = {"cpu": {"cpu"}, "gpu": {"gpu", "cuda"}, "tpu": {"tpu", "xla"}}

_DEVICES = "JAX places arrays itself: use `with jax.default_device(jax.devices()[i]):`, or jax.device_put(params, ...)"
_HALF = "weights are not quantised here: dtype='bfloat16' computes in half precision, model.to_bf16(params) stores it"
_PARAMS = "set `model.params = ...`, or pass parameters to each call, `model(pixels, params=...)`"
_SHARDING = "tensors are not split by a plan here: use jax.device_put(params, sharding)"
# Refused with a remedy, unless the first item accepts the value: one that changes nothing.
_REFUSED: Refused = {
    "device": (lambda value: _is_default_device(value), _DEVICES),
    "device_map": (lambda value: value in (None, *_AUTOMATIC_MAPS) or _is_default_device(value), _DEVICES),
    "tp_plan": (lambda value: value is None, _SHARDING),
    "tp_size": (lambda value: value is None, _SHARDING),
    "device_mesh": (lambda value: value is None, _DEVICES),
    "distributed_config": (lambda value: value is None, _DEVICES),
    "load_in_8bit": (lambda value: not value, _HALF),
    "load_in_4bit": (lambda value: not value, _HALF),
    "quantization_config": (lambda value: value is None, _HALF),
    "state_dict": (lambda value: value is None, _PARAMS),
    "key_mapping": (
        lambda value: not value,
        "tensors must have the names of their library: rename them in the file",
    ),
    "gguf_file": (lambda value: value is None, "GGUF files cannot be read: use safetensors"),
    "from_tf": (lambda value: not value, "TensorFlow files cannot be read: use safetensors"),
    "proxies": (lambda value: not value, "set the environment variable HTTPS_PROXY"),
    "adapter_name": (
        lambda value: value in (None, "default"),
        "a folder has one adapter, which is merged into its base: leave the name out",
    ),
}

# Of `save_pretrained` and `push_to_hub`: a temporary folder is always used, and weights have one format.
_IGNORED_IN_SAVES = {
    *("use_temp_dir", "save_function", "save_peft_format", "save_original_format", "ignore_metadata_errors"),
}
_OWNER = "give it in repo_id, as 'owner/name'"
_REFUSED_IN_SAVES: Refused = {
    "safe_serialization": (bool, "only safetensors are written"),
    "state_dict": (lambda value: value is None, "give params=..., a nested dict like model.params"),
    "is_main_process": (
        bool,
        "call it in the main process alone, or in all that hold parts of the parameters: the first of them writes",
    ),
    "variant": (lambda value: value is None, "weights have one file name: use a folder or a revision for each variant"),
    "distributed_checkpoint": (lambda value: not value, "the first process writes the parts of all: leave it out"),
    "tags": (
        lambda value: not value,
        "tags are a part of the card: push, then `huggingface_hub.metadata_update(repo_id, {'tags': [...]})`",
    ),
    "organization": (lambda value: value is None, _OWNER),
    "repo_url": (lambda value: value is None, _OWNER),
    "repo_path_or_name": (lambda value: value is None, _OWNER),
}
_OF_A_PUSH = ("repo_id", "private", "token", "revision", "create_pr", "commit_message", "commit_description")
_OF_A_SAVE = ("params", "max_shard_size", "allow_nonfinite", "push_to_hub")


def _is_default_device(value: Any) -> bool:
    """Whether a value of `device` or `device_map` is JAX's default device."""
    if isinstance(value, Mapping):
        return set(value) == {""} and _is_default_device(value[""])
    names = _PLATFORMS.get(jax.default_backend(), {jax.default_backend()})
    return value is None or (str(value).partition(":")[0] in names and str(value).partition(":")[2] in ("", "0"))


def without_habits(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of `from_pretrained` without those that mean nothing here; `use_auth_token` becomes `token`.

    Raises ConfigError, with a remedy, for a keyword of transformers that has no equivalent here.
    """
    result = _with_token(without(keywords, _IGNORED, _REFUSED))
    if str(result.get("attn_implementation")).removeprefix("paged|") in _ATTENTION | {"None"}:
        result.pop("attn_implementation", None)
    return result


def push_keywords(keywords: Mapping[str, Any], pushes: bool = True) -> dict[str, Any]:
    """Keywords of `save_pretrained` and `push_to_hub` -> those of `push_folder` that were given; None is not given.

    Without `pushes` there are none, and `token`, which then changes nothing, is the only one allowed. Raises
    ConfigError, with a remedy, for a keyword of transformers that has no equivalent here, and for an unknown one.
    """
    result = _with_token(without(keywords, _IGNORED_IN_SAVES, _REFUSED_IN_SAVES))
    for name, value in result.items():
        if name not in _OF_A_PUSH:
            hint = did_you_mean(name, [*_OF_A_PUSH, *_OF_A_SAVE, *_REFUSED_IN_SAVES])
            raise ConfigError(name, value, f"is not a keyword of saving or pushing{hint}")
        if not pushes and name != "token" and value is not None:
            raise ConfigError(name, value, "is for a push: add push_to_hub=True")
    return {name: value for name, value in result.items() if pushes and value is not None}


def _with_token(keywords: dict[str, Any]) -> dict[str, Any]:
    """The keywords, in which `use_auth_token`, the old name, becomes `token`."""
    result = dict(keywords)
    token = result.pop("use_auth_token", None)
    if result.get("token") is None and token not in (None, False):
        result["token"] = token
    return result
