"""The image processor: images of any kind -> pixel_values (B, C, H, W) float32."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image
from transformers import BaseImageProcessor, BatchFeature

from ..configuration_vit_cls import ViTClsConfig
from ..errors import BadImageError, ConfigError
from .processor_call import fields_of_call
from .processor_classes import FIELDS, OURS, our_fields
from .rgb import is_one_image, load_image

_MAX_RESIZED = 25_000_000  # pixels of a resized image, and of Pillow's intermediate image: 100 MB each

_SIZES = ({"height", "width"}, {"shortest_edge"}, {"min_height", "min_width"}, {"max_num_patches", "patch_size"})
_FLAGS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")


def _is_number(value: Any, low: float, high: float = 1e9) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _size(field: str, value: Any, default: dict[str, int], edge: bool) -> dict[str, int]:
    """A size as a dict. One number, as in older files, is the shortest edge if `edge`, else both sides."""
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
    """The mean or the standard deviation of each channel: 3 numbers, or 1 for grey images."""
    numbers = list(value) if isinstance(value, Sequence) else [value]
    if len(numbers) not in (1, 3) or not all(_is_number(number, low) for number in numbers):
        raise ConfigError(field, value, f"must hold 3 numbers from {low:g} to 1e9, or 1 for grey images")
    return numbers


class ViTClsImageProcessor(BaseImageProcessor):
    """Resize, crop, rescale and normalise: images -> pixel_values (B, C, H, W) float32.

    Args:
        size: In pixels. {"height", "width"} is an exact size. These keep the aspect ratio: {"shortest_edge"};
            {"min_height", "min_width"}, the smallest size that covers both, which timm uses for models that are not
            square; {"max_num_patches", "patch_size"}, the largest size of at most so many whole patches, which SigLIP 2
            NaFlex uses (each side is rounded up to whole patches).
        resample: Number of PIL's interpolation (2 bilinear, 3 bicubic).
        crop_size: {"height", "width"} of the central crop in pixels, used when `do_center_crop`. Where the crop is
            larger than the image, it is filled with black.
        crop_rounding: The library that the start of a crop agrees with when the margin is odd: "transformers", or
            "torchvision", which timm uses too. They differ by one pixel for some sizes.
        image_mean, image_std: One number per channel, on the scale after rescaling. A single number converts the image
            to grey before resizing, as timm does for models of one channel; transformers has no such conversion.
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
            rule = f"must hold as many numbers as image_mean, {len(self.image_mean)}"
            raise ConfigError("image_std", image_std, rule)

    @property
    def output_hw(self) -> tuple[int, int] | None:
        """Height and width of the output in pixels; None where they depend on the image."""
        last = self.crop_size if self.do_center_crop else self.size if self.do_resize else {}
        return (last["height"], last["width"]) if "height" in last else None

    def emits(self, config: ViTClsConfig) -> bool:
        """Whether the output has the size and the number of channels of a config."""
        return self.output_hw in (config.image_hw, None) and len(self.image_mean) == config.num_channels

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], unnamed: str = OURS) -> "ViTClsImageProcessor":
        """The processor that a `preprocessor_config.json` describes.

        `fields` are its contents. A missing field has the default of the class of transformers that the file names, or
        of the class `unnamed` where it names none. Fields that do not change pixels are ignored. Raises ConfigError for
        a wrong value and for an operation that this processor does not have.
        """
        return cls(**our_fields(fields, unnamed))

    @classmethod
    def for_config(cls, config: ViTClsConfig) -> "ViTClsImageProcessor":
        """A processor for the models of a config: their image size and channels, values in [-1, 1]."""
        height, width = config.image_hw
        if config.num_channels not in (1, 3):
            rule = "must be 1 or 3 for images: prepare pixel_values of other channels yourself"
            raise ConfigError("num_channels", config.num_channels, rule)
        half = (0.5,) * config.num_channels
        return cls(size={"height": height, "width": width}, image_mean=half, image_std=half)

    def at_size(self, image_hw: tuple[int, int]) -> "ViTClsImageProcessor":
        """The same processor for another height and width in pixels. The size before a crop scales with the crop."""
        target = {"height": image_hw[0], "width": image_hw[1]}
        if not self.do_center_crop:
            return self._with({"size": target})
        scale = max(image_hw[0] / self.crop_size["height"], image_hw[1] / self.crop_size["width"])
        size = {name: round(pixels * scale) for name, pixels in self.size.items()}
        return self._with({"size": size, "crop_size": target})

    def _with(self, fields: Mapping[str, Any]) -> "ViTClsImageProcessor":
        """The same processor with some fields replaced."""
        own = {name: value for name, value in self.to_dict().items() if name != "image_processor_type"}
        return type(self)(**{**own, **fields})

    def preprocess(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, images: Any, return_tensors: str | None = None, **kwargs: Any
    ) -> BatchFeature:
        """One image or several, such as a list or a column -> {"pixel_values": (B, C, H, W) float32}.

        The arrays are NumPy's, or JAX's with `return_tensors="jax"`. `kwargs` are fields that replace those of the
        processor in this call (`do_normalize=False`); of `image_mean` and `image_std` one number holds for each
        channel. Raises BadImageError for an image that cannot be read and for images that come out in different sizes,
        ConfigError for a wrong value and an unknown keyword.
        """
        if return_tensors not in (None, "np", "jax"):
            remedy = "`torch.from_numpy` makes a tensor of NumPy's array"
            raise ConfigError("return_tensors", return_tensors, f"must be 'np', 'jax' or None; {remedy}")
        if kwargs:
            fields = fields_of_call(kwargs, FIELDS)
            for name in fields.keys() & {"image_mean", "image_std"}:
                if _is_number(fields[name], -1e9):
                    fields[name] = [fields[name]] * len(self.image_mean)
            return self._with(fields).preprocess(images, return_tensors)
        batch = [images] if is_one_image(images) else list(images)
        if not batch:
            raise BadImageError("expected at least one image, got an empty batch")
        arrays = [self._pixels(load_image(image)) for image in batch]
        if len({array.shape for array in arrays}) > 1:
            raise BadImageError(f"expected images of one size, got {sorted({array.shape for array in arrays})}")
        pixels = np.stack(arrays)
        if return_tensors == "jax":
            import jax.numpy as jnp  # imported here, so that a processor without it needs only NumPy

            return BatchFeature({"pixel_values": jnp.asarray(pixels)})
        return BatchFeature({"pixel_values": pixels})

    def resized(self, image: Image.Image, box: tuple[float, float, float, float] | None = None) -> np.ndarray:
        """An RGB image -> its pixels after resizing and cropping, (H, W, C) uint8, before they are normalised.

        With a `box` (left, top, right, bottom) in pixels, as a random crop of training is, this part of the image is
        resized to `output_hw` instead.
        """
        if len(self.image_mean) == 1:
            image = image.convert("L")
        if self.do_resize or box:
            width, height = self.output_hw[::-1] if box and self.output_hw else self._target(image)
            if max(width * height, width * image.height) > _MAX_RESIZED:
                size = f"{image.width} x {image.height} pixels would become {width} x {height}"
                raise BadImageError(f"{size}, over the limit of {_MAX_RESIZED:,} pixels")
            image = image.resize((width, height), self.resample, box)
        if self.do_center_crop:
            height, width = self.crop_size["height"], self.crop_size["width"]
            left, top = self._crop_start(image.width - width), self._crop_start(image.height - height)
            image = image.crop((left, top, left + width, top + height))
        pixels = np.asarray(image)
        return pixels.reshape(*pixels.shape[:2], -1)

    def _pixels(self, image: Image.Image) -> np.ndarray:
        """An RGB image -> normalised pixels (C, H, W) float32, by a table of the 256 values of each channel."""
        pixels = self.resized(image)
        values = np.arange(256, dtype=np.float64)
        if self.do_rescale:
            values = values * self.rescale_factor
        table = np.tile(values.astype(np.float32)[:, None], pixels.shape[2])  # (256, C)
        if self.do_normalize:
            table = (table - np.asarray(self.image_mean, np.float32)) / np.asarray(self.image_std, np.float32)
        return np.stack([table[:, channel][pixels[:, :, channel]] for channel in range(pixels.shape[2])])

    def _crop_start(self, margin: int) -> int:
        """The first pixel of a central crop; `margin` is image side minus crop side, negative for a larger crop."""
        if self.crop_rounding == "transformers":
            return margin // 2
        return round(margin / 2) if margin > 0 else -(-margin // 2)  # Python rounds a half to the even number

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
    """Height and width in pixels of the largest image with at most `max_num_patches` patches and the same aspect ratio.

    Each side is rounded up to whole patches. The scale is searched by bisection to 1e-5, as in SigLIP 2: a finer search
    would give other sizes than those it was trained with.
    """
    low, high = 1e-6, 100.0

    def grid(scale: float) -> list[int]:
        return [max(1, math.ceil(side * scale / patch_size)) for side in image_hw]

    while high - low >= 1e-5:
        middle = (low + high) / 2
        low, high = (middle, high) if math.prod(grid(middle)) <= max_num_patches else (low, middle)
    rows, columns = grid(low)
    return rows * patch_size, columns * patch_size
