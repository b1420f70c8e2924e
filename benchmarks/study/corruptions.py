"""Changed images, the same for every model: shifts, noise, occlusion. Functions of grey images (N, H, W), uint8."""

from collections.abc import Callable

import numpy as np


def shift(images: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Move each image by this share of its side up, down, left or right; what it leaves is black."""
    height, width = images.shape[1:]
    pixels = int(height * share)
    moved = np.zeros_like(images)
    for number, (down, right) in enumerate(_WAYS[generator.integers(0, len(_WAYS), len(images))]):
        padded = np.pad(images[number], pixels)
        top, left = pixels * (1 - down), pixels * (1 - right)
        moved[number] = padded[top : top + height, left : left + width]
    return moved


def noise(images: np.ndarray, deviation: float, generator: np.random.Generator) -> np.ndarray:
    """Add normal noise of this standard deviation, as a share of the range from black to white."""
    noisy = images + 255 * deviation * generator.standard_normal(images.shape)
    return np.rint(noisy).clip(0, 255).astype(np.uint8)


def occlusion(images: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Blacken a square at a random place in each image, whose side is this share of the image's."""
    side = images.shape[1]
    size = int(side * share)
    covered = images.copy()
    for image, (top, left) in zip(covered, generator.integers(0, side - size + 1, (len(images), 2))):
        image[top : top + size, left : left + size] = 0
    return covered


_WAYS = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])
_STRENGTHS: dict[Callable[..., np.ndarray], tuple[float, float]] = {
    shift: (0.125, 0.25),
    noise: (0.1, 0.3),
    occlusion: (0.25, 0.5),
}


def corrupted(images: np.ndarray) -> dict[str, np.ndarray]:
    """The images unchanged, and changed by each kind and strength; equal images are changed equally."""
    changed = {
        f"{change.__name__} {strength:g}": change(images, strength, np.random.default_rng(0))
        for change, strengths in _STRENGTHS.items()
        for strength in strengths
    }
    return {"unchanged": images, **changed}
