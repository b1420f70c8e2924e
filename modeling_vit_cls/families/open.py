"""Opening a checkpoint of any family: its config as ours, and its tensors by our names, still unread."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from ..config_rules import RULES
from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, ConfigError, shorten
from ..files.file_digests import check_digests
from ..files.json_file import read_json
from ..files.tensor import Tensor
from ..files.weights import holds_standard_weights, read_weights
from ..label_maps import LABEL_FIELDS, read_labels
from ..names import CONFIG, DIGESTS, OPEN_CLIP_CONFIG, PROCESSOR
from . import FAMILIES, family_of, family_of_tensors, is_proven, own_config, recognised
from .activations import with_our_activation
from .adapter import Adapter
from .family import NATIVE, Family, has_classifier, side_of
from .not_read import refuse_unread_config, refuse_unread_folder
from .open_clip import is_open_clip, weights_of
from .quantised import refuse_quantised_config, refuse_quantised_names
from .sizes import refuse_contradictions
from .timm import WRAPPER
from .wrappers import unwrapped

# Fields that change no prediction of weights from a file, and the value instead of one that ours cannot have.
_TRAINING_ALONE = {"initializer_range": 0.02, "layer_scale_init_value": 1e-5}
_TRAINING_ALONE |= dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"), 0.0)

_GUESSED = (
    ", which is a guess by the tensor names; if the model is one of timm's, DeiT's or MAE's, add a config.json, "
    '{"architecture": "vit_...", "num_classes": ...}'
)

Shapes = dict[str, jax.ShapeDtypeStruct]
Reader = Callable[[Path], dict[str, Tensor]]


def parameter_shapes(module_class: type[nn.Module], config: ViTClsConfig) -> Shapes:
    """Shape and dtype of a module's parameters, by dotted path. Nothing is computed or allocated."""
    return dict(_parameter_shapes(module_class, type(config), config.to_json_string(use_diff=False)))


@cache
def _parameter_shapes(
    module_class: type[nn.Module], config_class: type[ViTClsConfig], config_json: str
) -> tuple[tuple[str, jax.ShapeDtypeStruct], ...]:
    config = config_class.from_dict(json.loads(config_json))
    depth, config.num_hidden_layers = config.num_hidden_layers, 1  # blocks are equal: trace one only
    images = jax.ShapeDtypeStruct((1, *config.image_hw, config.num_channels), jnp.float32)
    tree = jax.eval_shape(module_class(config).init, jax.random.PRNGKey(0), images)["params"]
    shapes: Shapes = {}
    for name, leaf in flatten_dict(tree, sep=".").items():
        names = [name.replace("layer_00", f"layer_{i:02d}") for i in range(depth)] if "layer_00" in name else [name]
        shapes.update(dict.fromkeys(names, leaf))
    return tuple(shapes.items())


class Source(NamedTuple):
    """An opened checkpoint of any family.

    Attributes:
        config: its config as ours.
        tensors: by canonical name, still unread.
        processor: the image processor's fields that the family or its config.json gives, or the reason why not.
        spare: names of tensors that are not part of the model.
        notes: how labels, and fields of training, in config.json differ from those of `config`.
        from_tensors: fields that were read from the tensors, because the user's keywords say that config.json does not
            describe the model.
        file_notes: how the model was found in its files, as in `LoadReport`.
        adapter: the adapter of PEFT that was merged into the tensors, if any.
    """

    path: Path
    family: Family
    config: ViTClsConfig
    tensors: dict[str, Tensor]
    processor: dict[str, Any] | CheckpointError
    spare: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    from_tensors: tuple[str, ...] = ()
    file_notes: tuple[str, ...] = ()
    adapter: Adapter | None = None


def read_headers(path: Path) -> dict[str, Tensor]:
    """The tensors of a folder or a file as `read_weights` gives them, without their numbers."""
    return {name: tensor.header() for name, tensor in read_weights(path).items()}


def open_checkpoint(
    path: Path,
    overrides: Mapping[str, Any] = MappingProxyType({}),
    *,
    read: Reader = read_weights,
    adapter: Adapter | None = None,
) -> Source:
    """Read the config and the headers of a folder, or of a weight file, of any family. The weights are not read.

    Args:
        overrides: fields of our config that a user gave. They count in a family whose config.json may leave out what a
            model was built with.
        read: gives the tensors: `read_weights`, or `read_headers` for tensors without numbers.
        adapter: an adapter of this checkpoint, which is merged into it.

    Raises CheckpointError, or ConfigError for a config of ours, with file and field or tensor. Both name an override
    that is wrong.
    """
    if (path / DIGESTS).is_file():  # a checkpoint-N: each weight file has digests of its own, compared when it is read
        check_digests(path, (CONFIG, PROCESSOR))
    file = config_file(path)
    fields = read_json(file)
    has_own_adapter = adapter is None or adapter.path.samefile(path)  # an adapter beside a base would change it too
    refuse_unread_folder(path, holds_standard_weights(path) and has_own_adapter)
    refuse_quantised_config(fields, file)
    refuse_unread_config(fields, file)
    family = family_of(fields, file)
    if family is NATIVE:
        if adapter is not None:
            problem = f"its base {adapter.base} is a checkpoint of this package, which PEFT does not know"
            raise CheckpointError(f"{adapter.path}: {problem}")
        config = own_config(fields)  # before the weights, so that a wrong config is reported first
        notes = tuple(read_labels(fields)[1])
        tensors = NATIVE.convert(read(path))
        refuse_contradictions(tensors, overrides, path)
        return Source(path, NATIVE, config, tensors, {}, notes=notes)
    weights = read(weights_of(path) if is_open_clip(path) else path)
    refuse_quantised_names(weights, path)

    def own(weights: Mapping[str, Tensor]) -> tuple[str, ...]:
        likely = family or recognised(weights)
        return (*(likely.prefixes if likely else ()), *(("visual.",) if is_open_clip(path) else ()))

    weights, wrapper = unwrapped(weights, own)
    has_family = family is not None
    family = family or family_of_tensors(weights, path, has_config=bool(fields))
    try:
        tensors = family.convert(weights)
    except CheckpointError as error:
        if has_family or is_proven(family, weights):
            raise
        raise CheckpointError(f"{error}{_GUESSED}") from error
    if adapter is not None:
        tensors, fields = adapter.merged(tensors, family), adapter.fields(fields, family)
    refuse_contradictions(tensors, overrides, path)
    try:
        labels, notes = read_labels(fields, _outputs(tensors))
        fields = {name: value for name, value in fields.items() if name not in LABEL_FIELDS} | labels
        fields, from_tensors = family.override(fields, overrides, tensors)
        ours, more_notes = _without_extremes(family.fields(fields, tensors))
        config = ViTClsConfig.from_dict(with_our_activation(_with_border(ours)))
        tensors = family.merge(fields, tensors)
    except (ConfigError, CheckpointError) as error:
        raise CheckpointError(f"{file if fields else path}, {family.name}: {error}") from error
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:  # the JSON may hold anything
        raise CheckpointError(f"{file}, {family.name}: has fields of the wrong type ({shorten(error)})") from error
    processor: dict[str, Any] | CheckpointError
    try:
        processor = family.processor(fields, config)
    except (CheckpointError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        processor = CheckpointError(f"{file}, {family.name}: {error}")
    config.architectures = fields.get("architectures", config.architectures)
    file_notes = [f"all tensors are inside {wrapper!r}, which was left out of their names"] if wrapper else []
    file_notes += [adapter.note(family)] if adapter else []
    return Source(
        path,
        family,
        config,
        tensors,
        processor,
        spare=tuple(family.spare(weights)),
        notes=(*notes, *more_notes),
        from_tensors=tuple(from_tensors),
        file_notes=tuple(file_notes),
        adapter=adapter,
    )


def _outputs(tensors: dict[str, Tensor]) -> int | None:
    """The number of outputs of a classifier; None without one."""
    kernel = tensors.get("classifier.kernel")
    return kernel.shape[1] if kernel is not None and len(kernel.shape) == 2 else None


def _with_border(ours: dict[str, Any]) -> dict[str, Any]:
    """Fields of a config of another library, with `ignore_border` where its image is not a multiple of its patch.

    All libraries ignore the incomplete patches at the border of such an image. A family with `ignore_border` in its
    fields ignores them at any size.
    """
    size, patch = ours.get("image_size", 224), side_of(ours.get("patch_size", 16))
    sides = size if isinstance(size, list | tuple) else [size]
    are_numbers = isinstance(patch, int) and patch > 0 and all(isinstance(side, int) for side in sides)
    border = are_numbers and any(side % patch for side in sides)
    return ours | {"patch_size": patch, "ignore_border": ours.get("ignore_border", False) or border}


def _without_extremes(ours: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Fields of a config of another library, and notes: what acts in training alone has no value that ours cannot have.

    These are dropout of everything, and weights that are drawn as zeros. The numbers of the weights come from the file.
    """
    notes = []
    for name, value in _TRAINING_ALONE.items():
        given = ours.get(name)
        if given in (0, 1) and not isinstance(given, bool) and not RULES[name][0](given):
            ours = {**ours, name: value}
            notes.append(f"{name}={given!r} acts in training alone, and cannot be given here: it is {value!r}")
    return ours, notes


def is_foreign(path: Path) -> bool:
    """Whether a checkpoint is of a supported family of another library. CheckpointError for a damaged config.json."""
    file = config_file(path)
    fields = read_json(file)
    model_type = fields.get("model_type") or None
    return model_type in (None, WRAPPER) or (
        model_type != "vit_cls" and any(model_type in f.model_types for f in FAMILIES)
    )


def config_file(path: Path) -> Path:
    """The path of the config.json, or OpenCLIP's config, of a folder or a weight file. The file need not exist."""
    return (path if path.is_dir() else path.parent) / (OPEN_CLIP_CONFIG if is_open_clip(path) else CONFIG)


def has_head(source: Source) -> bool:
    """Whether a checkpoint has a classifier: by its config, or else by its tensors."""
    return has_classifier({"architectures": source.config.architectures}, source.tensors)
