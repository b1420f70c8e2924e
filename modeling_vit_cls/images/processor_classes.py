"""From a preprocessor_config.json of any supported class of transformers to arguments of ViTClsImageProcessor.

A field that the file omits has the default of the class that it names. Pixels are compared one by one with
transformers' processors on Pillow ("slow" in 4.57, "...Pil" in 5) in tests/test_processor_classes.py.

With torchvision installed, transformers 5, and 4.57 for names that end in "Fast", resize with torchvision: the same
filter with other rounding. Pixels then differ by at most 2 of 255, on average by less than 0.05 (tests/parity.py), and
an image that is smaller than its crop by an odd number may be shifted by one pixel. DINOv3's class needs torchvision;
it resizes after scaling, in float32, so its pixels are not rounded: at most 1 of 255, on average 0.3. TIPSv2's class
is of torchvision alone too.
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
FIELDS = (*_FIELDS, "crop_rounding")  # of ViTClsImageProcessor; transformers has all but the last
# Operations on pixels that ViTClsImageProcessor does not have. A file that sets one is refused, whatever its class.
_UNSUPPORTED = ("do_pad", "do_flip_channel_order", "do_thumbnail", "do_align_long_axis", "use_square_size")
_UNSUPPORTED += ("do_convert_grayscale", "do_grayscale", "do_crop_margin", "do_color_quantize", "do_affine_transform")
# Operations of a few classes only, translated by the functions below.
_CLASS_SPECIFIC = ("crop_pct", "rescale_offset")

Fields = dict[str, Any]


def _square(side: int) -> Fields:
    return {"height": side, "width": side}


class ProcessorClass(NamedTuple):
    """How one of transformers' image processors reads its file.

    Attributes:
        defaults: of our fields.
        default_to_square: whether a `size` of one number is a square, not the shortest edge, unless the file has it.
        translate: rewrites the fields that have another meaning in this class, (our fields, the file) -> our fields.
        extra_fields: those of `_CLASS_SPECIFIC` that this class reads.
        crops: False where the class has no central crop in transformers 4.57, even if the file sets one.
    """

    defaults: Fields
    default_to_square: bool = True
    translate: Callable[[Fields, Mapping[str, Any]], Fields] = lambda fields, _: fields
    extra_fields: tuple[str, ...] = ()
    crops: bool = True


def _convnext(fields: Fields, given: Mapping[str, Any]) -> Fields:
    """Below 384 pixels: resize the shortest edge to size / `crop_pct`, then crop the centre. From 384: resize only."""
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
    """The image is resized to 256/224 of the shortest edge."""
    edge = fields["size"].get("shortest_edge") if isinstance(fields["size"], Mapping) else None
    return fields if not isinstance(edge, int) else {**fields, "size": {"shortest_edge": int(256 / 224 * edge)}}


def _poolformer(fields: Fields, given: Mapping[str, Any]) -> Fields:
    """Sizes are divided by `crop_pct`; a square size is then the shortest edge."""
    share, size = _share(given.get("crop_pct"), 0.9), fields["size"]
    sides = [side for side in size.values() if isinstance(side, int)] if isinstance(size, Mapping) else []
    larger = [int(side / share) for side in sides]
    if len(sides) == 2 and sides[0] != sides[1]:
        return {**fields, "size": dict(zip(size, larger))}
    return {**fields, "size": {"shortest_edge": larger[0]}} if larger else fields


def _efficientnet(fields: Fields, given: Mapping[str, Any]) -> Fields:
    """`rescale_offset` subtracts 1 after scaling; `include_top` divides by the standard deviation a second time."""
    mean, std = fields["image_mean"], fields["image_std"]
    if not all(isinstance(number, int | float) for number in (*mean, *std)):
        return fields  # ViTClsImageProcessor reports them
    if not fields["do_normalize"]:
        mean, std = [0.0] * len(mean), [1.0] * len(std)
    if fields["do_rescale"] and given.get("rescale_offset"):
        mean = [number + 1 for number in mean]
    if given.get("include_top", True):
        std = [first * second for first, second in zip(std, fields["image_std"])]
    return {**fields, "do_normalize": True, "image_mean": mean, "image_std": std}


def _naflex(fields: Fields, given: Mapping[str, Any]) -> Fields:
    """SigLIP 2 keeps the aspect ratio within a number of patches, and ignores `size`."""
    size = {name: _or(given.get(name), default) for name, default in (("max_num_patches", 256), ("patch_size", 16))}
    return {**fields, "size": size, "do_center_crop": False}


def _edge_of(size: Any, name: str) -> int:
    edge = size.get("shortest_edge") if isinstance(size, Mapping) else None
    if not isinstance(edge, int) or isinstance(edge, bool) or len(size) != 1:
        raise ConfigError("size", size, f"of {name} must be a number of pixels, or {{'shortest_edge': pixels}}")
    return edge


def _share(value: Any, default: float) -> float:
    value = _or(value, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.01 <= value <= 100:
        raise ConfigError("crop_pct", value, "must be a number from 0.01 to 100")
    return value


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


_CROPPED = {"do_center_crop": True, "crop_size": _square(224)}
_CLIP = ProcessorClass({"size": {"shortest_edge": 224}, **_CROPPED, **CLIP}, default_to_square=False)
_MOBILENET = ProcessorClass(
    {"size": {"shortest_edge": 256}, **_CROPPED, "resample": 2, **HALF}, default_to_square=False
)
CLASSES = {
    "ViTImageProcessor": ProcessorClass({"size": _square(224), "resample": 2, **HALF}, crops=False),
    "DeiTImageProcessor": ProcessorClass({"size": _square(256), **_CROPPED, **HALF}),
    "CLIPImageProcessor": _CLIP,
    "ChineseCLIPImageProcessor": _CLIP,
    "BitImageProcessor": _CLIP,
    "ViTHybridImageProcessor": _CLIP,
    "SiglipImageProcessor": ProcessorClass({"size": _square(224), **HALF}, default_to_square=False, crops=False),
    "Siglip2ImageProcessor": ProcessorClass(
        {"size": _square(256), "resample": 2, **HALF}, translate=_naflex, crops=False
    ),
    "BlipImageProcessor": ProcessorClass({"size": _square(384), **CLIP}, crops=False),
    "BeitImageProcessor": ProcessorClass({"size": _square(224), "crop_size": _square(224), **HALF}),
    "FlavaImageProcessor": ProcessorClass({"size": _square(224), **_CROPPED, **CLIP}),
    "DINOv3ViTImageProcessor": ProcessorClass({"size": _square(224), "resample": 2, **IMAGENET}),
    "Tipsv2ImageProcessor": ProcessorClass({"size": _square(448), "resample": 2, "do_normalize": False, **HALF}),
    "MobileNetV1ImageProcessor": _MOBILENET,
    "MobileNetV2ImageProcessor": _MOBILENET,
    "LevitImageProcessor": ProcessorClass(
        {"size": {"shortest_edge": 224}, **_CROPPED, **IMAGENET}, default_to_square=False, translate=_levit
    ),
    "PoolFormerImageProcessor": ProcessorClass(
        {"size": {"shortest_edge": 224}, **_CROPPED, **IMAGENET},
        default_to_square=False,
        translate=_poolformer,
        extra_fields=("crop_pct",),
    ),
    "ConvNextImageProcessor": ProcessorClass(
        {"size": {"shortest_edge": 384}, **HALF},
        default_to_square=False,
        translate=_convnext,
        extra_fields=("crop_pct",),
        crops=False,
    ),
    "PvtImageProcessor": ProcessorClass({"size": _square(224), **IMAGENET}, crops=False),
    "EfficientNetImageProcessor": ProcessorClass(
        {"size": _square(346), "crop_size": _square(289), **HALF},
        translate=_efficientnet,
        extra_fields=("rescale_offset",),
    ),
}
# Defaults of transformers 4.57 that differ from those of 5. A missing field has the default of the installed version.
_IN_4: dict[str, Fields] = {
    "BeitImageProcessor": {"size": _square(256), "do_center_crop": True},
    "ConvNextImageProcessor": {"resample": 2},
    "PvtImageProcessor": {"resample": 2},
    "EfficientNetImageProcessor": {"resample": 0},
}
_PLAIN = {"do_resize": True, "resample": 3, "do_center_crop": False, "crop_size": None, "do_rescale": True}
_PLAIN |= {"rescale_factor": 1 / 255, "do_normalize": True}
# The meaning of null in these fields, which differs from a missing field. In all others it is the same.
_NULL = {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False, "resample": 2}


def our_fields(given: Mapping[str, Any], unnamed: str = OURS) -> Fields:
    """The contents of a preprocessor_config.json -> arguments of ViTClsImageProcessor that give the same pixels.

    `unnamed` is the class of a file that names none. Raises ConfigError, naming the field, for a class or an operation
    that ViTClsImageProcessor does not support.
    """
    for name in _UNSUPPORTED:
        if given.get(name):
            rule = "is not supported by ViTClsImageProcessor: prepare such pixel_values yourself"
            raise ConfigError(name, given[name], rule)
    name = class_of(given) or unnamed
    if name == OURS:
        _refuse_unknown(given, ())
        return {name: given[name] for name in FIELDS if given.get(name) is not None}
    if name not in CLASSES:
        known = ", ".join(sorted(CLASSES))
        raise ConfigError("image_processor_type", name, f"is not supported, only {known}")
    kind, is_4 = CLASSES[name], transformers.__version__.startswith("4.")
    _refuse_unknown(given, kind.extra_fields)
    defaults = {**_PLAIN, **kind.defaults, **(_IN_4.get(name, {}) if is_4 else {})}
    null = {field: _NULL[field] for field in _NULL if field in given}
    fields = {field: _or(given.get(field), {**defaults, **null}[field]) for field in _FIELDS}
    if is_4 and not kind.crops:
        fields["do_center_crop"] = False
    if fields["do_center_crop"] and fields["crop_size"] is None:
        raise ConfigError("crop_size", None, f"is needed for do_center_crop=true, and {name} has no default")
    for field in ("image_mean", "image_std"):  # one number holds for each channel
        fields[field] = [fields[field]] * 3 if isinstance(fields[field], int | float) else fields[field]
    square = kind.default_to_square  # the classes of 4.57 that are not "Fast" do not read it in the file
    if "default_to_square" in given and (not is_4 or str(given.get("image_processor_type")).endswith("Fast")):
        square = bool(given["default_to_square"])
    fields["size"] = _size(fields["size"], square)
    fields["crop_size"] = _size(fields["crop_size"], square=True)
    return {field: value for field, value in kind.translate(fields, given).items() if value is not None}


def class_of(given: Mapping[str, Any]) -> str | None:
    """The class that a file names, spelt as in transformers 5 without Fast, Pil or FeatureExtractor; else None."""
    name = given.get("image_processor_type") or given.get("feature_extractor_type")
    if name is None:
        if "AutoImageProcessor" in (given.get("auto_map") or {}):
            rule = "code in a repository is never run: name a class of transformers in image_processor_type"
            raise ConfigError("auto_map", given["auto_map"], rule)
        return None
    if not isinstance(name, str):
        raise ConfigError("image_processor_type", name, "must be the name of a class")
    return name.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil")


def _refuse_unknown(given: Mapping[str, Any], extra_fields: tuple[str, ...]) -> None:
    for field in _CLASS_SPECIFIC:
        if given.get(field) and field not in extra_fields:
            rule = "is not supported by ViTClsImageProcessor, and not a field of the class that the file names"
            raise ConfigError(field, given[field], f"{rule}: prepare such pixel_values yourself")


def _size(size: Any, square: bool) -> Any:
    """A size as a dict: one number means a square or the shortest edge, a pair is (height, width)."""
    if isinstance(size, int) and not isinstance(size, bool):
        return _square(size) if square else {"shortest_edge": size}
    if isinstance(size, list | tuple) and len(size) == 2:
        return {"height": size[0], "width": size[1]}
    return size
