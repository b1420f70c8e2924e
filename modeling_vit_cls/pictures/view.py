"""What a model computes for one image, arranged by patches: attention, rollout, features. No drawing.

Shapes as in nn/vit.py: h and w are rows and columns of patches, T tokens, D the hidden size. Tokens before the patches
([CLS], distillation token, registers) are in no map.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config_rules import READOUTS_OF_CLS
from ..errors import ConfigError

_FLAT = 1e-5  # a range that is smaller, relative to the largest number, is rounding


@dataclass(frozen=True)
class View:
    """One image as a model sees it.

    Attributes:
        image: the image after resizing and cropping, (H, W, C) of 0..1.
        attentions: probabilities of each block, (heads, T, T): from which token (last axis) each token reads.
        features: the patches after the last block and the final LayerNorm, (h, w, D).
        query: weights (T,) of the tokens whose attention is shown: [CLS] alone where the readout has it (several
            equally), else all patches equally.
    """

    image: np.ndarray
    attentions: tuple[np.ndarray, ...]
    features: np.ndarray
    query: np.ndarray

    def attention(self, block: int) -> np.ndarray:
        """The attention of one block (from 0; -1 is the last) to each patch: (heads, h, w)."""
        return self._by_patch(np.einsum("q,hqk->hk", self.query, self.attentions[block]))

    def rollout(self) -> np.ndarray:
        """The attention rollout to each patch: (h, w)."""
        return self._by_patch(attention_rollout(self.attentions, self.query))

    def _by_patch(self, weights: np.ndarray) -> np.ndarray:
        """Weights of tokens (..., T) -> weights of patches (..., h, w)."""
        rows, columns = self.features.shape[:2]
        return weights[..., -rows * columns :].reshape(*weights.shape[:-1], rows, columns)


def view(model: Any, image: Any) -> View:
    """Run a backbone or a classifier on one image (path, PIL image, or array of uint8).

    All attention maps are kept in memory: L x heads x T x T numbers.

    Raises BadImageError for an image that cannot be read.
    """
    c, processor = model.config, model.image_processor
    pixels = np.asarray(processor([image])["pixel_values"])
    options: dict[str, Any] = {"output_attentions": True, "output_hidden_states": False, "return_dict": True}
    size = {"interpolate_pos_encoding": model.interpolates(processor)}
    outputs = model(pixels, **options, **size)
    norm = c.norm_position == "before_readout"
    (features,) = model.forward_intermediates(pixels, 1, norm=norm, **size)
    attentions = tuple(np.asarray(attention[0], np.float32) for attention in outputs.attentions)
    query = np.zeros(attentions[0].shape[-1], np.float32)
    if c.readout in READOUTS_OF_CLS:
        query[: c.num_cls_tokens] = 1 / c.num_cls_tokens
    else:
        query[c.num_prefix_tokens :] = 1 / (len(query) - c.num_prefix_tokens)
    return View(as_seen(pixels, processor)[0], attentions, np.asarray(features[0], np.float32), query)


def as_seen(pixels: np.ndarray, processor: Any) -> np.ndarray:
    """pixel_values (B, C, H, W) -> images (B, H, W, C) of 0..1, without the processor's normalisation."""
    images = pixels.transpose(0, 2, 3, 1)
    if processor.do_normalize:
        images = images * np.asarray(processor.image_std) + np.asarray(processor.image_mean)
    factor = processor.rescale_factor if processor.do_rescale else 1
    return np.clip(images / (255 * factor), 0, 1)


def attention_rollout(attentions: Sequence[np.ndarray], query: np.ndarray) -> np.ndarray:
    """Attention rollout: maps (heads, T, T) of all blocks and weights (T,) of tokens -> weights (T,) of input tokens.

    Each block counts as the mean over heads and the identity in equal parts, for the residual connection, and the
    blocks are multiplied. Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers".
    """
    for attention in reversed(attentions):
        query = (query @ attention.mean(axis=0) + query) / 2
    return query


def patch_colours(features: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Features of the patches of one or more images (h, w, D) -> colours (h, w, 3) of 0..1.

    Red, green and blue are the first three principal components over all images, each scaled to its range. So equal
    colours mean similar features in all of them. A component without a range is 0.5.
    """
    rows = np.concatenate([patches.reshape(-1, patches.shape[-1]) for patches in features]).astype(np.float64)
    centred = rows - rows.mean(axis=0)
    directions = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :3]
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, np.arange(directions.shape[1])])  # a sign is arbitrary
    components = np.zeros((len(rows), 3))
    components[:, : directions.shape[1]] = centred @ directions
    for component in components.T:
        component[:] = scaled(component, np.abs(rows).max(), flat=0.5)
    ends = np.cumsum([patches.shape[0] * patches.shape[1] for patches in features])[:-1]
    return [part.reshape(*patches.shape[:2], 3) for part, patches in zip(np.split(components, ends), features)]


def patch_similarity(features: np.ndarray, patch: tuple[int, int]) -> np.ndarray:
    """Cosine similarity of each patch to one of them, (row, column) from 0: features (h, w, D) -> (h, w).

    Raises ConfigError for a patch outside of the image.
    """
    rows, columns = features.shape[:2]
    if not (0 <= patch[0] < rows and 0 <= patch[1] < columns):
        raise ConfigError("patch", tuple(patch), f"must be a row from 0 to {rows - 1} and a column to {columns - 1}")
    features = np.asarray(features, np.float32)  # squares are beyond the range of float16
    norms = np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), np.finfo(np.float32).tiny)
    unit = features / norms
    return unit @ unit[tuple(patch)]


def scaled(numbers: np.ndarray, size: float, flat: float = 0.0) -> np.ndarray:
    """Numbers scaled to 0..1; all `flat` if their range is rounding, compared with numbers of this `size`."""
    low, span = numbers.min(), float(np.ptp(numbers))
    return np.full_like(numbers, flat) if span <= _FLAT * size else (numbers - low) / span
