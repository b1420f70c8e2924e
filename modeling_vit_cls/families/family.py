"""A checkpoint family: a table between its tensor names and ours, and functions between its config and ours."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, ConfigError, shorten
from ..files.tensor import Tensor
from ..images.processor_classes import IMAGENET as IMAGENET
from .layouts import Layout, Layouts

BICUBIC = {"resample": 3}
ANY_SIZE = {"dynamic_image_size": True, "ignore_border": True}  # for models that check no image size
_DINOV2_SIZE = (518, 518)  # of DINOv2's training; all its published results were measured at 224 pixels

_OUTSIDE = ("classifier.", "distillation_classifier.", "projection.")  # modules that never have a family's prefix


Processor = Callable[[dict[str, Any], ViTClsConfig], dict[str, Any]]
Override = Callable[
    [dict[str, Any], Mapping[str, Any], Mapping[str, Tensor]],
    tuple[dict[str, Any], list[str]],
]


def always(fields: dict[str, Any]) -> Processor:
    """A Processor that gives the same fields for every checkpoint of a family."""
    return lambda *_: dict(fields)


def cropped(fields: dict[str, Any], margin: float = 256 / 224) -> Processor:
    """A Processor that resizes the shortest edge to `margin` times the crop, then crops the centre.

    The crop has the model's image size, or 224 pixels for DINOv2.
    """

    def processor(_: dict[str, Any], config: ViTClsConfig) -> dict[str, Any]:
        height, width = (224, 224) if config.image_hw == _DINOV2_SIZE else config.image_hw
        size = {"shortest_edge": round(max(height, width) * margin)}
        return {**fields, "size": size, "do_center_crop": True, "crop_size": {"height": height, "width": width}}

    return processor


class Export(NamedTuple):
    """What a family needs to write one of our models.

    Attributes:
        fields: of its config.json.
        prefix: of its tensor names.
        without: rows of the table to leave out, where several rows are the same parameter of ours.
        zeros: {name: shape} of parameters that only the family has, and that change nothing when they are zero.
        finish: changes the family's arrays, by its names, where renaming is not enough.
    """

    fields: dict[str, Any]
    prefix: str = ""
    without: tuple[str, ...] = ()
    zeros: Mapping[str, tuple[int, ...]] = {}
    finish: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = lambda arrays: arrays


class Family(NamedTuple):
    """A kind of checkpoint, and how it is read and written.

    Attributes:
        name: in messages.
        fields: (fields of its config.json, tensors by our names) -> fields of our config.
        table: from its modules and parameters to ours, after `prefixes`; "{}" is the number of a block.
        model_types: the values of `model_type` in config.json that mean this family.
        architectures: a regular expression for timm's `architecture` in config.json.
        signature: shell wildcards. A checkpoint without a config.json belongs to the first family with a match among
            its tensor names, after `prefixes`.
        proof: shell wildcards of complete names that no other library has. Without a match the user is warned.
        prefixes: removed from its tensor names, in this order.
        ignored: shell wildcards of tensors that are not used, after `prefixes`.
        prepare: changes tensors where renaming is not enough.
        merge: (fields of its config.json, tensors by our names) -> tensors by our names, where one parameter of ours is
            two of the family.
        override: (fields of its config.json, fields of ours that a user gave, tensors by our names) -> fields of its
            config.json as if these stood there, and notes about what came from the tensors. For a family whose
            config.json may leave out what a model was built with.
        processor: (fields of its config.json, our config) -> fields of the image processor, for a checkpoint without a
            preprocessor_config.json.
        processor_class: the class of a preprocessor_config.json that names none.
        normalizes: whether its model normalises pixels itself, after the image processor; ours does both in one.
        export: (our config, whether there is a classifier) -> Export; None if the family cannot be written.
        unused_by_classifier: beginnings of our names of tensors that its classifiers do not use: a pooler, a norm.
    """

    name: str
    fields: Callable[[dict[str, Any], Mapping[str, Tensor]], dict[str, Any]]
    table: Mapping[str, Layouts] = {}
    model_types: tuple[str, ...] = ()
    architectures: str = ""
    signature: tuple[str, ...] = ()
    proof: tuple[str, ...] = ("*",)
    prefixes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    prepare: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda tensors: tensors
    merge: Callable[[dict[str, Any], dict[str, Tensor]], dict[str, Tensor]] = lambda _, tensors: tensors
    override: Override = lambda fields, *_: (fields, [])
    processor: Processor = always({})
    processor_class: str | None = None
    normalizes: bool = False
    export: Callable[[ViTClsConfig, bool], Export] | None = None
    unused_by_classifier: tuple[str, ...] = ()

    def short(self, name: str) -> str:
        """A tensor's name without the family's prefixes."""
        for prefix in self.prefixes:
            name = name.removeprefix(prefix)
        return name

    def ignores(self, name: str) -> bool:
        """Whether a tensor, by its name without prefixes, is known and not used: a text tower, a mask token."""
        return any(fnmatchcase(name, pattern) for pattern in self.ignored)

    def spare(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Names of tensors outside the model, which transformers ignores with a warning.

        They belong to a decoder, a loss or the head of another task: they have none of the family's prefixes, and no
        module of the family begins like them. Files of other libraries contain only the model.
        """
        if not self.model_types or not self.table:
            return []
        known = {name.partition(".")[0] for name in (*self.table, *self.ignored)}
        return [name for name in tensors if not name.startswith(self.prefixes) and name.partition(".")[0] not in known]

    def convert(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a checkpoint under our canonical names and in our layouts.

        Raises CheckpointError for a tensor that the family does not have.
        """
        short: dict[str, Tensor] = {}
        spare = set(self.spare(tensors))
        for name, tensor in tensors.items():
            if name not in spare:
                _add(short, self.short(name), tensor)
        converted: dict[str, Tensor] = {}
        for name, tensor in self.prepare(short).items():
            for ours, part in self._parts(name, tensor):
                _add(converted, ours, part)
        return converted

    def _parts(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Our parameters in one tensor of a checkpoint, with their names."""
        if not self.table:
            yield name, tensor
            return
        if self.ignores(name):
            return
        if 0 in tensor.shape:  # transformers writes an empty tensor for no registers
            return
        number = re.search(r"(?<=[._])\d+(?=\.)", name)
        pattern = name if number is None else name[: number.start()] + "{}" + name[number.end() :]
        module, _, suffix = pattern.rpartition(".")
        layout = self.table.get(pattern, {}).get("") or self.table.get(module, {}).get(suffix)
        if layout is None:
            raise CheckpointError(f"{tensor.file}: tensor {tensor.name!r} does not belong to a {self.name} checkpoint")
        try:
            for i, ours in enumerate(layout.names):
                if ours is not None:
                    part = tensor.through(lambda array, i=i, layout=layout: layout.split(array)[i])
                    yield _in_block(ours, int(number[0]) if number else 0), part
        except (ValueError, IndexError) as error:
            problem = f"tensor {tensor.name!r} has shape {tensor.shape}, which is impossible in {self.name} checkpoints"
            raise CheckpointError(f"{tensor.file}: {problem}") from error

    def restore(
        self, tensors: Mapping[str, np.ndarray], depth: int, export: Export
    ) -> tuple[dict[str, np.ndarray], set[str]]:
        """Our parameters under the family's names and in its layouts: the inverse of `convert`.

        `tensors` have our canonical names, `depth` is the number of blocks. Returns the family's tensors, and the names
        of those of ours that it cannot hold. Of several spellings, the first in the table is written.
        """
        remaining, restored = dict(tensors), {}
        for theirs, layout in self._rows(depth, export.without):
            parts = [None if name is None else remaining.get(name) for name in layout.names]
            present = [part for part in parts if part is not None]
            if layout.join is None or len(present) < sum(name is not None for name in layout.names):
                continue
            prefix = "" if str(layout.names[0]).startswith(_OUTSIDE) else export.prefix
            restored[prefix + theirs] = np.ascontiguousarray(
                layout.join([np.zeros_like(present[0]) if part is None else part for part in parts])
            )
            remaining = {name: array for name, array in remaining.items() if name not in layout.names}
        zeros = {export.prefix + name: np.zeros(shape, np.float32) for name, shape in export.zeros.items()}
        return export.finish(restored | zeros), set(remaining)

    def _rows(self, depth: int, without: tuple[str, ...]) -> Iterator[tuple[str, Layout]]:
        """The name of every possible tensor of the family, and its layout with our names, for each block."""
        for pattern, layouts in self.table.items():
            for suffix, layout in layouts.items() if pattern not in without else ():
                name = f"{pattern}.{suffix}" if suffix else pattern
                for block in range(depth if "{}" in pattern else 1):
                    names = tuple(ours and _in_block(ours, block) for ours in layout.names)
                    yield name.replace("{}", str(block)), layout._replace(names=names)


def _add(tensors: dict[str, Tensor], name: str, tensor: Tensor) -> None:
    """Add a tensor under a new name. Raises CheckpointError if the name is used already."""
    if name in tensors:
        problem = f"tensors {tensors[name].name!r} and {tensor.name!r} are the same parameter"
        raise CheckpointError(f"{tensor.file}: {problem}")
    tensors[name] = tensor


def _in_block(ours: str, block: int) -> str:
    """Our name with the number of its block: "{}.norm1.scale" -> "encoder.layer_07.norm1.scale"."""
    return ours.replace("{}.", f"encoder.layer_{block:02d}.")


def _own_fields(fields: dict[str, Any], _: Mapping[str, Tensor]) -> dict[str, Any]:
    return fields


NATIVE = Family("vit_cls", _own_fields, model_types=("vit_cls",), prefixes=("vit_cls.",))


def has(tensors: Mapping[str, Tensor], module: str) -> bool:
    """Whether a tensor, or any tensor of a module, exists. An incomplete module is an error of the strict check."""
    return any(name == module or name.startswith(f"{module}.") for name in tensors)


def has_classifier(fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint has a classifier: by the class in its config.json, or else by its tensors."""
    names = fields.get("architectures")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    if name == "ViTClsModel":  # our own backbone, and how timm's num_classes=0 is converted
        return False
    return "ForImageClassification" in name or has(tensors, "classifier")


def side_of(patch_size: Any) -> Any:
    """The side of a square patch. transformers 5 may write a pair; CheckpointError for a pair that is not equal."""
    if not isinstance(patch_size, list | tuple):
        return patch_size
    if len(patch_size) != 2 or patch_size[0] != patch_size[1]:
        raise CheckpointError(
            f"config.json: patch_size={shorten(patch_size)} must be one number or a pair of equal ones"
        )
    return patch_size[0]


def vision_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of the image tower: those of a tower's own config.json, or `vision_config` of a whole model's."""
    return fields if fields["model_type"].endswith("_vision_model") else fields.get("vision_config") or {}


def labels(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields about labels in a transformers config that are set: label maps, count, and problem type."""
    return {name: fields[name] for name in ("id2label", "label2id", "num_labels", "problem_type") if fields.get(name)}


def common_fields(config: ViTClsConfig, names: Sequence[str], has_head: bool) -> dict[str, Any]:
    """The config fields `names`, which transformers has under the same names, and a classifier's labels, for JSON."""
    fields = {name: getattr(config, name) for name in names}
    if config.image_hw[0] == config.image_hw[1]:  # some models of transformers accept no pair
        fields["image_size"] = config.image_hw[0]
    if has_head:
        id2label = {str(i): label for i, label in config.id2label.items()}  # pyright: ignore
        fields |= {"id2label": id2label, "label2id": {label: int(i) for i, label in id2label.items()}}
        fields |= {} if config.problem_type is None else {"problem_type": config.problem_type}
    return fields


def square(config: ViTClsConfig, target: str) -> int:
    """The side of a config's square image. Raises ConfigError, naming `target`, for other images."""
    height, width = config.image_hw
    if height != width:
        raise ConfigError("image_size", config.image_size, f"must be square in {target}")
    return height


def refuse_unless(fields: dict[str, Any], /, **expected: Any) -> None:
    """Raise CheckpointError for the first field of a config.json that has another value than expected."""
    for name, value in expected.items():
        if fields.get(name, value) != value:
            raise CheckpointError(f"config.json: {name}={fields[name]!r} cannot be loaded, only {value!r}")


def canonical(name: str) -> str:
    """A parameter's path in the base model. A model with a head has the prefix "vit_cls." for its backbone."""
    return name.removeprefix("vit_cls.")
