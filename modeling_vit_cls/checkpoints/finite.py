"""Is there NaN or infinity in an array? Found by its bits, a block at a time, at the speed of the memory."""

from typing import Any

import numpy as np

_EXPONENTS = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F800000, "float64": 0x7FF0000000000000}
_BLOCK = 1 << 16  # numbers: small enough for a processor's cache


def is_finite(array: Any) -> bool:
    """Whether all numbers of an array of float16, bfloat16, float32 or float64 are finite."""
    array = np.asarray(array)
    exponent = _EXPONENTS.get(array.dtype.name)
    if exponent is None:
        return bool(np.isfinite(array).all())
    flat = array.ravel(order="K") if not array.flags.forc else array.reshape(-1, order="A")
    bits = flat.view(f"u{array.dtype.itemsize}")
    mask = bits.dtype.type(exponent)  # all ones in the exponent are NaN or infinity, and nothing else is
    buffer = np.empty(min(_BLOCK, bits.size), bits.dtype)
    for start in range(0, bits.size, _BLOCK):
        block = bits[start : start + _BLOCK]
        masked = np.bitwise_and(block, mask, out=buffer[: block.size])
        if masked.max() == mask:
            return False
    return True
