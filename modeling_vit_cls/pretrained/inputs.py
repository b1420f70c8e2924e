"""Checks of arguments: the shape for initialisation, a batch of pixels, the blocks of `forward_intermediates`."""

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..configuration_vit_cls import ViTClsConfig
from ..errors import BadImageError, ConfigError, shorten


def check_input_shape(shape: Any, config: ViTClsConfig) -> None:
    """Raise ConfigError unless `shape` is (B, H, W, C) with the config's channels and at least one patch."""
    is_shape = isinstance(shape, tuple | list) and len(shape) == 4 and all(isinstance(side, int) for side in shape)
    if not is_shape or shape[3] != config.num_channels or min(shape[1:3]) < config.patch_size:
        rule = f"must be (batch, height, width, channels), such as {(1, *config.image_hw, config.num_channels)}"
        raise ConfigError("input_shape", shape, rule)


def check_pixels(pixel_values: Any, config: ViTClsConfig, any_size: bool = False) -> None:
    """Raise BadImageError unless `pixel_values` are floats (B, C, H, W) that fit the config.

    `any_size` accepts every size that can be divided into patches.
    """
    height, width = config.image_hw
    expected = f"pixel_values of shape (batch, {config.num_channels}, {height}, {width}), floating-point"
    shape, dtype = getattr(pixel_values, "shape", None), getattr(pixel_values, "dtype", None)
    if not isinstance(shape, tuple) or not isinstance(dtype, np.dtype):  # PyTorch has dtypes of its own
        remedy = _to_array(pixel_values)
        raise BadImageError(f"expected {expected}; got {type(pixel_values).__name__} {shorten(pixel_values)}{remedy}")
    got = f"expected {expected}; got shape {tuple(shape)}, {dtype}"
    patch, channels = config.patch_size, config.num_channels
    if len(shape) != 4:
        raise BadImageError(f"{got}: a batch has 4 axes" + (", add one in front" if len(shape) == 3 else ""))
    if 0 in shape:
        raise BadImageError(f"{got}: the batch is empty")
    if shape[1] != channels:
        nhwc = shape[3] == channels
        hint = "this looks like (batch, height, width, channels): transpose it by (0, 3, 1, 2)" if nhwc else ""
        raise BadImageError(f"{got}: {hint or 'axis 1 holds the channels'}")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise BadImageError(f"{got}: use ViTClsImageProcessor, which scales and normalises 0..255 to floats")
    if any_size or config.dynamic_image_size:
        if min(shape[2:]) < patch:
            raise BadImageError(f"{got}: height and width must be at least patch_size={patch}")
        if not config.ignore_border and (shape[2] % patch or shape[3] % patch):
            raise BadImageError(f"{got}: height and width must be multiples of patch_size={patch}")
    elif tuple(shape[2:]) != (height, width):
        raise BadImageError(f"{got}: resize the images, or pass interpolate_pos_encoding=True")


def _to_array(value: Any) -> str:
    """What to do with something that is no array: "; np.stack them", or nothing."""
    if isinstance(value, list | tuple):
        return "; np.stack them"
    if isinstance(value, Mapping):
        return "; pass what is in it by name, model(**features)"
    return "; pass it as an array of NumPy, x.numpy()" if hasattr(value, "numpy") else ""


def chosen_blocks(indices: Any, depth: int) -> tuple[int, ...]:
    """Numbers of blocks from 0: all for None, the last n for an integer n, those of a sequence in its order.

    In a sequence, -1 is the last block. Raises ConfigError, with the allowed values, for anything else.
    """
    if indices is None:
        return tuple(range(depth))
    try:
        blocks = [*indices] if isinstance(indices, Iterable) else range(-operator.index(indices), 0)
        # bool is an int in Python: True would be one block, and a mask of booleans blocks 0 and 1
        are_valid = not isinstance(indices, bool) and all(
            not isinstance(block, bool) and -depth <= operator.index(block) < depth for block in blocks
        )
    except TypeError:
        blocks, are_valid = [], False
    if not blocks or not are_valid:
        allowed = f"a number of last blocks from 1 to {depth}, or a sequence of blocks from {-depth} to {depth - 1}"
        raise ConfigError("indices", indices, f"must be {allowed}, or None for all")
    return tuple(operator.index(block) % depth for block in blocks)
