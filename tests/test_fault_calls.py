"""Wrong calls: for every shape, layout and type that is not right, an error of what was expected and what came."""

from itertools import product

import numpy as np
from matrix import Tally

from modeling_vit_cls import BadImageError

DTYPES = [np.uint8, np.int8, np.int32, np.int64, np.bool_, np.complex64, np.float32]
SHAPES = [(), (8,), (8, 8), (3, 8, 8), (8, 8, 3), (1, 2, 3, 8, 8)]
SHAPES += [
    (0, 3, 8, 8),
    (2, 0, 8, 8),
    (2, 3, 0, 8),
    (2, 3, 8, 0),
    (2, 8, 8, 3),
    (2, 1, 8, 8),
    (2, 4, 8, 8),
    (2, 6, 8, 8),
]
SIZES = [(7, 7), (9, 9), (4, 16), (16, 4), (16, 16), (4, 4), (8, 12), (1, 1), (8, 9), (11, 8), (224, 224)]
SHAPES += [(2, 3, *size) for size in SIZES]
RIGHT = (2, 3, 8, 8)
OTHERS = [None, "image.png", b"bytes", 7, 1.5, [], [[1.0]], {}, object(), {"pixel_values": np.zeros(RIGHT, np.float32)}]
OTHERS += [np.zeros(RIGHT, object), np.zeros(RIGHT, "U3"), np.zeros(RIGHT, "datetime64[s]"), [np.zeros((3, 8, 8))]]


def refuse(tally: Tally, model, value, **options) -> None:
    error = tally.attempt(lambda: model(value, **options))
    assert isinstance(error, BadImageError), value
    for word in ("expected pixel_values", "got"):
        assert word in str(error)
    shape = getattr(value, "shape", None)
    assert shape is None or str(tuple(shape)) in str(error)
    tally.note("refused")


def test_each_shape_and_type_that_is_not_right_is_refused(model, tally):
    for shape, dtype in product([*SHAPES, RIGHT], DTYPES):
        if (shape, dtype) != (RIGHT, np.float32):
            refuse(tally, model, np.ones(shape, dtype))
    for value in OTHERS:
        refuse(tally, model, value)


def test_sizes_that_are_no_whole_patches_are_refused_when_positions_are_interpolated(model, tally):
    for height, width in product(range(14), range(14)):
        if height % 4 or width % 4 or not height * width:
            refuse(tally, model, np.ones((1, 3, height, width), np.float32), interpolate_pos_encoding=True)


def test_right_calls_are_not(model):
    for batch, dtype in product((1, 2, 5), (np.float32, np.float16, np.float64)):
        assert np.isfinite(model(np.ones((batch, 3, 8, 8), dtype)).logits).all()
    for size in ((4, 4), (8, 16), (12, 4)):
        assert np.isfinite(model(np.ones((1, 3, *size), np.float32), interpolate_pos_encoding=True).logits).all()
