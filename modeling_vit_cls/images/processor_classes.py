"""What a preprocessor_config.json means: by the class of transformers that it names, whose defaults fill what it omits.

Compared pixel by pixel with transformers' own processors of both majors (tests/test_processor_classes.py), which are
those on Pillow: "slow" in 4.57, "...Pil" in 5. Where torchvision is installed, transformers 5, and 4.57 for names that
end in "Fast", take torchvision's resizing, the same filter with other rounding: pixels differ by at most 2 of 255, on
average by less than 0.05 (tests/parity.py), and an image that is smaller than its crop by an odd number may lie one
pixel elsewhere. DINOv3's class exists on torchvision alone; it resizes after scaling, in float32, so that its pixels
are not rounded as ours are: at most 1 of 255, on average 0.3.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import transformers

from ..errors import ConfigError

HALF, IMAGENET, CLIP = (
    {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]},
    {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
    {
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    },
)
OURS = "ViTClsImageProcessor"
_FIELDS = ("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor")
_FIELDS += ("do_normalize", "image_mean", "image_std")
# What other processors do to pixels and ours does not: a file that asks for it is refused, whatever class it names.
_NOT_DONE = ("do_pad", "do_flip_channel_order", "do_thumbnail", "do_align_long_axis", "use_square_size")
_NOT_DONE += ("do_convert_grayscale", "do_grayscale", "do_crop_margin", "do_color_quantize", "do_affine_transform")
# What the named class alone does, each by its own function below.
_OF_ONE_CLASS = ("crop_pct", "rescale_offset")

Fields = dict[str, Any]


def _square(side: int) -> Fields:
    return {"height": side, "width": side}


class ProcessorClass(NamedTuple):
    """Defaults of one of transformers' image processors.

    `defaults` are in our fields. `one_number` is what a `size` of one number stands for. `own` rewrites fields that
    have another meaning in this class, and `knows` names what it reads beyond ours. `crops` is False where the class
    of 4.57 has no central crop, whatever the file says.
    """

    defaults: Fields
    one_number: str = "square"
    own: Callable[[Fields, Mapping[str, Any]], Fields] = lambda fields, _: fields
    knows: tuple[str, ...] = ()
    crops: bool = True


def _convnext(fields: Fields, given: Mapping[str, Any]) -> Fields:
    """Under 384 pixels the shortest edge over `crop_pct`, then the central square; from 384 on a square, whole."""
    if not fields["do_resize"]:
        return fields
    edge = _edge_of(fields["size"], "ConvNextImageProcessor")
    if fields["do_center_crop"]:
        raise ConfigError("do_center_crop", True, "ConvNextImageProcessor crops by crop_pct: leave it out")
    if edge >= 384:
        return {**fields, "size": _square(edge)}
    share = _share(given.get("crop_pct"), 224 / 256)
    return {**fields, "size": {"shortest_edge": int(edge / share)}, "do_center_crop": True, "crop_size": _square(edge)}


def _levit(fields: Fields, _: Mapping[str, Any]) -> Fields:
    """The shortest edge is meant for 224 pixels of 256."""
    edge = fields["size"].get("shortest_edge") if isinstance(fields["size"], Mapping) else None
    return fields if not isinstance(edge, int) else {**fields, "size": {"shortest_edge": int(256 / 224 * edge)}}


def _poolformer(fields: Fields, given: Mapping[str, Any]) -> Fields:
    """Sizes are divided by `crop_pct`; a square one is then the shortest edge."""
    share, size = _share(given.get("crop_pct"), 0.9), fields["size"]
    sides = [side for side in size.values() if isinstance(side, int)] if isinstance(size, Mapping) else []
    larger = [int(side / share) for side in sides]
    if len(sides) == 2 and sides[0] != sides[1]:
        return {**fields, "size": dict(zip(size, larger))}
    return {**fields, "size": {"shortest_edge": larger[0]}} if larger else fields


def _efficientnet(fields: Fields, given: Mapping[str, Any]) -> Fields:
    """`rescale_offset` takes 1 off after scaling; `include_top` divides by the deviation once more."""
    mean, std = fields["image_mean"], fields["image_std"]
    if not all(isinstance(number, int | float) for number in (*mean, *std)):
        return fields  # which are refused
    if not fields["do_normalize"]:
        mean, std = [0.0] * len(mean), [1.0] * len(std)
    if fields["do_rescale"] and given.get("rescale_offset"):
        mean = [number + 1 for number in mean]
    if given.get("include_top", True):
        std = [number * own for number, own in zip(std, fields["image_std"])]
    return {**fields, "do_normalize": True, "image_mean": mean, "image_std": std}


def _naflex(fields: Fields, given: Mapping[str, Any]) -> Fields:
    """SigLIP 2: the aspect ratio is kept, within so many patches; it reads no size."""
    size = {name: _or(given.get(name), default) for name, default in (("max_num_patches", 256), ("patch_size", 16))}
    return {**fields, "size": size, "do_center_crop": False}


def _edge_of(size: Any, name: str) -> int:
    edge = size.get("shortest_edge") if isinstance(size, Mapping) else None
    if not isinstance(edge, int) or isinstance(edge, bool) or len(size) != 1:
        raise ConfigError("size", size, f"of {name} must be a number of pixels, or {{'shortest_edge': it}}")
    return edge


def _share(value: Any, default: float) -> float:
    value = _or(value, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.01 <= value <= 100:
        raise ConfigError("crop_pct", value, "must be a number from 0.01 to 100")
    return value


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


_CROPPED = {"do_center_crop": True, "crop_size": _square(224)}
_CLIP = ProcessorClass({"size": {"shortest_edge": 224}, **_CROPPED, **CLIP}, "shortest_edge")
_MOBILENET = ProcessorClass({"size": {"shortest_edge": 256}, **_CROPPED, "resample": 2, **HALF}, "shortest_edge")
CLASSES = {
    "ViTImageProcessor": ProcessorClass({"size": _square(224), "resample": 2, **HALF}, crops=False),
    "DeiTImageProcessor": ProcessorClass({"size": _square(256), **_CROPPED, **HALF}),
    "CLIPImageProcessor": _CLIP,
    "ChineseCLIPImageProcessor": _CLIP,
    "BitImageProcessor": _CLIP,
    "ViTHybridImageProcessor": _CLIP,
    "SiglipImageProcessor": ProcessorClass({"size": _square(224), **HALF}, "shortest_edge", crops=False),
    "Siglip2ImageProcessor": ProcessorClass({"size": _square(256), "resample": 2, **HALF}, own=_naflex, crops=False),
    "BlipImageProcessor": ProcessorClass({"size": _square(384), **CLIP}, crops=False),
    "BeitImageProcessor": ProcessorClass({"size": _square(224), "crop_size": _square(224), **HALF}),
    "FlavaImageProcessor": ProcessorClass({"size": _square(224), **_CROPPED, **CLIP}),
    "DINOv3ViTImageProcessor": ProcessorClass({"size": _square(224), "resample": 2, **IMAGENET}),
    "MobileNetV1ImageProcessor": _MOBILENET,
    "MobileNetV2ImageProcessor": _MOBILENET,
    "LevitImageProcessor": ProcessorClass(
        {"size": {"shortest_edge": 224}, **_CROPPED, **IMAGENET}, "shortest_edge", own=_levit
    ),
    "PoolFormerImageProcessor": ProcessorClass(
        {"size": {"shortest_edge": 224}, **_CROPPED, **IMAGENET}, "shortest_edge", own=_poolformer, knows=("crop_pct",)
    ),
    "ConvNextImageProcessor": ProcessorClass(
        {"size": {"shortest_edge": 384}, **HALF}, "shortest_edge", own=_convnext, knows=("crop_pct",), crops=False
    ),
    "PvtImageProcessor": ProcessorClass({"size": _square(224), **IMAGENET}, crops=False),
    "EfficientNetImageProcessor": ProcessorClass(
        {"size": _square(346), "crop_size": _square(289), **HALF}, own=_efficientnet, knows=("rescale_offset",)
    ),
}
# Where transformers 4.57 has other defaults than 5: what a file leaves out means what the installed version takes.
_IN_4: dict[str, Fields] = {
    "BeitImageProcessor": {"size": _square(256), "do_center_crop": True},
    "ConvNextImageProcessor": {"resample": 2},
    "PvtImageProcessor": {"resample": 2},
    "EfficientNetImageProcessor": {"resample": 0},
}
_PLAIN = {"do_resize": True, "resample": 3, "do_center_crop": False, "crop_size": None, "do_rescale": True}
_PLAIN |= {"rescale_factor": 1 / 255, "do_normalize": True}
# What null stands for, which is not the same as leaving a field out; elsewhere it is.
_NULL = {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False, "resample": 2}


def our_fields(given: Mapping[str, Any], unnamed: str = OURS) -> Fields:
    """The contents of a preprocessor_config.json -> arguments of ViTClsImageProcessor that give the same pixels.

    `unnamed` is the class that a file means which names none. Raises ConfigError, naming the field, for what is not
    done here.
    """
    for name in _NOT_DONE:
        if given.get(name):
            raise ConfigError(name, given[name], "is not done by ViTClsImageProcessor: prepare such pixels yourself")
    name = class_of(given) or unnamed
    if name == OURS:
        _refuse_unknown(given, ())
        return {name: given[name] for name in (*_FIELDS, "crop_rounding") if given.get(name) is not None}
    if name not in CLASSES:
        known = ", ".join(sorted(CLASSES))
        raise ConfigError("image_processor_type", name, f"is not done here, only {known}")
    kind, is_4 = CLASSES[name], transformers.__version__.startswith("4.")
    _refuse_unknown(given, kind.knows)
    defaults = {**_PLAIN, **kind.defaults, **(_IN_4.get(name, {}) if is_4 else {})}
    null = {field: _NULL[field] for field in _NULL if field in given}
    fields = {field: _or(given.get(field), {**defaults, **null}[field]) for field in _FIELDS}
    if is_4 and not kind.crops:
        fields["do_center_crop"] = False
    if fields["do_center_crop"] and fields["crop_size"] is None:
        raise ConfigError("crop_size", None, f"is needed for do_center_crop=true, and {name} has no default")
    for field in ("image_mean", "image_std"):  # one number is that of each channel
        fields[field] = [fields[field]] * 3 if isinstance(fields[field], int | float) else fields[field]
    fields["size"] = _size(fields["size"], kind.one_number)
    fields["crop_size"] = _size(fields["crop_size"], "square")
    return {field: value for field, value in kind.own(fields, given).items() if value is not None}


def class_of(given: Mapping[str, Any]) -> str | None:
    """The class that a file names, as transformers 5 spells it, without Fast or FeatureExtractor; None for none."""
    name = given.get("image_processor_type") or given.get("feature_extractor_type")
    if name is None:
        if "AutoImageProcessor" in (given.get("auto_map") or {}):
            rule = "code of a repository is never run"
            raise ConfigError("auto_map", given["auto_map"], rule)
        return None
    if not isinstance(name, str):
        raise ConfigError("image_processor_type", name, "must be the name of a class")
    return name.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil")


def _refuse_unknown(given: Mapping[str, Any], knows: tuple[str, ...]) -> None:
    for field in _OF_ONE_CLASS:
        if given.get(field) and field not in knows:
            rule = "is not done by ViTClsImageProcessor, nor by the class that the file names"
            raise ConfigError(field, given[field], f"{rule}: prepare such pixels yourself")


def _size(size: Any, one_number: str) -> Any:
    """A size as a dict: one number means a square or the shortest edge, a pair is (height, width)."""
    if isinstance(size, int) and not isinstance(size, bool):
        return _square(size) if one_number == "square" else {"shortest_edge": size}
    if isinstance(size, list | tuple) and len(size) == 2:
        return {"height": size[0], "width": size[1]}
    return size
