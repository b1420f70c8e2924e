"""What is measured: the work, and what its peers are given for it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

SIZES = {"Ti": (192, 3), "S": (384, 6), "B": (768, 12), "L": (1024, 16)}  # width, heads
Step = Callable[[int], None]  # as many steps as it is told to, one after the other; returns when the device is done


def repeated(step: Callable[[], Any], wait: Callable[[Any], Any]) -> Step:
    """Steps that are started without waiting for each other, and waited for at the end."""

    def run(times: int) -> None:
        for _ in range(times - 1):
            step()
        wait(step())

    return run


class Work(NamedTuple):
    """What is done: "inference" or "training" of a ViT by its size, in a compute type, on a batch of 224 x 224.

    `device` is "cpu" or "cuda", as JAX and PyTorch both call them.
    """

    kind: str
    size: str
    dtype: str
    batch: int
    layers: int = 12
    device: str = "cpu"

    @property
    def sizes(self) -> dict[str, int]:
        """The fields of a config, under transformers' names."""
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
        """Sizes of the product that shows the machine's limit: an MLP's first layer at B/16."""
        return max(self.batch, 8) * 197, 768, 3072

    @property
    def product_flops(self) -> int:
        """Operations of that product."""
        rows, inner, columns = self.product
        return 2 * rows * inner * columns
