"""Learned positions on another grid, and a patch embedding for patches of another size, as their libraries do it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Grid = tuple[int, int]


class _Resize(NamedTuple):
    """How one axis is resized: `sharpness` is a of Keys' cubic kernel (None: linear), `alignment` which points meet."""

    sharpness: float | None
    antialias: bool = False
    alignment: str = "edges"


_METHODS = {
    "bicubic": _Resize(-0.75),  # torch's without antialias: transformers
    "bicubic_antialias": _Resize(-0.5, antialias=True),  # torch's with it: timm, DINOv2 with registers
    "bicubic_align_corners": _Resize(-0.75, alignment="corners"),  # torchvision
    "bicubic_offset": _Resize(-0.75, alignment="offset"),  # Meta's DINO and DINOv2
    "bilinear": _Resize(None),
    "bilinear_antialias": _Resize(None, antialias=True),  # SigLIP 2
    "bilinear_align_corners": _Resize(None, alignment="corners"),  # big_vision, by scipy.ndimage.zoom
}
_OFFSET = 0.1  # pixels that Meta adds to the new size when it computes the scale


def resize_matrix(old: int, new: int, method: str) -> np.ndarray:
    """The linear map that resizes an axis: (new, old) float64. Keys 1981, equation 4; outside, edges are repeated."""
    resize = _METHODS[method]
    place = np.arange(new, dtype=np.float64)
    if resize.alignment == "corners":
        centres = place * (old - 1) / max(new - 1, 1)
    else:
        centres = (place + 0.5) * old / (new + (_OFFSET if resize.alignment == "offset" else 0)) - 0.5
    widen = max(old / new, 1.0) if resize.antialias else 1.0
    reach = int(np.ceil(2 * widen)) + 1
    taps = np.floor(centres)[:, None].astype(int) + np.arange(-reach, reach + 1)
    weights = _kernel((taps - centres[:, None]) / widen, resize.sharpness)
    if resize.antialias:  # torch leaves out what lies outside, instead of repeating the edge
        weights = weights * ((taps >= 0) & (taps < old))
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new)[:, None], taps.clip(0, old - 1)), weights)
    return matrix / matrix.sum(axis=1, keepdims=True)


def _kernel(x: np.ndarray, sharpness: float | None) -> np.ndarray:
    """Weight of a sample at distance x: Keys' cubic convolution, or the linear tent."""
    x = abs(x)
    if sharpness is None:
        return np.maximum(1 - x, 0)
    a = sharpness
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def resample_positions(table: jax.Array, old: Grid, new: Grid, method: str) -> jax.Array:
    """Patch rows of a learned table to another grid: (old N, D) -> (new N, D), computed in float32."""
    if old == new:
        return table
    rows, columns = (resize_matrix(*sides, method).astype(np.float32) for sides in zip(old, new))
    image = jnp.asarray(table, jnp.float32).reshape(*old, -1)
    resized = jnp.einsum("ah,bw,hwd->abd", rows, columns, image, precision="highest")
    return resized.reshape(-1, table.shape[-1]).astype(table.dtype)


def resample_patch_kernel(kernel: Any, side: int) -> np.ndarray:
    """PI-resize of a patch embedding: (P, P, C, D) -> (side, side, C, D), computed in float32.

    Where B x is the resized patch, the new kernel is pinv(B^T) w: to enlarged patches it gives exactly the embeddings
    that w gave to the original ones, to reduced patches the nearest ones in the mean over white noise. Beyer et al.
    2023 (FlexiViT), section 3.4; B is the bicubic resize with antialias, as in timm's `resample_patch_embed`.
    """
    old = len(kernel)
    if old == side:
        return kernel
    # B resizes rows, then columns, so that its pseudo-inverse is that of one axis applied to both
    inverse = np.linalg.pinv(resize_matrix(old, side, "bicubic_antialias").T).astype(np.float32)
    resampled = np.einsum("ph,qw,hwcd->pqcd", inverse, inverse, np.asarray(kernel, np.float32), optimize=True)
    return resampled.astype(kernel.dtype)
