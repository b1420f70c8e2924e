"""Programs that run without this package: ONNX with the weights in it, StableHLO with the weights as safetensors.

Both take `pixel_values` (B, C, H, W) float32 of one image size, that of the image processor, for any B. Their outputs
have the same names: `logits` (B, K) of a classifier; `last_hidden_state` (B, T, D) and `pooler_output` (B, F) of a
backbone, and `image_embeds` (B, projection_size) if the config has a projection.
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
from ..nn.linear import Linear
from ..nn.vit import FlaxViTClsForImageClassificationModule
from ..scores import function_of

# jax2onnx writes the same nodes for opsets 18 to 23, and fewer runtimes support later ones: onnxruntime 1.23 has no
# CUDA kernels for Shape and Transpose of opset 21 (its issue 26065), and 1.32 refuses Swish of opset 25.
_OPSET = 18
_PROTOBUF_LIMIT = 2**31 - 2**24  # bytes of weights in an ONNX file: protobuf's 2 GiB less 16 MiB for the graph


def write_manual(
    file: Path, kind: str, module: nn.Module, config: ViTClsConfig, image_hw: tuple[int, int], has_processor: bool
) -> None:
    """Write the text that explains how to call an exported program, with the shapes of its inputs and outputs."""
    height, width = image_hw
    tokens = config.num_prefix_tokens + (height // config.patch_size) * (width // config.patch_size)
    shapes = {
        "logits": f"(B, {config.num_classes}), a number for each class of `id2label` in `config.json`"
        f"{_SCORES[function_of(config)]}",
        "last_hidden_state": f"(B, {tokens}, {config.hidden_size})",
        "pooler_output": f"(B, {config.representation_size or config.readout_size})",
        "image_embeds": f"(B, {config.projection_size})",
    }
    outputs = "\n".join(f"- `{name}`: {shapes[name]}" for name in _outputs(module, config))
    pixels = f"(B, {config.num_channels}, {height}, {width})"
    prepared = _WITH_PROCESSOR if has_processor else _WITHOUT_PROCESSOR
    file.write_text(
        _MANUAL.format(program=PROGRAMS[kind], call=_CALLS[kind], pixels=pixels, prepared=prepared, outputs=outputs)
    )


_SCORES = {
    "softmax": "; softmax makes probabilities of them",
    "sigmoid": "; sigmoid makes a probability of each",
    "none": "",
}
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
    """Write a StableHLO program for CPU, CUDA and TPU: parameters by name, pixels (B, C, H, W) -> outputs by name.

    The parameters have the names and types of model.safetensors; matrix products use the module's `dtype`. To run it
    with only jax, numpy and safetensors:

        program = jax.export.deserialize(bytearray(pathlib.Path("model.stablehlo").read_bytes()))
        outputs = program.call(safetensors.numpy.load_file("model.safetensors"), pixel_values)

    The version of jax must not be older than the one that wrote the file. StableHLO guarantees that later versions read
    it for six months. Raises CheckpointError if flatbuffers is missing.
    """
    try:
        import flatbuffers  # noqa: F401  # needed by jax.export, but no dependency of jax
    except ImportError as error:
        remedy = needs("flatbuffers", "to write StableHLO", "stablehlo")
        raise CheckpointError(f"{file.name}: {remedy} ({error})") from error
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
    """Write an ONNX program: pixels (B, C, H, W) -> outputs by name, all in float32.

    One ONNX file holds at most 2 GiB. Larger weights are written to `{file}.data` next to it, where runtimes look for
    them. Do not trace functions in other threads meanwhile, because jax2onnx patches jax and flax. Raises
    CheckpointError if jax2onnx is missing.
    """
    try:
        import onnx_ir
        from jax2onnx import to_onnx
    except ImportError as error:
        remedy = needs("jax2onnx", "to write ONNX", "onnx")
        raise CheckpointError(f"{file.name}: {remedy} ({error})") from error

    names = _outputs(module, config)
    module = module.clone(dtype=jnp.float32, gradient_checkpointing=False)
    weights = unflatten_dict({name: np.asarray(leaf, np.float32) for name, leaf in _flat(params).items()}, sep=".")

    def forward(pixel_values: jax.Array) -> list[jax.Array]:
        with nn.intercept_methods(_as_one_node):
            outputs = _apply(module, weights, pixel_values)
        return [outputs[name] for name in names]

    # jax2onnx 0.17.1 fails on an inner jit of jax 0.12, such as that of jax.nn.silu (2026-11-23).
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
    """The module's outputs for pixels (B, C, H, W), without dropout."""
    module = module.clone(attn_implementation="xla")  # the fused kernel runs on one platform only
    readout_only = isinstance(module, FlaxViTClsForImageClassificationModule)  # a classifier returns its logits only
    return module.apply({"params": params}, pixel_values.transpose(0, 2, 3, 1), readout_only=readout_only)


def _outputs(module: nn.Module, config: ViTClsConfig) -> list[str]:
    """Names of the program's outputs, in order."""
    if isinstance(module, FlaxViTClsForImageClassificationModule):
        return ["logits"]
    embeds = [] if config.projection_size is None else ["image_embeds"]
    return ["last_hidden_state", "pooler_output", *embeds]


def _flat(params: Any) -> dict[str, Any]:
    """Parameters by their names in model.safetensors."""
    return flatten_dict(unfreeze(params), sep=".")


def _pixels(config: ViTClsConfig, image_hw: tuple[int, int] | None = None) -> jax.ShapeDtypeStruct:
    """Shape and type of a batch of any size; the image size is `image_hw`, by default that of the config."""
    (batch,) = jax.export.symbolic_shape("batch")
    return jax.ShapeDtypeStruct((batch, config.num_channels, *(image_hw or config.image_hw)), jnp.float32)


def _as_one_node(call: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: Any) -> Any:
    """Interceptor that makes each LayerNorm one LayerNormalization node, and each Linear one Gemm node.

    jax2onnx does so for nn.Dense, and for nn.LayerNorm with the fast variance; other modules become about thirty nodes.
    ONNX defines the variance of LayerNormalization in two passes, as this package does.
    """
    module = context.module
    if context.method_name != "__call__" or not isinstance(module, nn.LayerNorm | Linear):
        return call(*args, **kwargs)
    if isinstance(module, Linear):
        equivalent: nn.Module = nn.Dense(module.features, module.use_bias, parent=None)
    else:
        equivalent = module.clone(parent=None, use_fast_variance=True)
    return equivalent.apply({"params": module.variables["params"]}, *args, **kwargs)


def _simplify(model: Any) -> None:
    """Remove jax2onnx's computation of shapes from an onnx_ir model, over half of its nodes; outputs are unchanged.

    Only the batch size is variable, so each new shape is a constant with one -1. Expansions to the same shape are
    removed. The first axis of each output has the name of the input's, where jax2onnx names some of them anew.
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
    for output in model.graph.outputs:
        output.shape = onnx_ir.Shape([model.graph.inputs[0].shape[0], *output.shape.dims[1:]])
    common.RemoveUnusedNodesPass()(model)
    common.DeduplicateInitializersPass()(model)
