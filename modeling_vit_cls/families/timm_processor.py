"""What else timm's config.json tells: the size and preparation of images, and the names of classes."""

import math
from collections.abc import Mapping
from typing import Any

from PIL import Image

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, shorten
from .family import IMAGENET
from .timm_export import INTERPOLATIONS


def image_size(fields: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of the images, in pixels; `given` are the `model_args`."""
    size = given.get("img_size") or (fields.get("pretrained_cfg") or fields).get("input_size", (3, 224, 224))[1:]
    return (size, size) if isinstance(size, int) else tuple(size)


def labels(fields: dict[str, Any], count: int) -> dict[str, Any]:
    """The `id2label` of `count` classes from `label_names`, a list or a dict by number (which may have gaps).

    An old config.json without a `pretrained_cfg` may have them under "labels". Raises CheckpointError for names that do
    not fit the classifier.
    """
    pretrained = fields.get("pretrained_cfg")
    names = fields.get("label_names", (fields if pretrained is None else pretrained).get("label_names"))
    names = fields.get("labels", names) if pretrained is None else names
    if not names or not count:
        return {}
    pairs = dict(enumerate(names)) if isinstance(names, list) and len(names) == count else names
    pairs = pairs if isinstance(pairs, dict) else {"": names}
    id2label = {int(i): label for i, label in pairs.items() if str(i).isdecimal() and isinstance(label, str)}
    if len(id2label) != len(pairs) or max(id2label) >= count:
        raise CheckpointError(f"label_names={shorten(names)}: expected the names of {count} classes, a list or a dict")
    return {"id2label": {i: id2label.get(i, f"LABEL_{i}") for i in range(count)}}


def processor(fields: dict[str, Any], config: ViTClsConfig) -> dict[str, Any]:
    """The image processor of a `pretrained_cfg`, as in timm.data.transforms_imagenet_eval, for the model's image size.

    With "center", the default, the aspect ratio is kept and the image covers size / crop_pct; with "squash" it is
    resized to exactly that. Then the centre is cropped. Raises CheckpointError for other modes.
    """
    pretrained = fields.get("pretrained_cfg") or fields
    share, mode = pretrained.get("crop_pct") or 0.875, pretrained.get("crop_mode") or "center"
    interpolation = pretrained.get("interpolation") or "bicubic"
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0.01 <= share <= 100:
        raise CheckpointError(f"crop_pct={shorten(share)} must be a number from 0.01 to 100")
    if mode not in ("center", "squash"):
        raise CheckpointError(f"crop_mode={shorten(mode)} is not supported, only 'center' and 'squash'")
    if interpolation not in INTERPOLATIONS:
        raise CheckpointError(f"interpolation={shorten(interpolation)} must be one of {', '.join(INTERPOLATIONS)}")
    height, width = config.image_hw
    rows, columns = math.floor(height / share), math.floor(width / share)
    if mode == "squash":
        size = {"height": rows, "width": columns}
    else:
        size = {"shortest_edge": rows} if rows == columns else {"min_height": rows, "min_width": columns}
    return {
        "size": size,
        "do_center_crop": mode == "center" or (rows, columns) != (height, width),
        "crop_size": {"height": height, "width": width},
        "crop_rounding": "torchvision",
        "resample": int(Image.Resampling[interpolation.upper()]),
        "image_mean": _each_channel(pretrained.get("mean") or IMAGENET["image_mean"], config.num_channels),
        "image_std": _each_channel(pretrained.get("std") or IMAGENET["image_std"], config.num_channels),
    }


def _each_channel(numbers: Any, channels: int) -> list[Any]:
    return list(numbers) * (channels if len(numbers) == 1 else 1)
