"""Normalisation and augmentation of a batch on the device, inside the jitted step: scaling, flips, mixing."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .processor import ViTClsImageProcessor


class Augmentation(NamedTuple):
    """Random changes of a batch of training images. The defaults change nothing.

    `mixup_alpha` and `cutmix_alpha` are the parameters of the Beta distributions in mixup (Zhang et al. 2018) and
    CutMix (Yun et al. 2019). With both, each batch uses one of the two, chosen at random.
    """

    horizontal_flip: bool = False
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0


def normalise(pixels: jax.Array, processor: ViTClsImageProcessor) -> jax.Array:
    """Rescale and normalise as the processor does after resizing: (B, H, W, C) uint8 -> (B, H, W, C) float32."""
    images = pixels.astype(jnp.float32)
    if processor.do_rescale:
        images = images * processor.rescale_factor
    if processor.do_normalize:
        mean, std = np.asarray([processor.image_mean, processor.image_std], np.float32)[:, None, None, None]
        images = (images - mean) / std
    return images


def augment(
    key: jax.Array, images: jax.Array, targets: jax.Array, valid: jax.Array, how: Augmentation
) -> tuple[jax.Array, jax.Array]:
    """Flip and mix images (B, H, W, C) float32 and their targets (B, K), the probabilities of the classes.

    An image is mixed with another one of the batch only where both are `valid` (B,).
    """
    flip_key, mix_key = jax.random.split(key)
    if how.horizontal_flip:
        flips = jax.random.bernoulli(flip_key, jnp.float32(0.5), (len(images), 1, 1, 1))
        images = jnp.where(flips, images[:, :, ::-1], images)
    if how.mixup_alpha or how.cutmix_alpha:
        share = _shares(mix_key, (images.shape[1], images.shape[2]), how)[None]
        share = jnp.where((valid & valid[::-1])[:, None, None, None], share, 1.0)  # (B, H, W, 1)
        images = share * images + (1 - share) * images[::-1]
        weight = share.mean((1, 2))  # (B, 1)
        targets = weight * targets + (1 - weight) * targets[::-1]
    return images, targets


def _shares(key: jax.Array, hw: tuple[int, int], how: Augmentation) -> jax.Array:
    """The share of each pixel that an image keeps, (H, W, 1): one number for mixup, 0 in a box for CutMix.

    All numbers are float32 by name, so that JAX draws the same ones in its 64-bit mode.
    """
    choice_key, mixup_key, cutmix_key, place_key = jax.random.split(key, 4)
    mixup = jnp.full((*hw, 1), _beta(mixup_key, how.mixup_alpha))
    kept = _beta(cutmix_key, how.cutmix_alpha)
    half = jnp.sqrt(1 - kept) / 2 * jnp.asarray(hw, jnp.float32)
    centre = jax.random.uniform(place_key, (2,), jnp.float32) * jnp.asarray(hw, jnp.float32)
    rows, columns = (jnp.arange(side, dtype=jnp.float32) + 0.5 for side in hw)
    box = (abs(rows - centre[0]) < half[0])[:, None] & (abs(columns - centre[1]) < half[1])[None]
    probability = jnp.float32(0.5 if how.mixup_alpha else 1.0) if how.cutmix_alpha else jnp.float32(0)
    use_cutmix = jax.random.bernoulli(choice_key, probability)
    return jnp.where(use_cutmix, 1.0 - box[:, :, None], mixup)


def _beta(key: jax.Array, alpha: float) -> jax.Array:
    """A number from Beta(alpha, alpha), float32; from Beta(1, 1) for 0, which is not used then."""
    return jax.random.beta(key, alpha or 1.0, alpha or 1.0, dtype=jnp.float32)
