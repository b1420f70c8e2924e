"""A peer of two libraries: transformers' ViT in PyTorch, run on JAX by torchax."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import torch
from transformers import ViTConfig, ViTForImageClassification

from .work import Step, Work, repeated


@contextmanager
def placeholders() -> Iterator[None]:
    """Placeholders for 21 overloads of operators, without which torchax 0.0.13 cannot be imported.

    They were for tensors with named dimensions, such as `aten.prod.dim_Dimname`, which PyTorch 2.13 no longer has.
    """
    operator: Any = torch._ops.OpOverloadPacket
    overload = operator.__getattr__

    def overload_or_placeholder(self: Any, name: str) -> Any:
        try:
            return overload(self, name)
        except AttributeError:
            if "name" not in name.lower():
                raise
            return object()

    operator.__getattr__ = overload_or_placeholder
    try:
        yield
    finally:
        operator.__getattr__ = overload


with placeholders():
    import torchax
    import torchax.decompositions


def hf_torchax(work: Work) -> Step:
    """ViTForImageClassification of transformers in PyTorch, as a compiled function of JAX; inference only."""
    model = ViTForImageClassification(ViTConfig(**work.sizes, num_labels=1000))
    states, call = on_jax(model.to(getattr(torch, work.dtype)))
    pixels = jax.numpy.asarray(work.pixels, work.dtype)
    return repeated(lambda: call(states, pixels), jax.block_until_ready)


def on_jax(model: Any) -> tuple[Any, Any]:
    """A classifier in PyTorch -> its parameters in JAX, and a compiled call (parameters, pixels) -> logits."""
    states, function = torchax.extract_jax(model.eval())
    return states, jax.jit(lambda states, pixels: function(states, (pixels,)).logits)
