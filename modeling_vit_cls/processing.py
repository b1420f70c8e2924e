"""The image processor: images of any kind -> pixel_values (B, C, H, W) float32."""

import os
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from transformers import BaseImageProcessor, BatchFeature

from .configuration_vit_cls import ViTClsConfig
from .errors import BadImageError, ConfigError, shorten

MAX_PIXELS = 100_000_000  # more is a decompression bomb, or a picture to be tiled by its owner
BROKEN_IMAGE = (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError)


def load_image(image: Any) -> Image.Image:
    """A path, PIL image or array to an upright RGB image of 8 bits a channel.

    Arrays are uint8 or uint16, (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels. Transparency is laid on white,
    16 bits are scaled to 8, CMYK and palettes are converted, the EXIF orientation is applied, and of an animation the
    first frame is taken. Raises BadImageError, naming the file, for whatever is not an image.
    """
    name = shorten(os.fspath(image), 500)[1:-1] if isinstance(image, str | os.PathLike) else type(image).__name__
    try:
        if isinstance(image, str | os.PathLike):
            if str(image).startswith(("http://", "https://")):
                raise BadImageError("is an address; images are read from files: download it first")
            with Image.open(image) as opened:
                opened.seek(0)
                return _upright_rgb(opened)
        return _upright_rgb(image if isinstance(image, Image.Image) else _from_array(np.asarray(image)))
    except BadImageError as error:
        raise BadImageError(f"{name}: {error}") from error
    except FileNotFoundError as error:
        raise BadImageError(f"{name}: there is no such file") from error
    except BROKEN_IMAGE as error:
        raise BadImageError(f"{name}: cannot be read as an image ({error})") from error


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype not in (np.uint8, np.uint16):
        remedy = "scale it to 0..255 and cast it to uint8, so that its range is known"
        raise BadImageError(f"expected an array of uint8 or uint16, got {array.dtype} {array.shape}: {remedy}")
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise BadImageError(f"expected (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, got {array.shape}")
    if array.dtype == np.uint16:
        array = _to_8_bits(array)
    return Image.fromarray(array)


def _to_8_bits(array: np.ndarray) -> np.ndarray:
    """0..65535 to 0..255, rounded."""
    return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _upright_rgb(image: Image.Image) -> Image.Image:
    if 0 in image.size:
        raise BadImageError(f"is empty: {image.width} x {image.height} pixels")
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(f"has {image.width} x {image.height} pixels, over the limit of {MAX_PIXELS:,}")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode == "I":  # Pillow's own conversion would clip to white
        array = np.asarray(image)
        if array.min() < 0 or array.max() > 65535:
            raise BadImageError(f"has values from {array.min()} to {array.max()}, expected 16 bits: 0 to 65535")
        image = Image.fromarray(_to_8_bits(array))
    elif image.mode == "F":
        raise BadImageError("holds floating-point values of unknown range: scale it to 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


_SIZES = ({"height", "width"}, {"shortest_edge"}, {"min_height", "min_width"})
_FLAGS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
# What other processors do to pixels and this one does not: a file that asks for it is refused.
_NOT_DONE = ("crop_pct", "do_pad", "do_flip_channel_order", "rescale_offset", "do_thumbnail", "do_align_long_axis")


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
        resample: PIL's number of the interpolation (2 bilinear, 3 bicubic).
        crop_size: {"height", "width"} of the central crop, taken when `do_center_crop`; black where it is larger.
        crop_rounding: whose rule says where a crop begins whose margin is odd: "transformers" or "torchvision", which
            is timm's too and is one pixel off for some.
        image_mean, image_std: one number a channel, on the scale after rescaling. One number makes the output grey.
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
        """Whether this processor's pixels have the channels and the size that a config's model takes."""
        return self.output_hw in (config.image_hw, None) and len(self.image_mean) == config.num_channels

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "ViTClsImageProcessor":
        """The processor of a `preprocessor_config.json` of any of transformers' classes.

        What acts on no pixels is left. Raises ConfigError for fields that cannot be, or that ask for what is not done.
        """
        for name in _NOT_DONE:
            if fields.get(name):
                raise ConfigError(
                    name, fields[name], "is not done by ViTClsImageProcessor: prepare such pixels yourself"
                )
        known = {name: fields[name] for name in signature(cls.__init__).parameters if name in fields}
        return cls(**{name: value for name, value in known.items() if value is not None})

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
        if self.do_resize:
            width, height = self._target(image)
            if width * height > MAX_PIXELS:
                raise BadImageError(f"{image.width} x {image.height} pixels would become {width} x {height}")
            image = image.resize((width, height), self.resample)
        if self.do_center_crop:
            height, width = self.crop_size["height"], self.crop_size["width"]
            left, top = self._crop_start(image.width - width), self._crop_start(image.height - height)
            image = image.crop((left, top, left + width, top + height))
        pixels = np.asarray(image.convert("L") if len(self.image_mean) == 1 else image)
        return pixels.reshape(*pixels.shape[:2], -1)

    def _pixels(self, image: Image.Image) -> np.ndarray:
        """An RGB image to normalised pixels (C, H, W) float32."""
        pixels = self.resized(image)
        if self.do_rescale:
            pixels = (pixels.astype(np.float64) * self.rescale_factor).astype(np.float32)
        if self.do_normalize:
            pixels = (pixels - np.asarray(self.image_mean, np.float32)) / np.asarray(self.image_std, np.float32)
        return np.ascontiguousarray(pixels.astype(np.float32).transpose(2, 0, 1))

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
        short, long = sorted((image.width, image.height))
        edge = self.size["shortest_edge"]
        other = int(edge * long / short)
        return (edge, other) if image.width <= image.height else (other, edge)
