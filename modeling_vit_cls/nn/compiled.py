"""Compiled functions of linen modules: one for each config, shared by all models with an equal config.

Copies, unpickled models and a return to an earlier readout by `with_readout` therefore compile nothing new. A cached
function refers to a module and to no parameters, so that the memory of a model can be freed. The least recently used
functions are dropped first.
"""

import copy
import dataclasses
from collections.abc import Callable
from functools import cache, lru_cache, wraps
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax.core import Tracer
from jax.sharding import Mesh

from ..config_rules import FIELD_NAMES
from ..configuration_vit_cls import ViTClsConfig
from .forks import refuse_in_fork
from .fused_attention import program_options
from .linear import layer_norm
from .mesh import across, batch_sharding, by_batch, mesh_of
from .vit import Readout

_MAX_MODULES = 16  # modules whose functions are cached; a compiled function takes megabytes


@dataclasses.dataclass(frozen=True)
class _Key:
    """A module as a key of the cache; keys with equal `facts` (type, config, options) are equal."""

    module: nn.Module = dataclasses.field(compare=False)
    facts: tuple[Any, ...]


def _by_config(compile_function: Callable[[Any], Callable]) -> Callable[[Any], Callable]:
    """Decorate a function (module -> compiled function): modules of equal type, config and options share a result.

    The result raises ConfigError in a forked process in which it would wait forever.
    """
    cached = lru_cache(_MAX_MODULES)(lambda key: compile_function(key.module))

    @wraps(compile_function)
    def lookup(module: Any) -> Callable:
        refuse_in_fork()
        fields = vars(module.config)  # ten times faster than getattr on a config of transformers
        options = tuple(getattr(module, name) for name in _option_names(type(module)))
        is_ours = type(module.config) is ViTClsConfig  # a subclass may have more fields
        architecture = repr([fields[name] for name in FIELD_NAMES] if is_ours else fields)
        return cached(_Key(module, (type(module), len(fields["id2label"]), options, architecture)))

    return lookup


@cache
def _option_names(module_class: type[Any]) -> list[str]:
    """The fields of a module besides its config: dtype, scan and so on."""
    fields = {field.name for field in dataclasses.fields(module_class)}
    return sorted(fields - {"config", "parent", "name"})


@_by_config
def forward(module: nn.Module) -> Callable[..., Any]:
    """Forward pass: parameters, pixels (B, C, H, W), random key or None -> the module's outputs.

    With `train`, dropout and stochastic depth are applied; only these need a key. On a mesh, that of the parameters,
    the batch is divided.
    """

    def forward_pass(
        params: Any,
        pixels: jax.Array,
        key: jax.Array | None,
        *,
        train: bool,
        readout_only: bool,
        attentions: bool,
        hidden_states: bool,
        mesh: Mesh | None,
    ) -> Any:
        rngs = None if key is None else {"dropout": key}
        with across(mesh):
            images = by_batch(_nhwc(pixels))
            outputs: Any = module.apply({"params": params}, images, not train, readout_only, attentions, rngs=rngs)
        unwanted = {"attentions": attentions, "hidden_states": hidden_states}
        return outputs.replace(**{name: None for name, wanted in unwanted.items() if not wanted})

    compiled = _jit(forward_pass, module, ("train", "readout_only", "attentions", "hidden_states", "mesh"))
    return _on_mesh_of_params(compiled)


@_by_config
def intermediates(module: Any) -> Callable[..., tuple]:
    """Outputs of some blocks: parameters, pixels (B, C, H, W) -> the patches (B, N, D) after each of `blocks`.

    With `reshape` the patches are (B, h, w, D). With `prefix` each item is a pair of the patches and the tokens before
    them. With `norm` the final LayerNorm is applied. jax.jit removes later blocks, the readout and the heads, because
    no result depends on them.
    """
    c = module.config

    def intermediate_maps(
        params: Any,
        pixels: jax.Array,
        *,
        blocks: tuple[int, ...],
        reshape: bool,
        prefix: bool,
        norm: bool,
        mesh: Mesh | None,
    ) -> tuple:
        with across(mesh):
            images = by_batch(_nhwc(pixels))
            states = module.apply({"params": params}, images, attention_maps=False).hidden_states
        grid = (pixels.shape[2] // c.patch_size, pixels.shape[3] // c.patch_size)
        outputs = []
        for block in blocks:
            tokens: Any = states[block + 1]  # states[0] is the encoder's input
            if norm:
                norm_params = {"params": params.get("vit_cls", params)["norm"]}
                tokens = layer_norm(c, module.dtype, "norm").apply(norm_params, tokens)
            before, patches = jnp.split(tokens, [c.num_prefix_tokens], axis=1)
            if reshape:
                patches = patches.reshape(len(patches), *grid, c.hidden_size)
            outputs.append((patches, before) if prefix else patches)
        return tuple(outputs)

    compiled = _jit(intermediate_maps, module, ("blocks", "reshape", "prefix", "norm", "mesh"))
    return _on_mesh_of_params(compiled)


@_by_config
def readouts(module: Any) -> Callable[..., dict[str, jax.Array]]:
    """Several readouts of the same tokens: parameters, last_hidden_state (B, T, D) -> {readout: (B, F)} for `names`.

    The parameters are a backbone's. Each vector is the `pooler_output` of the backbone with that readout and without a
    `representation_size`.
    """
    c = module.config

    def vectors(params: Any, tokens: jax.Array, *, names: tuple[str, ...]) -> dict[str, Any]:
        results = {}
        for name in names:
            config = copy.deepcopy(c)
            config.readout = name
            pooling = {"params": params.get("readout", {})}
            results[name] = Readout(config, module.dtype).apply(pooling, tokens)
            if c.norm_position == "after_readout":
                norm = layer_norm(c, module.dtype, "norm")
                results[name] = norm.apply({"params": params["norm"]}, results[name])
        return results

    return jax.jit(vectors, static_argnames="names")


@_by_config
def draw(module: nn.Module) -> Callable[..., dict[str, Any]]:
    """Initialisation: random key -> initial values of the parameters in `names` (dotted); no others are drawn."""

    def initial_values(key: jax.Array, *, image_shape: tuple[int, ...], names: frozenset[str]) -> dict[str, Any]:
        variables = module.lazy_init(key, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
        return {name: leaf for name, leaf in flatten_dict(variables["params"], sep=".").items() if name in names}

    return jax.jit(initial_values, static_argnames=("image_shape", "names"))


def _jit(function: Callable[..., Any], module: Any, static_argnames: tuple[str, ...]) -> Callable[..., Any]:
    """`jax.jit` with the compiler's options for `module`, where the call is not traced as a part of another function.

    A program is compiled with the options of its outermost function, and JAX refuses others inside.
    """
    part, options = jax.jit(function, static_argnames=static_argnames), program_options(module)
    if options is None:
        return part
    whole = jax.jit(function, static_argnames=static_argnames, compiler_options=options)

    def call(*arguments: Any, **static: Any) -> Any:
        leaves = jax.tree.leaves((arguments, jnp.zeros(())))  # in a traced function also a new array is traced
        is_part = any(isinstance(leaf, Tracer) for leaf in leaves)
        return (part if is_part else whole)(*arguments, **static)

    return call


def _on_mesh_of_params(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """The same function (parameters, pixels (B, C, H, W), ...) without the argument `mesh`: that of the parameters."""

    def call(params: Any, pixels: jax.Array, *arguments: Any, **options: Any) -> Any:
        mesh = mesh_of(params, pixels)
        if mesh is not None:
            pixels = jax.device_put(pixels, batch_sharding(mesh, len(pixels)))
        return compiled(params, pixels, *arguments, mesh=mesh, **options)

    return call


def _nhwc(pixels: jax.Array) -> jax.Array:
    """Pixels (B, C, H, W), as transformers has them -> images (B, H, W, C), as the modules take them."""
    return pixels.transpose(0, 2, 3, 1)
