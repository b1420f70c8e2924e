"""The structure of a msgpack file of Flax, without the numbers of its arrays."""

import io
from typing import BinaryIO

_MAX_NAME = 10_000  # bytes; a longer text is no name of a parameter
_BEGINNING = 512  # bytes of an array in which its shape and type are

# By the first byte of a value: how many bytes its length takes, or how many bytes a number has. From the specification
# of msgpack; values below 0xC0 and above 0xDF have their length in the first byte.
_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_LENGTHS |= {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
_NUMBERS = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_NUMBERS |= {0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}  # extensions of a fixed size, with their type


def skim_msgpack(file: BinaryIO) -> None:
    """Read maps, names, and the beginning of each array, which Flax writes as an extension.

    Raises ValueError or IndexError for a damaged file.
    """
    values = 1  # still to read
    while values:
        values -= 1
        code = file.read(1)[0]
        length = int.from_bytes(file.read(_LENGTHS[code]), "big") if code in _LENGTHS else code & 0x0F
        if 0x80 <= code <= 0x8F or code in (0xDE, 0xDF):  # a map
            values += 2 * length
        elif 0x90 <= code <= 0x9F or code in (0xDC, 0xDD):  # a list
            values += length
        elif 0xA0 <= code <= 0xBF or code in (0xD9, 0xDA, 0xDB):  # a text
            length = length if code in _LENGTHS else code & 0x1F
            if length > _MAX_NAME:
                raise ValueError(f"a name of {length} bytes")
            file.read(length)
        elif code in (0xC7, 0xC8, 0xC9):  # an extension: its type and its content
            start = file.tell()
            file.read(min(_BEGINNING, 1 + length))
            file.seek(start + 1 + length)
        elif code in (0xC4, 0xC5, 0xC6):  # bytes
            file.seek(length, io.SEEK_CUR)
        else:
            file.read(_NUMBERS.get(code, 0))
