"""Reading images: a path, bytes, PIL image or array -> an upright RGB image of 8 bits per channel, or BadImageError."""

import io
import os
import stat
from collections.abc import Mapping
from functools import cache
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ..errors import BadImageError, shorten

# The supported formats, by Pillow's names, with their file suffixes. Pillow has some forty more: one starts a program
# (EPS), others are rarely photographs and have decoders that few people test. An icon (ICO) may hold an image of
# another size than its header gives.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".mpo",),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpx", ".jpf"),
}
MAX_PIXELS = 100_000_000  # a larger image is a decompression bomb, or must be tiled first
MAX_SIDE = 65_536  # pixels; a PNG one pixel wide and millions high takes seconds to decode
MAX_BYTES = 640_000_000  # of memory until the image is RGB: a JPEG of 64 megapixels, a WEBP of 32
# Peak memory of a decoder in bytes per pixel, with the image, as measured. Other formats decode row by row.
_DECODERS = {"WEBP": 20, "AVIF": 13, "JPEG2000": 26, "TIFF": 12, "GIF": 9}
_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}  # bytes per pixel; other modes 4
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF
_BLOCK = 1 << 22  # pixels that are composited on white at a time


def load_image(image: Any, name: str | None = None) -> Image.Image:
    """A path, the bytes of a file, a PIL image or an array -> an upright RGB image of 8 bits per channel.

    Files are regular files of one of `FORMATS`. The memory that decoding needs is estimated before, and at most
    `MAX_BYTES`. Arrays are uint8 or uint16, (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels. Transparent pixels
    are composited on white, 16 bits are scaled to 8, 32-bit integers (Pillow's mode "I") must be 0 to 255, CMYK and
    palettes are converted, the EXIF orientation is applied, and an animation gives its first frame. `name` is the
    image's name in errors, by default its path or type. Raises BadImageError, with this name, for anything that cannot
    be read as an image.
    """
    is_path = isinstance(image, str | os.PathLike)
    if name is None:
        name = shorten(os.fspath(image), 500)[1:-1] if is_path else type(image).__name__
    try:
        if is_path:
            with _open_file(os.fspath(image)) as file:
                return _decoded(file)
        if isinstance(image, bytes | bytearray) or (isinstance(image, memoryview) and image.ndim == 1):
            return _decoded(io.BytesIO(image))
        if isinstance(image, Image.Image):
            return _upright_rgb(image, is_ours=False)
        return _upright_rgb(_from_array(image), is_ours=True)
    except BadImageError as error:
        raise BadImageError(f"{name}: {error}") from error
    except FileNotFoundError as error:
        raise BadImageError(f"{name}: there is no such file") from error
    except UnidentifiedImageError as error:
        raise BadImageError(f"{name}: cannot be read as an image; formats are {', '.join(_formats())}") from error
    except Exception as error:  # for damaged files Pillow raises nearly everything, also what it does not document
        reason = str(error) or type(error).__name__
        raise BadImageError(f"{name}: cannot be read as an image ({shorten(reason, 300)[1:-1]})") from error


def is_one_image(images: Any) -> bool:
    """Whether this is one image or a row of a dataset, and not several of them. What is no image counts as one."""
    if isinstance(images, str | bytes | bytearray | memoryview | os.PathLike | Image.Image | Mapping):
        return True
    if hasattr(images, "ndim"):  # an array (B, H, W, C), or a column of images such as a pandas Series
        return images.ndim not in (1, 4)
    return hasattr(images, "read") or not (hasattr(images, "__iter__") or hasattr(images, "__getitem__"))


@cache
def _formats() -> tuple[str, ...]:
    """The `FORMATS` that this Pillow supports; older versions have no AVIF."""
    Image.init()
    return tuple(kind for kind in FORMATS if kind in Image.OPEN)


def _open_file(path: str | bytes) -> BinaryIO:
    """A regular file, opened for reading. A pipe would wait for its writer, and a device may never end."""
    if str(path).startswith(("http://", "https://")):
        raise BadImageError("is a URL, expected a file: download it first")
    if "::" in str(path) and "://" in str(path):  # as datasets writes it
        raise BadImageError("is in an archive, expected a file: unpack it first")
    if str(path).startswith("data:image/"):
        remedy = "give the bytes, base64.b64decode of what follows the comma"
        raise BadImageError(f"holds the image itself, expected a path: {remedy}")
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    _refuse_special(os.stat(path))
    descriptor = os.open(path, flags)
    try:
        _refuse_special(os.fstat(descriptor))  # the path may have been replaced since the first check
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _refuse_special(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a socket or a device"
        raise BadImageError(f"is {kind}, expected a regular file")


def _decoded(file: BinaryIO) -> Image.Image:
    opened = Image.open(file, formats=_formats())
    opened.seek(0)
    return _upright_rgb(opened, is_ours=True)


def _from_array(image: Any) -> Image.Image:
    array = np.asarray(image) if hasattr(image, "ndim") else None  # NumPy would stack a list of images
    if array is None or array.dtype == object:
        raise BadImageError("expected a path, the bytes of a file (`file.read()`), a PIL image or an array")
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
    """Values 0 to 65535 -> 0 to 255, rounded."""
    return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _upright_rgb(image: Image.Image, is_ours: bool) -> Image.Image:
    """Check the memory that decoding needs, then decode, turn upright and convert. In place if the image is ours."""
    _check_size(image)
    is_32_bits = image.mode == "I" and image.format != "PPM"  # Pillow has no other mode for a PPM of 16 bits
    if is_ours:
        ImageOps.exif_transpose(image, in_place=True)
    else:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode == "I":  # Pillow's own conversion would clip to white
        array = np.asarray(image)
        if is_32_bits and (array.min() < 0 or array.max() > 255):
            given = f"has 32-bit integers from {array.min()} to {array.max()}, expected 0 to 255"
            raise BadImageError(f"{given}: make it uint8 or uint16, so that its range is known")
        grey = array.astype(np.uint8) if is_32_bits else _to_8_bits(array)
        grey[array == image.info.get("transparency")] = 255  # the grey that a PNG names as transparent
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "F":
        raise BadImageError("holds floating-point values of unknown range: scale them to 8 or 16 bits")
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _check_size(image: Image.Image) -> None:
    """Raise BadImageError for an image without pixels, with too many, or that needs too much memory to decode."""
    pixels = image.width * image.height
    if pixels == 0:
        raise BadImageError(f"is empty: {image.width} x {image.height} pixels")
    if pixels > MAX_PIXELS:
        raise BadImageError(f"has {image.width} x {image.height} pixels, over the limit of {MAX_PIXELS:,}")
    if max(image.size) > MAX_SIDE:
        raise BadImageError(f"has {image.width} x {image.height} pixels, over the limit of {MAX_SIDE:,} a side")
    if not isinstance(image, ImageFile.ImageFile) or (not image.tile and getattr(image, "_im", None) is not None):
        return  # it is decoded already
    if image.tile and image.fp is None:
        raise BadImageError("was closed before its pixels were read: use it inside `with`, or call its load() there")
    if image.format not in FORMATS:
        remedy = "if you trust it, call its load() before"
        raise BadImageError(f"is of the format {image.format}, which is not supported: {remedy}")
    stored = _STORED.get(image.mode, 4)
    decoder = _DECODERS.get(image.format, 5)
    if image.format in ("JPEG", "MPO"):
        decoder = 4 + 2 * len(image.getbands())  # a progressive JPEG keeps all coefficients in memory
    tags = getattr(image, "tag_v2", None) or {}
    tile = 8 * int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_LENGTH, 0))
    converted = 0 if image.mode == "RGB" else 4
    need = max(pixels * max(decoder, stored + converted), tile)
    if need > MAX_BYTES:
        size = f"{image.width} x {image.height} pixels as {image.format}"
        raise BadImageError(f"{size} would need {need:,} bytes to decode, over the limit of {MAX_BYTES:,}: shrink it")


def _on_white(image: Image.Image) -> Image.Image:
    """A transparent image composited on white, a few rows at a time to save memory."""
    rgb = Image.new("RGB", image.size, "white")
    transparent = image.info.get("transparency")
    rows = max(1, _BLOCK // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        block = image.crop(box)
        if isinstance(transparent, tuple) and max(transparent) > 255:  # of a PNG of 16 bits; Pillow keeps the upper 8
            block.info["transparency"] = tuple(value >> 8 for value in transparent)
        block = (block.convert("LA") if block.mode == "La" else block).convert("RGBA")  # Pillow has no way from La
        rgb.paste(Image.alpha_composite(Image.new("RGBA", block.size, "white"), block).convert("RGB"), box)
    return rgb
