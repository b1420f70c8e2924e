"""Resampling of learned positions to another grid and of a patch embedding to another patch size.

Each method gives the same numbers as the libraries named in `_METHODS`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Grid = tuple[int, int]


class _Resize(NamedTuple):
    """How one axis is resized.

    `sharpness` is the parameter a of Keys' cubic kernel; None is linear interpolation. `alignment` names the points of
    the old and the new axis that coincide: the outer "edges", the centres of the outer samples ("corners"), or the
    edges with Meta's "offset". A `cropped` grid is the top left of a square of its longer side.
    """

    sharpness: float | None
    antialias: bool = False
    alignment: str = "edges"
    cropped: bool = False


_METHODS = {
    "bicubic": _Resize(-0.75),  # PyTorch without antialias: transformers
    "bicubic_antialias": _Resize(-0.5, antialias=True),  # PyTorch with antialias: timm, DINOv2 with registers
    "bicubic_align_corners": _Resize(-0.75, alignment="corners"),  # torchvision
    "bicubic_offset": _Resize(-0.75, alignment="offset"),  # Meta's DINO and DINOv2
    "bilinear": _Resize(None),
    "bilinear_antialias": _Resize(None, antialias=True),  # SigLIP 2
    "bilinear_align_corners": _Resize(None, alignment="corners"),  # big_vision, by scipy.ndimage.zoom
    "cpe": _Resize(None, cropped=True),  # C-RADIOv4, C-RADIOv3-L and -g: cropped position embedding
    "cpe_align_corners": _Resize(None, alignment="corners", cropped=True),  # C-RADIOv3-B and -H
}
_OFFSET = 0.1  # pixels that Meta adds to the new size when it computes the scale


def resize_matrix(old: int, new: int, method: str) -> np.ndarray:
    """The matrix (new, old) float64 that resizes an axis of `old` samples to `new`.

    Keys 1981, equation 4. Beyond its ends the axis is extended by its outer samples; with antialias by nothing.
    """
    resize = _METHODS[method]
    index = np.arange(new, dtype=np.float64)
    if resize.alignment == "corners":
        centres = index * (old - 1) / max(new - 1, 1)
    else:
        centres = (index + 0.5) * old / (new + (_OFFSET if resize.alignment == "offset" else 0)) - 0.5
    scale = max(old / new, 1.0) if resize.antialias else 1.0
    reach = int(np.ceil(2 * scale)) + 1
    taps = np.floor(centres)[:, None].astype(int) + np.arange(-reach, reach + 1)
    weights = _kernel((taps - centres[:, None]) / scale, resize.sharpness)
    if resize.antialias:  # PyTorch repeats the outer samples only without antialias
        weights = weights * ((taps >= 0) & (taps < old))
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new)[:, None], taps.clip(0, old - 1)), weights)
    return matrix / matrix.sum(axis=1, keepdims=True)


def _kernel(x: np.ndarray, sharpness: float | None) -> np.ndarray:
    """Weights of samples at distances x: Keys' cubic kernel, or the linear one for a sharpness of None."""
    x = abs(x)
    if sharpness is None:
        return np.maximum(1 - x, 0)
    a = sharpness
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def resample_positions(table: jax.Array, old: Grid, new: Grid, method: str) -> jax.Array:
    """Learned positions of patches on another grid: (old h w, D) -> (new h w, D), computed in float32."""
    if old == new:
        return table
    resized = (max(new),) * 2 if _METHODS[method].cropped else new
    matrices = (resize_matrix(*sides, method) for sides in zip(old, resized))
    rows, columns = (matrix[:side].astype(np.float32) for matrix, side in zip(matrices, new))
    image = jnp.asarray(table, jnp.float32).reshape(*old, -1)
    patches = jnp.einsum("ah,bw,hwd->abd", rows, columns, image, precision="highest")
    return patches.reshape(-1, table.shape[-1]).astype(table.dtype)


def resample_patch_kernel(kernel: Any, side: int, positions: str = "bicubic_antialias") -> np.ndarray:
    """PI-resize of a patch embedding's kernel: (P, P, C, D) -> (side, side, C, D), computed in float32.

    If w is the kernel and B x the resized patch x, the new kernel is pinv(B^T) w. An enlarged patch then has the same
    embedding as the original one; a reduced patch has the nearest one, on average over white noise. Beyer et al. 2023
    (FlexiViT), section 3.4. B is the resize of timm's `resample_patch_embed`: bilinear for models whose positions are
    resampled so (`positions`), as timm does for FlexiViT, else bicubic with antialias.
    """
    old = len(kernel)
    if old == side:
        return kernel
    method = "bilinear" if positions == "bilinear" else "bicubic_antialias"
    # B resizes both axes by one matrix, so its pseudo-inverse is that of this matrix, applied to both axes.
    inverse = np.linalg.pinv(resize_matrix(old, side, method).T).astype(np.float32)
    resampled = np.einsum("ph,qw,hwcd->pqcd", inverse, inverse, np.asarray(kernel, np.float32), optimize=True)
    return resampled.astype(kernel.dtype)
