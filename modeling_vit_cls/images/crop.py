"""The random crop of training: a part of the decoded image, before it is resized."""

import math

import numpy as np


def random_crop(draws: np.ndarray, size: tuple[int, int], min_area: float) -> tuple[float, float, float, float]:
    """A random part of an image: 4 numbers in [0, 1), (width, height) in pixels -> (left, top, right, bottom).

    Its share of the area is uniform from `min_area` to 1, and the logarithm of its aspect ratio from 3/4 to 4/3
    (Szegedy et al. 2015, section 6, with 0.08). A part that is too long for the image gets the nearest ratio that fits.
    """
    width, height = size
    area = min_area + (1 - min_area) * draws[0]
    low, high = area * width / height, width / height / area  # ratios of a part that is as high, or as wide, as all
    low, high = max(low, min(3 / 4, high)), min(high, max(4 / 3, low))
    ratio = low ** (1 - draws[1]) * high ** draws[1]
    part_width = min(math.sqrt(area * width * height * ratio), width)
    part_height = min(math.sqrt(area * width * height / ratio), height)
    left, top = draws[2] * (width - part_width), draws[3] * (height - part_height)
    return left, top, left + part_width, top + part_height
