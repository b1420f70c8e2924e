"""Strict loading: the tensors of a folder against the shapes that its own config asks for."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError
from ..modules import FlaxViTClsForImageClassificationModule, FlaxViTClsModule
from .adapt import canonical
from .weights import Tensor, read_weights

Shapes = dict[str, jax.ShapeDtypeStruct]


def parameter_shapes(module_class: type[nn.Module], config: ViTClsConfig) -> Shapes:
    """Parameters of a module by dotted path, each as shape and dtype; nothing is computed or allocated."""
    return dict(_parameter_shapes(module_class, config.to_json_string(use_diff=False)))


@cache
def _parameter_shapes(module_class: type[nn.Module], config_json: str) -> tuple[tuple[str, jax.ShapeDtypeStruct], ...]:
    config = ViTClsConfig.from_dict(json.loads(config_json))
    depth, config.num_hidden_layers = config.num_hidden_layers, 1  # blocks are alike: trace one, name it `depth` times
    images = jax.ShapeDtypeStruct((1, *config.image_hw, config.num_channels), jnp.float32)
    tree = jax.eval_shape(module_class(config).init, jax.random.PRNGKey(0), images)["params"]
    shapes: Shapes = {}
    for name, leaf in flatten_dict(tree, sep=".").items():
        names = [name.replace("layer_00", f"layer_{i:02d}") for i in range(depth)] if "layer_00" in name else [name]
        shapes.update(dict.fromkeys(names, leaf))
    return tuple(shapes.items())


def load_checked(folder: Path, config: ViTClsConfig, allow_missing: bool) -> tuple[dict[str, Any], list[str]]:
    """Tensors of a folder by canonical name, checked one by one against its own config, and the missing ones.

    Raises CheckpointError at a tensor that is missing (unless allowed), unexpected, of another shape, or not
    floating-point.
    """
    found = read_weights(folder)
    module = FlaxViTClsForImageClassificationModule if _has_head(config, found) else FlaxViTClsModule
    expected = parameter_shapes(module, config)
    for name, tensor in found.items():
        if name not in expected:
            raise CheckpointError(f"{tensor.file}: tensor {name!r} is not one that config.json asks for")
        if tensor.array.shape != expected[name].shape:
            raise CheckpointError(
                f"{tensor.file}: tensor {name!r} has shape {tensor.array.shape}, config.json asks for "
                f"{expected[name].shape}"
            )
        if tensor.array.dtype not in (jnp.float32, jnp.bfloat16, jnp.float16, jnp.float64):
            raise CheckpointError(
                f"{tensor.file}: tensor {name!r} is {tensor.array.dtype}, expected floating-point of 16 to 64 bits"
            )
    missing = sorted(set(expected) - set(found))
    if missing and not allow_missing:
        files = sorted({str(tensor.file) for tensor in found.values()}) or [str(folder)]
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(f"{files[0]}: tensor {missing[0]!r}{more} missing; the file is not of this config.json")
    return {canonical(name): tensor.array for name, tensor in found.items()}, [canonical(name) for name in missing]


def _has_head(config: ViTClsConfig, found: Mapping[str, Tensor]) -> bool:
    """Whether a folder was saved with a classifier, by its config; by its tensors where the config does not say."""
    classes = {"ViTClsForImageClassification": True, "ViTClsModel": False}
    named = [classes[name] for name in config.architectures or () if name in classes]
    return named[0] if named else any(name != canonical(name) for name in found)
