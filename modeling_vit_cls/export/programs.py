"""A model as a program that runs without this package: ONNX with the weights inside, StableHLO beside the safetensors.

Both take `pixel_values` (B, C, H, W) float32 of one size, that of the image processor, B free, and give the same names:
a classifier `logits` (B, K), a backbone `last_hidden_state` (B, T, D), `pooler_output` (B, F) and, where the config has
a projection, `image_embeds` (B, E).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import unfreeze
from flax.traverse_util import flatten_dict, unflatten_dict

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError
from ..install import needs
from ..names import PROGRAMS
from ..nn.layers import Linear
from ..nn.vit import FlaxViTClsForImageClassificationModule

# jax2onnx writes the same nodes for 18 to 23, so a later number would only shut runtimes out: onnxruntime 1.23 has no
# CUDA kernels for the Shape and Transpose of 21 (its issue 26065), and 1.32 refuses the Swish of 25.
_OPSET = 18
_PROTOBUF_LIMIT = 2**31 - 2**24  # bytes of weights in one ONNX file: protobuf ends at 2 GiB, the graph takes some


def write_manual(
    file: Path, kind: str, module: nn.Module, config: ViTClsConfig, image_hw: tuple[int, int], has_processor: bool
) -> None:
    """How the program beside this file is called, what goes in and what comes out, at the size it was traced at."""
    height, width = image_hw
    tokens = config.num_prefix_tokens + (height // config.patch_size) * (width // config.patch_size)
    shapes = {
        "logits": f"(B, {config.num_classes}), a number for each class of `id2label` in `config.json`; softmax makes "
        "probabilities of them",
        "last_hidden_state": f"(B, {tokens}, {config.hidden_size})",
        "pooler_output": f"(B, {config.readout_size})",
        "image_embeds": f"(B, {config.projection_size})",
    }
    outputs = "\n".join(f"- `{name}`: {shapes[name]}" for name in _outputs(module, config))
    pixels = f"(B, {config.num_channels}, {height}, {width})"
    prepared = _WITH_PROCESSOR if has_processor else _WITHOUT_PROCESSOR
    file.write_text(
        _MANUAL.format(program=PROGRAMS[kind], call=_CALLS[kind], pixels=pixels, prepared=prepared, outputs=outputs)
    )


_MANUAL = """# How to call `{program}`

```python
{call}
```

In: `pixel_values`, {pixels} float32, any number B of images, {prepared}. Out, by name:

{outputs}
"""
_WITH_PROCESSOR = """resized and normalised as `preprocessor_config.json` says
(`AutoImageProcessor.from_pretrained(folder)` after `import modeling_vit_cls`, or your own code)"""
_WITHOUT_PROCESSOR = "prepared by your own code as the model was trained"
_CALLS = {
    "onnx": """import numpy, onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
names = [output.name for output in session.get_outputs()]
outputs = dict(zip(names, session.run(None, {"pixel_values": pixel_values})))""",
    "stablehlo": """import jax, pathlib, safetensors.numpy

# The weights are in a file of their own. They are the first argument: calling it with the pixels alone fails.
weights = safetensors.numpy.load_file("model.safetensors")
program = jax.export.deserialize(bytearray(pathlib.Path("model.stablehlo").read_bytes()))
outputs = program.call(weights, pixel_values)""",
}


def write_stablehlo(
    file: Path, module: nn.Module, params: Any, config: ViTClsConfig, image_hw: tuple[int, int] | None = None
) -> None:
    """`{parameter: array}`, pixels (B, C, H, W) -> `{output: array}`, written for CPU, CUDA and TPU by jax.export.

    Parameters keep their names and types in model.safetensors, products the module's `dtype`. To serve it, in a process
    that has jax, numpy and safetensors alone:

        program = jax.export.deserialize(bytearray(pathlib.Path("model.stablehlo").read_bytes()))
        outputs = program.call(safetensors.numpy.load_file("model.safetensors"), pixel_values)

    The jax that serves it must be no older than the one that wrote it; StableHLO promises to read it for six months.
    Raises CheckpointError where flatbuffers is missing.
    """
    try:
        import flatbuffers  # noqa: F401  # jax.export needs it, and does not depend on it
    except ImportError as error:
        needed = needs("flatbuffers", "to write StableHLO", "stablehlo")
        raise CheckpointError(f"{file.name}: {needed} ({error})") from error
    names = _outputs(module, config)

    def forward(tensors: dict[str, jax.Array], pixel_values: jax.Array) -> dict[str, jax.Array]:
        outputs = _apply(module, unflatten_dict(tensors, sep="."), pixel_values)
        return {name: outputs[name] for name in names}

    tensors = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in _flat(params).items()}
    export = jax.export.export(jax.jit(forward), platforms=("cpu", "cuda", "tpu"))
    file.write_bytes(export(tensors, _pixels(config, image_hw)).serialize())


def write_onnx(
    file: Path, module: nn.Module, params: Any, config: ViTClsConfig, image_hw: tuple[int, int] | None = None
) -> None:
    """Pixels (B, C, H, W) -> the outputs by name, in float32 whatever type the model stores or computes in.

    Weights over 2 GiB, which one ONNX file cannot hold, go to `{file}.data` beside it, where runtimes look for them.
    Trace nothing in another thread meanwhile: jax2onnx patches jax and flax while it works. Raises CheckpointError
    where it is missing.
    """
    try:
        import onnx_ir
        from jax2onnx import to_onnx
    except ImportError as error:
        needed = needs("jax2onnx", "to write ONNX", "onnx")
        raise CheckpointError(f"{file.name}: {needed} ({error})") from error

    names = _outputs(module, config)
    module = module.clone(dtype=jnp.float32, gradient_checkpointing=False)
    weights = unflatten_dict({name: np.asarray(leaf, np.float32) for name, leaf in _flat(params).items()}, sep=".")

    def forward(pixel_values: jax.Array) -> list[jax.Array]:
        with nn.intercept_methods(_as_one_node):
            outputs = _apply(module, weights, pixel_values)
        return [outputs[name] for name in names]

    # jax2onnx 0.17.1 fails on an inner jit of jax 0.12, such as jax.nn.silu: let there be none (2026-11-23).
    with jax.disable_jit():
        model: Any = to_onnx(
            forward,
            [_pixels(config, image_hw)],
            model_name="vit_cls",
            opset=_OPSET,
            return_mode="ir",
            input_names=["pixel_values"],
            output_names=names,
            normalization_mode="prefer_native",
        )
    _simplify(model)
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    onnx_ir.save(model, file, external_data=f"{file.name}.data" if size > _PROTOBUF_LIMIT else None)


def _apply(module: nn.Module, params: Any, pixel_values: jax.Array) -> Any:
    """The module's outputs, deterministic: pixels (B, C, H, W), as image processors emit them."""
    module = module.clone(attn_implementation="xla")  # a fused kernel is of one platform
    readout_only = isinstance(module, FlaxViTClsForImageClassificationModule)  # its logits are all that it gives
    return module.apply({"params": params}, pixel_values.transpose(0, 2, 3, 1), readout_only=readout_only)


def _outputs(module: nn.Module, config: ViTClsConfig) -> list[str]:
    """Names of what the program gives, in order."""
    if isinstance(module, FlaxViTClsForImageClassificationModule):
        return ["logits"]
    embeds = [] if config.projection_size is None else ["image_embeds"]
    return ["last_hidden_state", "pooler_output", *embeds]


def _flat(params: Any) -> dict[str, Any]:
    """Parameters by the names that they have in model.safetensors."""
    return flatten_dict(unfreeze(params), sep=".")


def _pixels(config: ViTClsConfig, image_hw: tuple[int, int] | None = None) -> jax.ShapeDtypeStruct:
    """Shape and type of a batch whose size is free, of images of the config's size if no other is given."""
    (batch,) = jax.export.symbolic_shape("batch")
    return jax.ShapeDtypeStruct((batch, config.num_channels, *(image_hw or config.image_hw)), jnp.float32)


def _as_one_node(call: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: Any) -> Any:
    """A LayerNorm as ONNX's LayerNormalization, whose variance is defined in two passes as ours is; a Linear as Gemm.

    jax2onnx keeps these nodes for flax's own modules, for a norm if it asks for the fast variance, and gives others
    some thirty.
    """
    module = context.module
    if context.method_name != "__call__" or not isinstance(module, nn.LayerNorm | Linear):
        return call(*args, **kwargs)
    if isinstance(module, Linear):
        known: nn.Module = nn.Dense(module.features, module.use_bias, parent=None)
    else:
        known = module.clone(parent=None, use_fast_variance=True)
    return known.apply({"params": module.variables["params"]}, *args, **kwargs)


def _simplify(model: Any) -> None:
    """Rid an onnx_ir model of jax2onnx's arithmetic on shapes, over half of its nodes; what is computed stays.

    With the batch alone free, every new shape is a constant with one -1, and an expansion to the same shape is nothing.
    """
    import onnx_ir
    from onnx_ir.passes import common

    for node in model.graph:
        source, output = node.inputs[0], node.outputs[0]
        if node.op_type in ("Dropout", "Identity") or (node.op_type == "Expand" and source.shape == output.shape):
            output.replace_all_uses_with(source)
        elif node.op_type == "Reshape":
            sizes = [size if isinstance(size, int) else -1 for size in output.shape]
            if sizes.count(-1) <= 1:
                name = f"{output.name}_sizes"
                shape = onnx_ir.Value(name=name, const_value=onnx_ir.tensor(np.array(sizes), name=name))
                model.graph.register_initializer(shape)
                node.replace_input_with(1, shape)
                if source.producer() is not None and source.producer().op_type == "Reshape":
                    node.replace_input_with(0, source.producer().inputs[0])
    common.RemoveUnusedNodesPass()(model)
    common.DeduplicateInitializersPass()(model)
