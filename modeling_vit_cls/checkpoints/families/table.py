"""What a family is: a table from its tensor names to ours, and a function from its config to ours."""

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import CheckpointError
from ..weights import Tensor

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
BICUBIC = {"resample": 3}

Change = Callable[[np.ndarray], np.ndarray]
# What becomes of "x.weight", "x.bias" or "x" itself (""): our names, each with the change from theirs.
Targets = dict[str, list[tuple[str, Change]]]


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _transposed(array: np.ndarray) -> np.ndarray:
    return array.T


def always(fields: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The same image processor's fields for every checkpoint of a family."""
    return lambda _: dict(fields)


def linear(name: str) -> Targets:
    """A torch Linear: weight (out, in) -> kernel (in, out)."""
    return {"weight": [(f"{name}.kernel", _transposed)], "bias": [(f"{name}.bias", _same)]}


def conv(name: str) -> Targets:
    """A torch Conv2d: weight OIHW -> kernel HWIO."""
    return {"weight": [(f"{name}.kernel", lambda a: a.transpose(2, 3, 1, 0))], "bias": [(f"{name}.bias", _same)]}


def norm(name: str) -> Targets:
    """A torch LayerNorm: weight -> scale."""
    return {"weight": [(f"{name}.scale", _same)], "bias": [(f"{name}.bias", _same)]}


def stacked(*names: str) -> Targets:
    """Several Linears stacked in one, query, key and value or a gate and its partner: weight (k H, D) -> k kernels."""

    def part(i: int) -> Change:
        return lambda array: np.split(array, len(names))[i]

    def kernel(i: int) -> Change:
        return lambda array: part(i)(array).T

    return {
        "weight": [(f"{name}.kernel", kernel(i)) for i, name in enumerate(names)],
        "bias": [(f"{name}.bias", part(i)) for i, name in enumerate(names)],
    }


def qkv(name: str) -> Targets:
    """Query, key and value of an attention stacked in one Linear."""
    return stacked(f"{name}.query", f"{name}.key", f"{name}.value")


def tokens(name: str) -> Targets:
    """A parameter (1, k, D), (k, D) or (D,) -> (k, D)."""
    return {"": [(name, lambda a: a.reshape(-1, a.shape[-1]))], "weight": [(name, _same)]}


def vector(name: str) -> Targets:
    """A parameter that stays as it is."""
    return {"": [(name, _same)]}


class Family(NamedTuple):
    """A kind of checkpoint.

    `table` maps a module or parameter of theirs, "{}" for the block's number, to ours; `prefixes` are taken off their
    names; tensors that match `ignored` (shell wildcards, after the prefix) are no part of the model. `fields` gives
    our config's fields from their config and the tensors by our names. `processor` gives the image processor's fields,
    from their config, where the checkpoint has no file of its own for them.
    """

    name: str
    model_types: tuple[str, ...]
    fields: Callable[[dict[str, Any], Mapping[str, Tensor]], dict[str, Any]]
    table: Mapping[str, Targets] = {}
    prefixes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    processor: Callable[[dict[str, Any]], dict[str, Any]] = lambda _: {}

    def convert(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our canonical names and layouts. Raises CheckpointError at a tensor that the family does not have."""
        converted: dict[str, Tensor] = {}
        for name, tensor in found.items():
            for ours, change in self._targets(name, tensor.file):
                if ours in converted:
                    raise CheckpointError(f"{tensor.file}: tensors {converted[ours].name!r} and {name!r} are the same")
                try:
                    converted[ours] = tensor.through(change)
                except (ValueError, IndexError) as error:
                    problem = f"tensor {name!r} has shape {tensor.shape}, which no {self.name} checkpoint has there"
                    raise CheckpointError(f"{tensor.file}: {problem}") from error
        return converted

    def _targets(self, name: str, file: Path) -> list[tuple[str, Change]]:
        short = name
        for prefix in self.prefixes:
            short = short.removeprefix(prefix)
        if not self.table:
            return [(short, _same)]
        if any(fnmatchcase(short, pattern) for pattern in self.ignored):
            return []
        number = re.search(r"(?<=[._])\d+(?=\.)", short)
        pattern = short if number is None else short[: number.start()] + "{}" + short[number.end() :]
        module, _, suffix = pattern.rpartition(".")
        targets = self.table.get(pattern, {}).get("") or self.table.get(module, {}).get(suffix)
        if targets is None:
            raise CheckpointError(f"{file}: tensor {name!r} is not one of a {self.name} checkpoint")
        layer = "" if number is None else f"encoder.layer_{int(number[0]):02d}."
        return [(ours.replace("{}.", layer), change) for ours, change in targets]


def _own_fields(fields: dict[str, Any], _: Mapping[str, Tensor]) -> dict[str, Any]:
    return fields


NATIVE = Family("vit_cls", ("vit_cls",), _own_fields, prefixes=("vit_cls.",))


def has(tensors: Mapping[str, Tensor], module: str) -> bool:
    """Whether a tensor, or any of a module, is there; a module in part is for the strict check to refuse."""
    return any(name == module or name.startswith(f"{module}.") for name in tensors)


def labels(fields: dict[str, Any]) -> dict[str, Any]:
    """The label maps of a transformers config, as far as it has them."""
    return {name: fields[name] for name in ("id2label", "label2id", "num_labels") if fields.get(name)}


def refuse_unless(file_says: dict[str, Any], **expected: Any) -> None:
    """Raise CheckpointError at the first field of a config that our model cannot express."""
    for name, value in expected.items():
        if file_says.get(name, value) != value:
            raise CheckpointError(f"config.json: {name}={file_says[name]!r} cannot be loaded, only {value!r}")
