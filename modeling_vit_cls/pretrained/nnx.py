"""A linen module as one of flax's NNX, by flax's own bridge."""

from typing import Any

import flax.linen as nn
import jax
from flax import nnx
from flax.core import unfreeze
from flax.nnx import bridge


def bridged(module: nn.Module, params: Any) -> bridge.ToNNX:
    """A linen module with these parameters in it: each is an `nnx.Param`, at the path that it has in `params`."""
    result = bridge.ToNNX(module)
    for name, branch in unfreeze(params).items():
        setattr(result, name, jax.tree.map(nnx.Param, branch))  # the bridge makes a dict of them data of the module
    return result
