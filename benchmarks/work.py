"""The work that is measured: model, batch and inputs, the same for all peers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

SIZES = {"Ti": (192, 3), "S": (384, 6), "B": (768, 12), "L": (1024, 16)}  # width, heads
Step = Callable[[int], None]  # runs this number of steps, and returns when the device is done


def repeated(step: Callable[[], Any], wait: Callable[[Any], Any]) -> Step:
    """A Step that starts each step without waiting for the previous one, and waits at the end."""

    def run(times: int) -> None:
        for _ in range(times - 1):
            step()
        wait(step())

    return run


class Work(NamedTuple):
    """A measurement: `kind` is "inference" or "training", of a ViT of one size, on a batch of 224 x 224 images.

    `device` is "cpu" or "cuda", names that JAX and PyTorch share.
    """

    kind: str
    size: str
    dtype: str
    batch: int
    layers: int = 12
    device: str = "cpu"

    @property
    def sizes(self) -> dict[str, int]:
        """The fields of a config, by transformers' names."""
        width, heads = SIZES[self.size]
        sizes = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": 4 * width}
        return sizes | {"num_hidden_layers": self.layers, "image_size": 224, "patch_size": 16}

    @property
    def pixels(self) -> np.ndarray:
        """Images (B, C, H, W), normalised."""
        return np.random.default_rng(0).normal(size=(self.batch, 3, 224, 224)).astype(np.float32)

    @property
    def labels(self) -> np.ndarray:
        """Classes (B,)."""
        return np.arange(self.batch) % 1000

    @property
    def product(self) -> tuple[int, int, int]:
        """Sizes of the matrix product that shows the machine's limit: the first layer of the MLP at B/16."""
        return max(self.batch, 8) * 197, 768, 3072

    @property
    def product_flops(self) -> int:
        """Floating-point operations of this product."""
        rows, inner, columns = self.product
        return 2 * rows * inner * columns
