"""The keywords of one call of the image processor: fields that replace its own, and keywords of transformers."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigError, did_you_mean
from ..keyword_table import Refused, without

# They concern speed, or text. The layout of an array is read from its shape.
_IGNORED = ("input_data_format", "disable_grouping", "image_seq_length")
# Refused with a remedy, unless the first item accepts the value: one that changes nothing.
_REFUSED: Refused = {
    "data_format": (
        lambda value: value == "channels_first",
        "pixel_values are (B, C, H, W), as models take them: np.moveaxis(pixel_values, 1, -1) puts the channels last",
    ),
    "do_convert_rgb": (bool, "images are always converted: leave it out"),
    "device": (
        lambda value: str(value) == "cpu",
        "images are prepared on the CPU, and a model puts pixels on its devices: leave it out",
    ),
    "default_to_square": (lambda _: False, "give size as {'height', 'width'} or {'shortest_edge'}"),
    "do_pad": (lambda value: not value, "is not supported: prepare such pixel_values yourself"),
    "pad_size": (lambda _: False, "is not supported: prepare such pixel_values yourself"),
}


def fields_of_call(keywords: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The keywords of a call that are fields of the processor, of these `names`; None is not given, as in transformers.

    Raises ConfigError, with a remedy, for a keyword of transformers that has no equivalent here, and for an unknown
    one.
    """
    for name, value in keywords.items():
        if name not in (*names, *_IGNORED, *_REFUSED):
            hint = did_you_mean(name, [*names, "return_tensors"])
            raise ConfigError(name, value, f"is not a field of the image processor{hint}")
    given = {name: value for name, value in keywords.items() if value is not None}
    return without(given, _IGNORED, _REFUSED)
