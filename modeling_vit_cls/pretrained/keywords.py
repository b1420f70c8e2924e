"""Keywords that users of transformers pass to from_pretrained by habit: ignored, renamed or refused."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from ..errors import ConfigError

# No code is taken from a repository, files say themselves what they are, memory and placing are JAX's: nothing of this
# changes what is loaded.
_MEAN_NOTHING = {
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
# transformers' implementations of attention: all compute the same.
_ATTENTION = {"eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention"}
_SPREAD = {"auto", "balanced", "balanced_low_0", "sequential"}  # of device_map: wherever it fits
_PLATFORMS = {"cpu": {"cpu"}, "gpu": {"gpu", "cuda"}, "tpu": {"tpu", "xla"}}

_PLACES = "JAX places arrays itself: use `with jax.default_device(jax.devices()[i]):`, or jax.device_put(params, ...)"
_HALF = "weights are not quantised here: dtype='bfloat16' computes in half precision, model.to_bf16(params) stores it"
_PARTS = "give parameters to `model.params = ...` or to each call, `model(pixels, params=...)`"
# Would change something: refused unless it has one of these values, with what to do instead.
_REFUSED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "device": (lambda value: _is_default_device(value), _PLACES),
    "device_map": (lambda value: value in (None, *_SPREAD) or _is_default_device(value), _PLACES),
    "tp_plan": (
        lambda value: value is None,
        "a model is not split into tensors' parts by a plan: jax.device_put(params, sharding)",
    ),
    "tp_size": (
        lambda value: value is None,
        "a model is not split into tensors' parts by a plan: jax.device_put(params, sharding)",
    ),
    "device_mesh": (lambda value: value is None, _PLACES),
    "distributed_config": (lambda value: value is None, _PLACES),
    "load_in_8bit": (lambda value: not value, _HALF),
    "load_in_4bit": (lambda value: not value, _HALF),
    "quantization_config": (lambda value: value is None, _HALF),
    "state_dict": (lambda value: value is None, _PARTS),
    "key_mapping": (
        lambda value: not value,
        "tensors are known by the names that their library gives them: rename them in the file",
    ),
    "gguf_file": (lambda value: value is None, "GGUF is not read: give safetensors"),
    "from_tf": (lambda value: not value, "TensorFlow's files are not read: give safetensors"),
    "proxies": (lambda value: not value, "set the environment variable HTTPS_PROXY"),
    "adapter_name": (
        lambda value: value in (None, "default"),
        "adapters of PEFT are not read: merge_and_unload() first",
    ),
}


def _is_default_device(value: Any) -> bool:
    """Whether a device, or a map of all to one, is what JAX takes anyway."""
    if isinstance(value, Mapping):
        return set(value) == {""} and _is_default_device(value[""])
    names = _PLATFORMS.get(jax.default_backend(), {jax.default_backend()})
    return value is None or (str(value).partition(":")[0] in names and str(value).partition(":")[2] in ("", "0"))


def without_habits(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of from_pretrained without those of transformers that mean nothing here; `use_auth_token` is `token`.

    Raises ConfigError, saying what to do instead, for one that would change something and cannot.
    """
    left = {name: value for name, value in keywords.items() if name not in _MEAN_NOTHING}
    for name, (means_nothing, remedy) in _REFUSED.items():
        if name in left:
            value = left.pop(name)
            if not means_nothing(value):
                raise ConfigError(name, value, remedy)
    if str(left.get("attn_implementation")).removeprefix("paged|") in _ATTENTION | {"None"}:
        left.pop("attn_implementation", None)
    asked = left.pop("use_auth_token", None)
    if left.get("token") is None and asked not in (None, False):
        left["token"] = asked
    return left
