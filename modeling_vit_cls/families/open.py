"""Strict loading: what a folder holds, of whatever family, against the shapes that its own config asks for."""

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, ConfigError, shorten
from ..files.digests import architecture_digest
from ..files.file_digests import check_digests
from ..files.json_file import read_json
from ..files.tensor import FLOATS, Tensor
from ..files.weights import holds_standard_weights, read_weights
from ..label_maps import LABEL_FIELDS, read_labels
from ..names import CONFIG, DIGESTS, PROCESSOR
from ..nn.vit import FlaxViTClsForImageClassificationModule, FlaxViTClsModule
from . import FAMILIES, family_of, family_of_tensors
from .activations import with_our_activation
from .family import NATIVE, Family, canonical, has_classifier, side_of
from .not_read import refuse_unread_config, refuse_unread_folder

Shapes = dict[str, jax.ShapeDtypeStruct]


def parameter_shapes(module_class: type[nn.Module], config: ViTClsConfig) -> Shapes:
    """Parameters of a module by dotted path, each as shape and dtype; nothing is computed or allocated."""
    return dict(_parameter_shapes(module_class, config.to_json_string(use_diff=False)))


@cache
def _parameter_shapes(module_class: type[nn.Module], config_json: str) -> tuple[tuple[str, jax.ShapeDtypeStruct], ...]:
    config = ViTClsConfig.from_dict(json.loads(config_json))
    depth, config.num_hidden_layers = config.num_hidden_layers, 1  # blocks are alike: trace one, name it `depth` times
    images = jax.ShapeDtypeStruct((1, *config.image_hw, config.num_channels), jnp.float32)
    tree = jax.eval_shape(module_class(config).init, jax.random.PRNGKey(0), images)["params"]
    shapes: Shapes = {}
    for name, leaf in flatten_dict(tree, sep=".").items():
        names = [name.replace("layer_00", f"layer_{i:02d}") for i in range(depth)] if "layer_00" in name else [name]
        shapes.update(dict.fromkeys(names, leaf))
    return tuple(shapes.items())


class Source(NamedTuple):
    """A checkpoint as it lies there: family, our config of it, tensors by canonical name, unread.

    `processor` holds the image processor's fields that the family or the config.json gives, or why it gives none;
    `spare` the names of tensors that are no part of the model; `notes` what the label maps of config.json say otherwise
    than `config`.
    """

    path: Path
    family: Family
    config: ViTClsConfig
    tensors: dict[str, Tensor]
    processor: dict[str, Any] | CheckpointError
    spare: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def open_checkpoint(path: Path) -> Source:
    """Read config and headers of a folder, or of a weight file, of any family; no weights are read.

    Raises CheckpointError or ConfigError.
    """
    if (path / DIGESTS).is_file():  # a checkpoint-N: each weight file has digests of its own, compared when it is read
        check_digests(path, (CONFIG, PROCESSOR))
    file = config_file(path)
    fields = read_json(file)
    refuse_unread_folder(path, holds_standard_weights(path))
    refuse_unread_config(fields, file)
    said = family_of(fields, file)
    if said is NATIVE:
        config = ViTClsConfig.from_dict(fields)  # refused before a weight file is opened
        notes = tuple(read_labels(fields)[1])
        return Source(path, NATIVE, config, NATIVE.convert(read_weights(path)), {}, notes=notes)
    found = read_weights(path)
    family = said or family_of_tensors(found, path)
    tensors = family.convert(found)
    try:
        read, notes = read_labels(fields, _outputs(tensors))
        fields = {name: value for name, value in fields.items() if name not in LABEL_FIELDS} | read
        config = ViTClsConfig.from_dict(with_our_activation(_with_border(family.fields(fields, tensors))))
    except (ConfigError, CheckpointError) as error:
        raise CheckpointError(f"{file if fields else path}, {family.name}: {error}") from error
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:  # any JSON may stand there
        raise CheckpointError(f"{file}, {family.name}: has fields of the wrong kind ({shorten(error)})") from error
    processor: dict[str, Any] | CheckpointError
    try:
        processor = family.processor(fields, config)
    except (CheckpointError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        processor = CheckpointError(f"{file}, {family.name}: {error}")
    config.architectures = fields.get("architectures", config.architectures)
    return Source(path, family, config, tensors, processor, tuple(family.spare(found)), tuple(notes))


def _outputs(tensors: dict[str, Tensor]) -> int | None:
    """How many outputs a classifier has, where there is one."""
    kernel = tensors.get("classifier.kernel")
    return kernel.shape[1] if kernel is not None and len(kernel.shape) == 2 else None


def _with_border(ours: dict[str, Any]) -> dict[str, Any]:
    """Fields of a foreign checkpoint; at the configured size all libraries ignore what fills no patch.

    A family that says `ignore_border` itself does so at any size.
    """
    size, patch = ours.get("image_size", 224), side_of(ours.get("patch_size", 16))
    sides = size if isinstance(size, list | tuple) else [size]
    whole = isinstance(patch, int) and patch > 0 and all(isinstance(side, int) for side in sides)
    border = whole and any(side % patch for side in sides)
    return ours | {"patch_size": patch, "ignore_border": ours.get("ignore_border", False) or border}


def is_foreign(path: Path) -> bool:
    """Whether a checkpoint is another library's that is read here. Raises CheckpointError for a damaged config.json."""
    file = config_file(path)
    fields = read_json(file)
    model_type = fields.get("model_type")
    return model_type is None or (model_type != "vit_cls" and any(model_type in f.model_types for f in FAMILIES))


def config_file(path: Path) -> Path:
    """Where the config.json of a folder or of a weight file lies, if it has one."""
    return (path if path.is_dir() else path.parent) / CONFIG


def checked_tensors(source: Source, allow_missing: bool) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a checkpoint, each checked against its own config, and the names of missing ones.

    Raises CheckpointError at a tensor that is missing (unless allowed), unexpected, of another shape, or not
    floating-point. Of other libraries, a pooler or a pooling head that the config does not read is left out.
    """
    config, found = source.config, source.tensors
    _check_stamps(source)
    module = FlaxViTClsForImageClassificationModule if has_head(source) else FlaxViTClsModule
    shapes = parameter_shapes(module, config)
    own = {canonical(name): name for name in shapes}
    expected = {name: shapes[own[name]] for name in own}
    for name, tensor in found.items():
        where = f"{tensor.file}: tensor {tensor.name!r}"
        if name not in expected:
            if source.family is not NATIVE and name.startswith(_unread_heads(source)):
                continue
            raise CheckpointError(f"{where} is not one that config.json asks for")
        if tensor.shape != expected[name].shape:
            raise CheckpointError(f"{where} has shape {tensor.shape}, config.json asks for {expected[name].shape}")
        if tensor.dtype not in FLOATS.values():
            raise CheckpointError(f"{where} is {tensor.dtype}, expected floating-point of 16 to 64 bits")
    missing = sorted(set(expected) - set(found))
    if missing and not allow_missing:
        files = sorted({str(tensor.file) for tensor in found.values()}) or [str(source.path)]
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(
            f"{files[0]}: tensor {own[missing[0]]!r}{more} missing; the file is not of this config.json"
        )
    return {name: tensor for name, tensor in found.items() if name in expected}, missing


def _unread_heads(source: Source) -> tuple[str, ...]:
    """What the names of heads begin with that another library's file may hold and its classifier does not read."""
    heads = () if source.config.readout == "map" else ("readout.",)
    return (*heads, "representation.") if source.family.tanh_of_backbone and has_head(source) else heads


def _check_stamps(source: Source) -> None:
    """Raise CheckpointError where weight files are not of one checkpoint, or not of this config.json."""
    stamps = {tensor.stamp: tensor.file for tensor in source.tensors.values() if tensor.stamp is not None}
    if len(stamps) > 1:
        files = " and ".join(sorted(str(file) for file in stamps.values())[:2])
        raise CheckpointError(f"{files} are of two checkpoints; download or save them again")
    for stamp, file in stamps.items():
        if stamp.split("-")[0] != architecture_digest(source.config):
            remedy = "put the config.json back, or give what you changed to from_pretrained as a keyword"
            raise CheckpointError(f"{file}: was saved with another config.json than lies beside it; {remedy}")


def has_head(source: Source) -> bool:
    """Whether a checkpoint has a classifier: by its config, or by its tensors where that does not say."""
    return has_classifier({"architectures": source.config.architectures}, source.tensors)
