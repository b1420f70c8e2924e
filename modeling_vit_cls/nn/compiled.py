"""Compiled functions of a module: one for each config, shared by all models that have it.

Models of equal configs, copies, unpickled models and `with_readout` there and back compile nothing new. A function
holds a module and no parameters, so that a model can be freed; the least recently used functions go first.
"""

import dataclasses
from collections.abc import Callable
from functools import cache, lru_cache, wraps
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from ..config_rules import FIELD_NAMES
from .layers import layer_norm

_MOST_MODULES = 64  # whose functions are kept


@dataclasses.dataclass(frozen=True)
class _Key:
    """A module as a dictionary's key: equal where type, config and way to run are."""

    module: nn.Module = dataclasses.field(compare=False)
    facts: tuple[Any, ...]


def _by_config(compile_function: Callable[[Any], Callable]) -> Callable[[Any], Callable]:
    """Cache what makes a compiled function of a module."""
    cached = lru_cache(_MOST_MODULES)(lambda key: compile_function(key.module))

    @wraps(compile_function)
    def of(module: Any) -> Callable:
        fields = vars(module.config)  # not by getattr, which transformers makes ten times slower
        run = tuple(getattr(module, name) for name in _fields_of_running(type(module)))
        architecture = repr([fields[name] for name in FIELD_NAMES])
        return cached(_Key(module, (type(module), len(fields["id2label"]), run, architecture)))

    return of


@cache
def _fields_of_running(module_class: type[Any]) -> list[str]:
    fields = {field.name for field in dataclasses.fields(module_class)}
    return sorted(fields - {"config", "parent", "name"})


@_by_config
def forward(module: nn.Module) -> Callable[..., Any]:
    """Parameters, pixels (B, C, H, W) and the key of dropout, or None -> the module's outputs."""

    def forward_pass(
        params: Any,
        pixels: jax.Array,
        key: jax.Array | None,
        *,
        readout_only: bool,
        attentions: bool,
        hidden_states: bool,
    ) -> Any:
        rngs = None if key is None else {"dropout": key}
        outputs: Any = module.apply({"params": params}, _nhwc(pixels), key is None, readout_only, attentions, rngs=rngs)
        unwanted = {"attentions": attentions, "hidden_states": hidden_states}
        return outputs.replace(**{name: None for name, wanted in unwanted.items() if not wanted})

    return jax.jit(forward_pass, static_argnames=("readout_only", "attentions", "hidden_states"))


@_by_config
def intermediates(module: Any) -> Callable[..., tuple]:
    """Parameters, pixels (B, C, H, W) -> for each block the patches (B, N, D) or (B, h, w, D), or with the prefix.

    jax.jit drops whatever no result depends on: the blocks after the last one asked for, the readout and the heads.
    """
    c = module.config

    def intermediate_maps(
        params: Any, pixels: jax.Array, *, blocks: tuple[int, ...], reshape: bool, prefix: bool, norm: bool
    ) -> tuple:
        states = module.apply({"params": params}, _nhwc(pixels), attention_maps=False).hidden_states
        norm_params = params.get("vit_cls", params)["norm"]
        grid = (pixels.shape[2] // c.patch_size, pixels.shape[3] // c.patch_size)
        outputs = []
        for block in blocks:
            tokens: Any = states[block + 1]  # states[0] is the encoder's input
            if norm:
                tokens = layer_norm(c, module.dtype, "norm").apply({"params": norm_params}, tokens)
            before, patches = jnp.split(tokens, [c.num_prefix_tokens], axis=1)
            if reshape:
                patches = patches.reshape(len(patches), *grid, c.hidden_size)
            outputs.append((patches, before) if prefix else patches)
        return tuple(outputs)

    return jax.jit(intermediate_maps, static_argnames=("blocks", "reshape", "prefix", "norm"))


@_by_config
def draw(module: nn.Module) -> Callable[..., dict[str, Any]]:
    """A key -> initial values of the parameters of these dotted `names`; nothing else is drawn, no layer is run."""

    def initial_values(key: jax.Array, *, image_shape: tuple[int, ...], names: frozenset[str]) -> dict[str, Any]:
        variables = module.lazy_init(key, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
        return {name: leaf for name, leaf in flatten_dict(variables["params"], sep=".").items() if name in names}

    return jax.jit(initial_values, static_argnames=("image_shape", "names"))


def _nhwc(pixels: jax.Array) -> jax.Array:
    """The only change of layout: modules know (B, H, W, C) alone."""
    return pixels.transpose(0, 2, 3, 1)
