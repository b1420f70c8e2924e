"""From a linen module to a module of flax NNX, by flax's own bridge."""

from typing import Any

import flax.linen as nn
import jax
from flax import nnx
from flax.core import unfreeze
from flax.nnx import bridge


def bridged(module: nn.Module, params: Any) -> bridge.ToNNX:
    """An NNX module that runs a linen module. Each parameter is an `nnx.Param` at its path in `params`."""
    result = bridge.ToNNX(module)
    for name, branch in unfreeze(params).items():
        setattr(result, name, jax.tree.map(nnx.Param, branch))  # the bridge registers a nested dict of Params as state
    return result
