"""Is there NaN or infinity in an array? Found in one pass, at the speed of the memory."""

from typing import Any

import numpy as np

_BLOCK = 1 << 15  # numbers: small enough for a processor's nearest cache


def is_finite(array: Any) -> bool:
    """Whether all numbers of a floating-point array are finite."""
    array = np.asarray(array)
    flat = array.reshape(-1, order="A") if array.flags.forc else array.ravel(order="K")
    if array.dtype.itemsize == 2:
        return _is_finite_half(flat)
    with np.errstate(all="ignore"):
        total = np.add.reduce(flat)  # NaN and infinity stay in a sum; large numbers may make one
    return bool(np.isfinite(total) or np.isfinite(flat).all())


def _is_finite_half(flat: np.ndarray) -> bool:
    """The same of float16 or bfloat16 (N,), whose sums are slow: all ones in the exponent are NaN or infinity."""
    mask = np.uint16(0x7C00 if flat.dtype == np.float16 else 0x7F80)
    bits = flat.view(np.uint16)
    buffer = np.empty(min(_BLOCK, bits.size), np.uint16)
    for start in range(0, bits.size, _BLOCK):
        block = bits[start : start + _BLOCK]
        if np.bitwise_and(block, mask, out=buffer[: block.size]).max() == mask:
            return False
    return True
