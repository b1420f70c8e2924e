"""The seed's Vision Transformer in NumPy, written from its text: one image, loops where loops say it plainly."""

import math

import numpy as np

_erf = np.vectorize(math.erf)


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + _erf(x / math.sqrt(2))) / 2


def norm(x: np.ndarray, p: dict, eps: float = 1e-6) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps) * p["scale"] + p["bias"]


def linear(x: np.ndarray, p: dict) -> np.ndarray:
    return x @ p["kernel"] + p["bias"]


def patch_embed(image: np.ndarray, p: dict) -> np.ndarray:
    """(H, W, C) -> (N, D): the kernel laid on one patch after the other, rows first."""
    side = p["kernel"].shape[0]
    rows, columns = image.shape[0] // side, image.shape[1] // side
    patches = [image[r * side : (r + 1) * side, c * side : (c + 1) * side] for r in range(rows) for c in range(columns)]
    return np.stack([np.tensordot(patch, p["kernel"], axes=3) + p["bias"] for patch in patches])


def attention(x: np.ndarray, p: dict, heads: int) -> np.ndarray:
    width = x.shape[1] // heads
    mixed = []
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        query, key, value = (linear(x, p[name])[:, part] for name in ("query", "key", "value"))
        scores = np.exp(query @ key.T / math.sqrt(width))
        mixed.append(scores / scores.sum(axis=1, keepdims=True) @ value)
    return linear(np.concatenate(mixed, axis=1), p["out"])


def block(x: np.ndarray, p: dict, heads: int) -> np.ndarray:
    x = x + attention(norm(x, p["norm1"]), p["attention"], heads)
    return x + linear(gelu(linear(norm(x, p["norm2"]), p["mlp"]["fc1"])), p["mlp"]["fc2"])


def forward(image: np.ndarray, params: dict, heads: int, shapes: list | None = None) -> np.ndarray:
    """(H, W, C) -> (K,), in float64; the shape after each step of the seed's walk-through goes to `shapes`."""
    params = _as_float64(params)
    p, shapes = params["vit_cls"], [] if shapes is None else shapes
    x = patch_embed(image.astype(np.float64), p["embeddings"]["patch_embedding"]["projection"])
    shapes.append(x.shape)
    x = np.concatenate([p["embeddings"]["cls_token"], x], axis=0)
    shapes.append(x.shape)
    x = x + p["embeddings"]["position_embedding"]["embedding"]
    for name in sorted(p["encoder"]):
        x = block(x, p["encoder"][name], heads)
    x = norm(x, p["norm"])
    shapes.append(x[0].shape)
    return linear(x[0], params["classifier"])


def _as_float64(tree):
    if isinstance(tree, dict):
        return {name: _as_float64(leaf) for name, leaf in tree.items()}
    return np.asarray(tree, np.float64)
