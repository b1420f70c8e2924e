"""The image processor: images of any kind -> pixel_values (B, C, H, W) float32."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image
from transformers import BaseImageProcessor, BatchFeature

from ..configuration_vit_cls import ViTClsConfig
from ..errors import BadImageError, ConfigError
from .processor_classes import OURS, our_fields
from .rgb import load_image

_MAX_RESIZED = 25_000_000  # pixels of a resized image, and of its half-way state: 100 MB each

_SIZES = ({"height", "width"}, {"shortest_edge"}, {"min_height", "min_width"}, {"max_num_patches", "patch_size"})
_FLAGS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")


def _is_number(value: Any, low: float, high: float = 1e9) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _size(field: str, value: Any, default: dict[str, int], edge: bool) -> dict[str, int]:
    """A size as a dict; one number, as in older files, is the shortest edge if `edge`, else both sides."""
    if value is None:
        return default
    if isinstance(value, int):
        value = {"shortest_edge": value} if edge else {"height": value, "width": value}
    sides = dict(value) if isinstance(value, Mapping) else {}
    allowed = _SIZES[:1] if field == "crop_size" else _SIZES
    whole = all(isinstance(side, int) and _is_number(side, 1, 65536) for side in sides.values())
    if set(sides) not in allowed or not whole:
        raise ConfigError(
            field, value, f"must have, in pixels, the keys {' or '.join(str(sorted(keys)) for keys in allowed)}"
        )
    return sides


def _statistics(field: str, value: Any, low: float) -> list[Any]:
    """Mean or deviation of each channel: 3 numbers, or 1 for grey images."""
    numbers = list(value) if isinstance(value, Sequence) else [value]
    if len(numbers) not in (1, 3) or not all(_is_number(number, low) for number in numbers):
        raise ConfigError(field, value, f"must hold 3 numbers from {low:g} to 1e9, or 1 for grey images")
    return numbers


class ViTClsImageProcessor(BaseImageProcessor):
    """Resize, crop, rescale and normalise: images -> pixel_values (B, C, H, W) float32.

    Args:
        size: {"height", "width"} for an exact size; to keep the aspect ratio {"shortest_edge"}, or {"min_height",
            "min_width"} for the smallest size that covers both, as timm has it for images that are not square; pixels.
            {"max_num_patches", "patch_size"} for the largest size of whole patches, at most so many, that keeps the
            aspect ratio but for rounding up to patches: SigLIP 2 NaFlex.
        resample: PIL's number of the interpolation (2 bilinear, 3 bicubic).
        crop_size: {"height", "width"} of the central crop, taken when `do_center_crop`; black where it is larger.
        crop_rounding: whose rule says where a crop begins whose margin is odd: "transformers" or "torchvision", which
            is timm's too and is one pixel off for some.
        image_mean, image_std: one number a channel, on the scale after rescaling. One number makes the output grey,
            before resizing, as timm's loader does for models of one channel; transformers has no such conversion.
    """

    model_input_names: ClassVar = ["pixel_values"]

    def __init__(
        self,
        do_resize: bool = True,
        size: dict[str, int] | int | None = None,
        resample: int = Image.Resampling.BILINEAR,
        do_center_crop: bool = False,
        crop_size: dict[str, int] | int | None = None,
        crop_rounding: Literal["transformers", "torchvision"] = "transformers",
        do_rescale: bool = True,
        rescale_factor: float = 1 / 255,
        do_normalize: bool = True,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.do_resize, self.resample = do_resize, resample
        self.size = _size("size", size, {"height": 224, "width": 224}, edge=do_center_crop)
        self.do_center_crop = do_center_crop
        self.crop_size = _size("crop_size", crop_size, {"height": 224, "width": 224}, edge=False)
        self.crop_rounding = crop_rounding
        self.do_rescale, self.rescale_factor = do_rescale, rescale_factor
        self.do_normalize = do_normalize
        self.image_mean = _statistics("image_mean", image_mean, -1e9)
        self.image_std = _statistics("image_std", image_std, 1e-9)
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(name, getattr(self, name), "must be true or false")
        if not isinstance(resample, int) or isinstance(resample, bool) or resample not in list(Image.Resampling):
            raise ConfigError("resample", resample, "must be one of PIL's numbers, 0 to 5 (2 bilinear, 3 bicubic)")
        if crop_rounding not in ("transformers", "torchvision"):
            raise ConfigError("crop_rounding", crop_rounding, "must be 'transformers' or 'torchvision'")
        if not _is_number(rescale_factor, 1e-9):
            raise ConfigError("rescale_factor", rescale_factor, "must be a number from 1e-9 to 1e9")
        if len(self.image_mean) != len(self.image_std):
            raise ConfigError("image_std", image_std, f"must hold {len(self.image_mean)}, as image_mean")

    @property
    def output_hw(self) -> tuple[int, int] | None:
        """Height and width of what comes out, in pixels; None where that depends on the image."""
        last = self.crop_size if self.do_center_crop else self.size if self.do_resize else {}
        return (last["height"], last["width"]) if "height" in last else None

    def emits(self, config: ViTClsConfig) -> bool:
        """Whether this processor's pixels have the channels and the size of a config."""
        return self.output_hw in (config.image_hw, None) and len(self.image_mean) == config.num_channels

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], unnamed: str = OURS) -> "ViTClsImageProcessor":
        """The processor of a `preprocessor_config.json` that names one of transformers' classes, else of `unnamed`.

        A field that the file leaves out has that class's default. What acts on no pixels is left. Raises ConfigError
        for fields that cannot be, or that ask for what is not done.
        """
        return cls(**our_fields(fields, unnamed))

    @classmethod
    def for_config(cls, config: ViTClsConfig) -> "ViTClsImageProcessor":
        """The processor that emits what a config's model takes: its size, its channels, values in [-1, 1]."""
        height, width = config.image_hw
        if config.num_channels not in (1, 3):
            raise ConfigError("num_channels", config.num_channels, "images have 1 or 3: prepare other pixels yourself")
        half = (0.5,) * config.num_channels
        return cls(size={"height": height, "width": width}, image_mean=half, image_std=half)

    def at_size(self, image_hw: tuple[int, int]) -> "ViTClsImageProcessor":
        """The same processor for another height and width, in pixels; a margin around a crop keeps its share."""
        fields = {name: value for name, value in self.to_dict().items() if name != "image_processor_type"}
        target = {"height": image_hw[0], "width": image_hw[1]}
        if not self.do_center_crop:
            return type(self)(**{**fields, "size": target})
        scale = max(image_hw[0] / self.crop_size["height"], image_hw[1] / self.crop_size["width"])
        size = {name: round(pixels * scale) for name, pixels in self.size.items()}
        return type(self)(**{**fields, "size": size, "crop_size": target})

    def preprocess(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, images: Any, return_tensors: str | None = None, **kwargs: Any
    ) -> BatchFeature:
        """One image or a list of them -> {"pixel_values": (B, C, H, W) float32}, NumPy, or JAX for "jax"."""
        if kwargs:
            raise TypeError(f"unknown keywords {sorted(kwargs)}: set them on the processor, which is what is saved")
        if return_tensors not in (None, "np", "jax"):
            raise ValueError(f"return_tensors={return_tensors!r}: expected 'np', 'jax' or None")
        batch = images if isinstance(images, list | tuple) else [images]
        if getattr(images, "ndim", 0) == 4:  # a batch in one array, NumPy's or JAX's
            batch = list(np.asarray(images))
        if not batch:
            raise BadImageError("expected at least one image, got an empty batch")
        arrays = [self._pixels(load_image(image)) for image in batch]
        if len({array.shape for array in arrays}) > 1:
            raise BadImageError(f"expected images of one size, got {sorted({array.shape for array in arrays})}")
        pixels = np.stack(arrays)
        if return_tensors == "jax":
            import jax.numpy as jnp  # the processor itself needs NumPy alone

            return BatchFeature({"pixel_values": jnp.asarray(pixels)})
        return BatchFeature({"pixel_values": pixels})

    def resized(self, image: Image.Image) -> np.ndarray:
        """An RGB image, resized and cropped: (H, W, C) uint8, what is then scaled and normalised."""
        if len(self.image_mean) == 1:
            image = image.convert("L")
        if self.do_resize:
            width, height = self._target(image)
            if max(width * height, width * image.height) > _MAX_RESIZED:
                raise BadImageError(f"{image.width} x {image.height} pixels would become {width} x {height}")
            image = image.resize((width, height), self.resample)
        if self.do_center_crop:
            height, width = self.crop_size["height"], self.crop_size["width"]
            left, top = self._crop_start(image.width - width), self._crop_start(image.height - height)
            image = image.crop((left, top, left + width, top + height))
        pixels = np.asarray(image)
        return pixels.reshape(*pixels.shape[:2], -1)

    def _pixels(self, image: Image.Image) -> np.ndarray:
        """An RGB image to normalised pixels (C, H, W) float32, looked up by value and channel."""
        pixels = self.resized(image)
        values = np.arange(256, dtype=np.float64)
        if self.do_rescale:
            values = values * self.rescale_factor
        table = np.tile(values.astype(np.float32)[:, None], pixels.shape[2])  # (256, C)
        if self.do_normalize:
            table = (table - np.asarray(self.image_mean, np.float32)) / np.asarray(self.image_std, np.float32)
        return np.stack([table[:, channel][pixels[:, :, channel]] for channel in range(pixels.shape[2])])

    def _crop_start(self, margin: int) -> int:
        """Where a central crop begins; `margin` is what it leaves out, negative where the image is the smaller."""
        if self.crop_rounding == "transformers":
            return margin // 2
        return round(margin / 2) if margin > 0 else -(-margin // 2)  # a half goes to the even neighbour

    def _target(self, image: Image.Image) -> tuple[int, int]:
        """Width and height to resize to."""
        if "height" in self.size:
            return self.size["width"], self.size["height"]
        if "min_height" in self.size:
            ratio = min(image.height / self.size["min_height"], image.width / self.size["min_width"])
            return round(image.width / ratio), round(image.height / ratio)
        if "max_num_patches" in self.size:
            height, width = whole_patches((image.height, image.width), **self.size)
            return width, height
        short, long = sorted((image.width, image.height))
        edge = self.size["shortest_edge"]
        other = int(edge * long / short)
        return (edge, other) if image.width <= image.height else (other, edge)


def whole_patches(image_hw: tuple[int, int], max_num_patches: int, patch_size: int) -> tuple[int, int]:
    """Height and width, in pixels, of the largest image of at most so many patches that keeps the aspect ratio.

    Each side is rounded up to a patch. The scale is found by halving its range down to 1e-5, where SigLIP 2 stops too:
    a finer search would give other sizes than it was trained with.
    """
    low, high = 1e-6, 100.0

    def grid(scale: float) -> list[int]:
        return [max(1, math.ceil(side * scale / patch_size)) for side in image_hw]

    while high - low >= 1e-5:
        middle = (low + high) / 2
        low, high = (middle, high) if math.prod(grid(middle)) <= max_num_patches else (low, middle)
    rows, columns = grid(low)
    return rows * patch_size, columns * patch_size
