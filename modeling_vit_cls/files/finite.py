"""Search an array for NaN and infinity in one pass, at the speed of the memory."""

from typing import Any

import numpy as np

_BLOCK = 1 << 15  # numbers at a time, which fit into the processor's first cache


def is_finite(array: Any) -> bool:
    """Whether all numbers of a floating-point array are finite."""
    array = np.asarray(array)
    flat = array.reshape(-1, order="A") if array.flags.forc else array.ravel(order="K")
    if array.dtype.itemsize == 2:
        return _is_finite_half(flat)
    with np.errstate(all="ignore"):
        total = np.add.reduce(
            flat
        )  # not finite if a number is not; large numbers may overflow too, hence the second test
    return bool(np.isfinite(total) or np.isfinite(flat).all())


def _is_finite_half(flat: np.ndarray) -> bool:
    """`is_finite` for float16 or bfloat16 (N,): NaN and infinity have all bits of the exponent set. Sums are slow."""
    mask = np.uint16(0x7C00 if flat.dtype == np.float16 else 0x7F80)
    bits = flat.view(np.uint16)
    buffer = np.empty(min(_BLOCK, bits.size), np.uint16)
    for start in range(0, bits.size, _BLOCK):
        block = bits[start : start + _BLOCK]
        if np.bitwise_and(block, mask, out=buffer[: block.size]).max() == mask:
            return False
    return True
