"""LoRA adapters of PEFT: small matrices A and B beside a base model, merged as W + alpha / r * B A.

The format is that of peft 0.21: adapter_config.json, and adapter_model.safetensors with the tensors
base_model.model.MODULE.lora_A.weight (r, in) and lora_B.weight (out, r), and whole tensors of other modules.
"""

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import CheckpointError, shorten
from ..files.json_file import read_json
from ..files.tensor import FLOATS, Tensor
from ..files.unread import pickle_refused
from ..files.weights import STANDARD_WEIGHTS
from ..label_maps import LABEL_FIELDS
from .family import Family
from .not_read import ADAPTER

_WEIGHTS, _PICKLED = "adapter_model.safetensors", "adapter_model.bin"
_PREFIX, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
# Fields of variants of LoRA that compute something else; each must be absent, false or empty.
_VARIANTS = (
    *("use_dora", "use_qalora", "use_bdlora", "lora_bias", "layer_replication", "target_parameters"),
    *("alora_invocation_tokens", "trainable_token_indices", "megatron_config", "arrow_config", "velora_config"),
    *("monteclora_config", "kasa_config"),
)
_INITIAL = (None, True, False, "gaussian", "orthogonal", "eva")  # values that leave the base's weights as they are


class Adapter(NamedTuple):
    """An adapter of PEFT.

    Attributes:
        path: its folder.
        base: the folder or Hub id of its base model.
        revision: the revision of the base; None for the default.
        changes: by the names of the base's tensors, what is added to them.
        replaced: whole tensors that replace those of the base, or are new: a classifier.
    """

    path: Path
    base: str
    revision: str | None
    changes: dict[str, Tensor]
    replaced: dict[str, Tensor]

    def merged(self, tensors: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
        """Tensors of the base by our names, merged with the adapter. Raises CheckpointError for one that does not fit.

        The matrices of a change go the same way as the base's from the names and layouts of `family` to ours.
        """
        merged = {**tensors, **_converted(self.replaced, family)}
        for name, change in _converted(self.changes, family).items():
            where = f"{change.file}: tensor {change.name!r}"
            if name not in tensors:
                raise CheckpointError(f"{where} changes a parameter that {self.base} does not have")
            if tensors[name].shape != change.shape:
                shapes = f"{change.shape}, but that of {self.base} has {tensors[name].shape}"
                raise CheckpointError(f"{where} is for a parameter of shape {shapes}")
            merged[name] = _sum(tensors[name], change)
        return merged

    def fields(self, fields: dict[str, Any], family: Family) -> dict[str, Any]:
        """Fields of the base's config.json, with the outputs of the adapter's classifier if it has one."""
        kernel = _converted(self.replaced, family).get("classifier.kernel")
        if kernel is None:
            return fields
        classes = kernel.shape[-1]
        left_out = ["architectures"]  # the base may have no classifier; the tensors now tell that there is one
        if len(fields.get("id2label") or ()) != classes:
            left_out += LABEL_FIELDS
        return {"num_labels": classes} | {name: value for name, value in fields.items() if name not in left_out}

    def note(self, family: Family) -> str:
        """A sentence for the loading report."""
        changes = len(_used(self.changes, family))
        return f"a LoRA adapter, merged into its base {self.base} (weights that it changes: {changes})"


def adapter_folder(path: Path) -> Path | None:
    """The folder of an adapter, given by itself or by its weight file; None for any other checkpoint."""
    if path.name in (_WEIGHTS, _PICKLED):
        return path.parent
    return path if (path / ADAPTER).is_file() else None


def refuse_two_models(folder: Path) -> None:
    """Raise CheckpointError for a folder with whole weights and an adapter, unless these are the adapter's base.

    They may be the base with another head, or the adapter may be merged into them already: the files do not tell.
    """
    file = folder / ADAPTER
    base = read_json(file).get("base_model_name_or_path")
    if isinstance(base, str) and os.path.exists(base) and folder.samefile(base):
        return
    weights = next(name for name in STANDARD_WEIGHTS if (folder / name).is_file())
    problem = f"holds both whole weights and an adapter of PEFT whose base_model_name_or_path is {shorten(base)}"
    remedy = f"if {weights} is the adapter's base, write this folder's path into that field of {ADAPTER}"
    others = (
        f"else give one of the files: {folder / weights} for these weights alone, {folder / _WEIGHTS} for the adapter"
    )
    raise CheckpointError(f"{folder}: {problem}; {remedy}; {others}")


def read_adapter(folder: Path, read: Callable[[Path], dict[str, Tensor]]) -> Adapter:
    """Read an adapter's config and the headers of its tensors. `read` gives the tensors of a weight file.

    Raises CheckpointError, naming the file and the field or tensor, for any adapter but plain LoRA.
    """
    file = folder / ADAPTER
    fields = read_json(file)
    _refuse_variants(fields, file)
    base, revision = fields.get("base_model_name_or_path"), fields.get("revision")
    if not isinstance(base, str) or not base:
        rule = "must name the base model: write its folder or Hub id into this field"
        raise CheckpointError(f"{file}: base_model_name_or_path={shorten(base)}: {rule}")
    if not (folder / _WEIGHTS).is_file():
        if (folder / _PICKLED).is_file():
            raise pickle_refused(folder / _PICKLED)
        raise CheckpointError(f"{folder / _WEIGHTS}: is missing, but there is an {ADAPTER} in its folder")
    tensors = {}
    for name, tensor in read(folder / _WEIGHTS).items():
        if not name.startswith(_PREFIX):
            problem = f"tensor {name!r} does not belong to an adapter: expected names that begin with {_PREFIX!r}"
            raise CheckpointError(f"{tensor.file}: {problem}")
        if tensor.dtype not in FLOATS.values():
            raise CheckpointError(f"{tensor.file}: tensor {name!r} is {tensor.dtype}, expected floating-point")
        tensors[name.removeprefix(_PREFIX)] = tensor
    modules = sorted({name.rpartition(".lora_")[0] for name in tensors if name.endswith((_A, _B))})
    changes = {f"{module}.weight": _change(module, tensors, fields, file) for module in modules}
    replaced = {name: tensor for name, tensor in tensors.items() if not name.endswith((_A, _B))}
    for name, tensor in replaced.items():
        if "lora_" in name or "." not in name:
            raise CheckpointError(f"{tensor.file}: tensor {tensor.name!r} does not belong to plain LoRA")
    return Adapter(folder, base, revision if isinstance(revision, str) else None, changes, replaced)


def _refuse_variants(fields: Mapping[str, Any], file: Path) -> None:
    """Raise CheckpointError, naming the field, for an adapter of another kind than plain LoRA."""
    remedy = "merge it with PEFT first: PeftModel.from_pretrained(...).merge_and_unload().save_pretrained(...)"
    problems = [name for name in _VARIANTS if fields.get(name)]
    problems += ["peft_type"] if fields.get("peft_type") != "LORA" else []
    problems += ["bias"] if fields.get("bias", "none") != "none" else []
    problems += ["init_lora_weights"] if fields.get("init_lora_weights") not in _INITIAL else []
    for name in problems:
        problem = f"{name}={shorten(fields.get(name))}: only plain LoRA can be merged here"
        raise CheckpointError(f"{file}: {problem}; {remedy}")


def _change(module: str, tensors: Mapping[str, Tensor], fields: Mapping[str, Any], file: Path) -> Tensor:
    """What LoRA adds to the weight of a module, still unread: scale * B A, in the layout of PyTorch."""
    for end in (_A, _B):
        if module + end not in tensors:
            raise CheckpointError(f"{file.with_name(_WEIGHTS)}: tensor {_PREFIX + module + end!r} missing")
    a, b = tensors[module + _A], tensors[module + _B]
    rank, alpha = _of_module(fields, "r", module, file), _of_module(fields, "lora_alpha", module, file)
    fits = len(a.shape) in (2, 4) and len(a.shape) == len(b.shape) and b.shape[2:] in ((), (1, 1))
    if not fits or not a.shape[0] == b.shape[1] == rank:
        problem = f"has shape {b.shape}, and lora_A {a.shape}, impossible with the rank {rank} of {ADAPTER}"
        raise CheckpointError(f"{b.file}: tensor {b.name!r} {problem}")
    scale = alpha / (rank**0.5 if fields.get("use_rslora") else rank)
    shape = (b.shape[0], *a.shape[1:])
    return b._replace(shape=shape, view=partial(_product, a, b, scale, shape), offset=None, digest=None)


def _of_module(fields: Mapping[str, Any], name: str, module: str, file: Path) -> float:
    """`r` or `lora_alpha` of a module: its own by a pattern that matches the end of its name, or that of all (8)."""
    pattern_field = "rank_pattern" if name == "r" else "alpha_pattern"
    patterns = fields.get(pattern_field) or {}
    try:
        key = next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), None)
        value = fields.get(name, 8) if key is None else patterns[key]
        if isinstance(value, bool) or not value > 0:
            raise ValueError(f"{name}={shorten(value)} must be a number over 0")
    except (re.error, TypeError, ValueError, LookupError) as error:
        raise CheckpointError(f"{file}: {name} or {pattern_field} cannot be read ({shorten(str(error))})") from error
    return value


def _product(a: Tensor, b: Tensor, scale: float, shape: tuple[int, ...]) -> np.ndarray:
    """The matrix scale * B A in float32; for a convolution with the kernel of A, as B has one pixel.

    Raises CheckpointError, naming the tensor, for NaN and infinity: merged, they would be blamed on the base.
    """
    left, right = (tensor.read().astype(np.float32) for tensor in (b, a))
    for tensor, array in ((b, left), (a, right)):
        if not np.isfinite(array).all():
            raise CheckpointError(f"{tensor.file}: tensor {tensor.name!r} has NaN or infinite numbers")
    return (scale * (left.reshape(len(left), -1) @ right.reshape(len(right), -1))).reshape(shape)


def _sum(tensor: Tensor, change: Tensor) -> Tensor:
    """A tensor plus a change, still unread, in the type of the tensor."""

    def view() -> np.ndarray:
        array = tensor.view()
        return (array.astype(np.float32) + change.view()).astype(array.dtype)

    return tensor._replace(view=view, offset=None, digest=None)


def _used(tensors: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Tensors of an adapter without those of a part that is left out of the base too: a text tower, a mask token."""
    return {name: tensor for name, tensor in tensors.items() if not family.ignores(family.short(name))}


def _converted(tensors: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Tensors of an adapter by our names. Raises CheckpointError for one that is no part of the family's models."""
    tensors = _used(tensors, family)
    converted = family.convert(tensors)
    for lost in {tensor.name: tensor for tensor in tensors.values()}.values():
        if not any(tensor.name == lost.name for tensor in converted.values()):
            raise CheckpointError(f"{lost.file}: tensor {lost.name!r} does not belong to a {family.name} checkpoint")
    return converted
