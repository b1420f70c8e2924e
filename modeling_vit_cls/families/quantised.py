"""Quantised weights are not supported: they are refused with the name of the method that made them."""

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import CheckpointError, shorten

_REMEDY = "give the original checkpoint; dtype='bfloat16' computes in half precision"
# Ends of tensor names, by the library that writes them beside or instead of "weight".
_ENDS = {
    "bitsandbytes": (".SCB", ".weight_format", ".absmax", ".quant_map", "bitsandbytes__nf4", "bitsandbytes__fp4"),
    "GPTQ or AWQ": (".qweight", ".qzeros", ".g_idx"),
    "compressed-tensors": (".weight_packed", ".weight_scale", ".weight_zero_point"),
    "quanto": (".weight._data", ".weight._scale"),
}


def refuse_quantised_config(fields: Mapping[str, Any], file: object) -> None:
    """Raise CheckpointError for a config.json with `quantization_config`, or `compression_config` as its older name."""
    for name in ("quantization_config", "compression_config"):
        if (value := fields.get(name)) is not None:
            method = value.get("quant_method") if isinstance(value, dict) else None
            by = f" ({shorten(method)[1:-1]})" if isinstance(method, str) else ""
            raise CheckpointError(f"{file}: {name}: quantised weights{by} are not supported; {_REMEDY}")


def refuse_quantised_names(names: Iterable[str], path: object) -> None:
    """Raise CheckpointError for names of tensors that only files of quantised weights have."""
    for name in names:
        for library, ends in _ENDS.items():
            if name.endswith(ends):
                problem = f"belongs to quantised weights ({library}), which are not supported"
                raise CheckpointError(f"{path}: tensor {shorten(name)} {problem}; {_REMEDY}")
