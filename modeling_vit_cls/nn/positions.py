"""Positions: fixed sine-cosine, rotary, and relative ones as a bias of the attention scores."""

import jax
import jax.numpy as jnp
import numpy as np

from .resampling import Grid, resample_positions


def sincos2d_table(grid: Grid, width: int, temperature: float = 10_000.0) -> np.ndarray:
    """Fixed sine-cosine position embeddings: grid (h, w) -> (N, D), D = `width`.

    The quarters of D hold sin x, cos x, sin y, cos y of a patch's column x and row y, each at D / 4 frequencies.
    Beyer et al. 2022, "Better plain ViT baselines", section 2.
    """
    y, x = np.mgrid[: grid[0], : grid[1]].reshape(2, -1, 1).astype(np.float64)
    frequencies = temperature ** -(np.arange(width // 4) / (width // 4 - 1))
    waves = [wave(axis * frequencies) for axis in (x, y) for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=1).astype(np.float32)


def rope_table(grid: Grid, head_width: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of the rotary angles: grid (h, w) -> two arrays (N, d), d = `head_width`.

    Patch centres are scaled to [-1, 1] on each axis. Of d, the first quarter holds the angles of y, the second those of
    x, and the second half repeats the first. Simeoni et al. 2025 (DINOv3), section 3.
    """
    centres = [(np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1 for side in grid]
    frequencies = theta ** -np.arange(0, 1, 4 / head_width, dtype=np.float32)
    coordinates = np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1).reshape(-1, 2, 1)
    angles = np.tile((2 * np.pi * coordinates * frequencies).reshape(len(coordinates), -1), (1, 2))
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rotate(x: jax.Array, rope: tuple[np.ndarray, np.ndarray], prefix: int) -> jax.Array:
    """Rotate the patches of queries or keys by their positions: (B, heads, T, d) -> (B, heads, T, d), in float32.

    The first `prefix` tokens are left as they are. With fewer patches than rows in the table, they are the first ones.
    """
    before, patches = x[:, :, :prefix], x[:, :, prefix:].astype(jnp.float32)
    cos, sin = (table[None, None, : patches.shape[2]] for table in rope)
    first, second = jnp.split(patches, 2, axis=-1)
    rotated = patches * cos + jnp.concatenate([-second, first], axis=-1) * sin
    return jnp.concatenate([before, rotated.astype(x.dtype)], axis=2)


def relative_sides(grid: Grid) -> Grid:
    """The numbers of different offsets between two patches of a grid, on each axis: (h, w) -> (2h - 1, 2w - 1)."""
    return 2 * grid[0] - 1, 2 * grid[1] - 1


def relative_rows(grid: Grid) -> np.ndarray:
    """The row of a table of relative positions for each query and key: grid (h, w) -> (1 + N, 1 + N).

    The table has a row for each offset of a query from a key, (2h - 1)(2w - 1) of them, from top left to bottom right;
    then three rows: from [CLS] to a patch, from a patch to [CLS], from [CLS] to itself. Bao et al. 2022 (BEiT).
    """
    rows, columns = relative_sides(grid)
    y, x = np.mgrid[: grid[0], : grid[1]].reshape(2, -1)
    down, right = (axis[:, None] - axis + axis.max() for axis in (y, x))
    table_rows = np.pad(down * columns + right, ((1, 0), (1, 0)))
    table_rows[0, :], table_rows[:, 0], table_rows[0, 0] = rows * columns + np.arange(3)
    return table_rows.astype(np.int32)


def relative_bias(table: jax.Array, rows: jax.Array) -> jax.Array:
    """What is added to the scores of attention: table (R, heads), its row for each pair (T, T) -> (heads, T, T)."""
    return table[rows].transpose(2, 0, 1)


def resample_relative(table: jax.Array, old: Grid, new: Grid, method: str) -> jax.Array:
    """A table of relative positions for another grid, as an image of offsets; the rows of [CLS] are unchanged."""
    offsets = resample_positions(table[:-3], relative_sides(old), relative_sides(new), method)
    return jnp.concatenate([offsets, table[-3:]])
