"""What a family is: a table between its tensor names and ours, and functions between its config and ours."""

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
ANY_SIZE = {"dynamic_image_size": True, "ignore_border": True}  # a torch Conv2d and a resampling, nothing checked
_DINOV2_SIZE = (518, 518)  # of training; all that was published of it was measured at 224 pixels

_OUTSIDE = ("classifier.", "distillation_classifier.", "projection.")  # what no library puts under its prefix


Processor = Callable[[dict[str, Any], ViTClsConfig], dict[str, Any]]


def always(fields: dict[str, Any]) -> Processor:
    """The same image processor's fields for every checkpoint of a family."""
    return lambda *_: dict(fields)


def cropped(fields: dict[str, Any], margin: float = 256 / 224) -> Processor:
    """The shortest edge resized to `margin` times the crop, then the central crop: the model's size, DINOv2's 224."""

    def processor(_: dict[str, Any], config: ViTClsConfig) -> dict[str, Any]:
        height, width = (224, 224) if config.image_hw == _DINOV2_SIZE else config.image_hw
        size = {"shortest_edge": round(max(height, width) * margin)}
        return {**fields, "size": size, "do_center_crop": True, "crop_size": {"height": height, "width": width}}

    return processor


class Export(NamedTuple):
    """A config of ours as a family writes it: its `config.json`, what its names begin with, and what is special.

    `without` are rows of the table that this checkpoint has no use for, where several rows are the same parameter of
    ours. `zeros` are parameters that theirs has and ours has not, and that change nothing: shapes by name.
    """

    fields: dict[str, Any]
    prefix: str = ""
    without: tuple[str, ...] = ()
    zeros: Mapping[str, tuple[int, ...]] = {}


class Family(NamedTuple):
    """A kind of checkpoint.

    It is recognised by the `model_types` of a config.json, by timm's names of `architectures` (a regular expression),
    or, without a config.json, by a tensor that no earlier one has: the `signature`, shell wildcards of which one is
    enough. Where another library's files can have the same names, `proof` are wildcards of names in full that only
    this one's have; a file without any is taken with a warning. `table` maps a module or parameter of theirs,
    "{}" for the block's number, to ours; `prefixes` are taken off their names; tensors that match `ignored` (shell
    wildcards, after the prefix) are no part of the model; `prepare` puts right what is more than a name. `fields` gives
    our config's fields from their config and the tensors by our names; `processor` the image processor's, from their
    config and ours, where the checkpoint has no file of its own for them, and `processor_class` is the class that a
    file means which names none. `export` is the way back, for those that have one. With `tanh_of_backbone` the
    representation layer is a pooler, which the library's classifiers leave out.
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
    prepare: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda found: found
    processor: Processor = always({})
    processor_class: str | None = None
    export: Callable[[ViTClsConfig, bool], Export] | None = None
    tanh_of_backbone: bool = False

    def short(self, name: str) -> str:
        """A tensor's name without the family's prefixes."""
        for prefix in self.prefixes:
            name = name.removeprefix(prefix)
        return name

    def spare(self, found: Mapping[str, Tensor]) -> list[str]:
        """Names of tensors that transformers leaves out, with a warning: of a decoder, a loss, a head of another task.

        They stand outside of the backbone, beside what begins with the family's prefix, and begin as no tensor of the
        family does. Other libraries' files hold nothing but the model.
        """
        if not self.model_types or not self.table:
            return []
        known = {name.partition(".")[0] for name in (*self.table, *self.ignored)}
        return [name for name in found if not name.startswith(self.prefixes) and name.partition(".")[0] not in known]

    def convert(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our canonical names and layouts. Raises CheckpointError at a tensor that the family does not have."""
        short: dict[str, Tensor] = {}
        spare = set(self.spare(found))
        for name, tensor in found.items():
            if name not in spare:
                _add(short, self.short(name), tensor)
        converted: dict[str, Tensor] = {}
        for name, tensor in self.prepare(short).items():
            for ours, part in self._parts(name, tensor):
                _add(converted, ours, part)
        return converted

    def _parts(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        if not self.table:
            yield name, tensor
            return
        if any(fnmatchcase(name, pattern) for pattern in self.ignored):
            return
        if 0 in tensor.shape:  # transformers writes registers even where there are none of them
            return
        number = re.search(r"(?<=[._])\d+(?=\.)", name)
        pattern = name if number is None else name[: number.start()] + "{}" + name[number.end() :]
        module, _, suffix = pattern.rpartition(".")
        layout = self.table.get(pattern, {}).get("") or self.table.get(module, {}).get(suffix)
        if layout is None:
            raise CheckpointError(f"{tensor.file}: tensor {tensor.name!r} is not one of a {self.name} checkpoint")
        try:
            for i, ours in enumerate(layout.names):
                if ours is not None:
                    part = tensor.through(lambda array, i=i, layout=layout: layout.split(array)[i])
                    yield _in_block(ours, int(number[0]) if number else 0), part
        except (ValueError, IndexError) as error:
            problem = f"tensor {tensor.name!r} has shape {tensor.shape}, which no {self.name} checkpoint has there"
            raise CheckpointError(f"{tensor.file}: {problem}") from error

    def restore(
        self, tensors: Mapping[str, np.ndarray], depth: int, export: Export
    ) -> tuple[dict[str, np.ndarray], set[str]]:
        """Their names and layouts for parameters by our canonical names, and those of ours that have no place there.

        The way back from `convert`. Of several spellings the table's first is written.
        """
        left, restored = dict(tensors), {}
        for theirs, layout in self._rows(depth, export.without):
            parts = [None if name is None else left.get(name) for name in layout.names]
            given = [part for part in parts if part is not None]
            if layout.join is None or len(given) < sum(name is not None for name in layout.names):
                continue
            prefix = "" if str(layout.names[0]).startswith(_OUTSIDE) else export.prefix
            restored[prefix + theirs] = np.ascontiguousarray(
                layout.join([np.zeros_like(given[0]) if part is None else part for part in parts])
            )
            left = {name: array for name, array in left.items() if name not in layout.names}
        zeros = {export.prefix + name: np.zeros(shape, np.float32) for name, shape in export.zeros.items()}
        return restored | zeros, set(left)

    def _rows(self, depth: int, without: tuple[str, ...]) -> Iterator[tuple[str, Layout]]:
        """Every tensor that the family can have: its name, and its layout with our names, blocks numbered."""
        for pattern, layouts in self.table.items():
            for suffix, layout in layouts.items() if pattern not in without else ():
                name = f"{pattern}.{suffix}" if suffix else pattern
                for block in range(depth if "{}" in pattern else 1):
                    names = tuple(ours and _in_block(ours, block) for ours in layout.names)
                    yield name.replace("{}", str(block)), layout._replace(names=names)


def _add(tensors: dict[str, Tensor], name: str, tensor: Tensor) -> None:
    """Add a tensor under a name that no other has. Raises CheckpointError where one has it."""
    if name in tensors:
        same = f"tensors {tensors[name].name!r} and {tensor.name!r} are the same"
        raise CheckpointError(f"{tensor.file}: {same}")
    tensors[name] = tensor


def _in_block(ours: str, block: int) -> str:
    """Our name with the number of its block: "{}.norm1.scale" -> "encoder.layer_07.norm1.scale"."""
    return ours.replace("{}.", f"encoder.layer_{block:02d}.")


def _own_fields(fields: dict[str, Any], _: Mapping[str, Tensor]) -> dict[str, Any]:
    return fields


NATIVE = Family("vit_cls", _own_fields, model_types=("vit_cls",), prefixes=("vit_cls.",))


def has(tensors: Mapping[str, Tensor], module: str) -> bool:
    """Whether a tensor, or any of a module, is there; a module in part is for the strict check to refuse."""
    return any(name == module or name.startswith(f"{module}.") for name in tensors)


def has_classifier(fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> bool:
    """Whether there is a classifier: by the class that a config.json names, or, whatever that is, by the tensors."""
    named = fields.get("architectures")
    name = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""
    if name == "ViTClsModel":  # our own name, which we wrote, or which timm's num_classes=0 comes to
        return False
    return "ForImageClassification" in name or has(tensors, "classifier")


def side_of(patch_size: Any) -> Any:
    """The side of a square patch, of which transformers 5 may write a pair. Raises CheckpointError for another pair."""
    if not isinstance(patch_size, list | tuple):
        return patch_size
    if len(patch_size) != 2 or patch_size[0] != patch_size[1]:
        raise CheckpointError(
            f"config.json: patch_size={shorten(patch_size)} must be one number, or a pair of equal ones"
        )
    return patch_size[0]


def labels(fields: dict[str, Any]) -> dict[str, Any]:
    """The label maps of a transformers config and what its labels are, as far as it has them."""
    return {name: fields[name] for name in ("id2label", "label2id", "num_labels", "problem_type") if fields.get(name)}


def common_fields(config: ViTClsConfig, names: Sequence[str], has_head: bool) -> dict[str, Any]:
    """Fields that a transformers config has under our names, and the labels of a classifier, as JSON has them."""
    fields = {name: getattr(config, name) for name in names}
    if config.image_hw[0] == config.image_hw[1]:  # some of transformers' models take no pair
        fields["image_size"] = config.image_hw[0]
    if has_head:
        id2label = {str(i): label for i, label in config.id2label.items()}  # pyright: ignore
        fields |= {"id2label": id2label, "label2id": {label: int(i) for i, label in id2label.items()}}
        fields |= {} if config.problem_type is None else {"problem_type": config.problem_type}
    return fields


def square(config: ViTClsConfig, target: str) -> int:
    """The side of a square image. Raises ConfigError for another, where `target` knows no other."""
    height, width = config.image_hw
    if height != width:
        raise ConfigError("image_size", config.image_size, f"must be square in {target}")
    return height


def refuse_unless(file_says: dict[str, Any], **expected: Any) -> None:
    """Raise CheckpointError at the first field of a config that our model cannot express."""
    for name, value in expected.items():
        if file_says.get(name, value) != value:
            raise CheckpointError(f"config.json: {name}={file_says[name]!r} cannot be loaded, only {value!r}")


def canonical(name: str) -> str:
    """A parameter's dotted path as the base model has it: a model with a head keeps its backbone under "vit_cls."."""
    return name.removeprefix("vit_cls.")
