"""One peer and one work in this process: `python -m benchmarks.peers PEER WORK`, driven by benchmarks/speed.py.

Says how long the first step took, compilation included; then, for each line on the standard input, runs steps for
SECONDS and prints the seconds of each, and bytes of the largest resident set so far.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SECONDS = 3.0
SIZES = {"Ti": (192, 3), "S": (384, 6), "B": (768, 12)}  # width, heads


class Work(NamedTuple):
    """What is done: "inference" or "training" of a ViT by its size, in a compute type, on a batch of 224 x 224."""

    kind: str
    size: str
    dtype: str
    batch: int
    layers: int = 12

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


Step = Callable[[], Any]


def random_like(shapes: Any, dtype: str = "float32") -> Any:
    """Parameters of given shapes, without the time that drawing them takes on a device."""
    import jax

    generator = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jax.numpy.asarray(generator.normal(0, 0.02, leaf.shape), dtype), shapes)


def ours(work: Work) -> Step:
    """This package: the call of the model, or the trainer's step on a batch of uint8 that is in memory."""
    import jax

    from modeling_vit_cls import FlaxViTClsForImageClassification, ViTClsConfig, ViTClsImageProcessor
    from modeling_vit_cls.data.batches import Batch
    from modeling_vit_cls.stacking import stack_params
    from modeling_vit_cls.training.arguments import TrainingArguments
    from modeling_vit_cls.training.optimizer import make_optimizer
    from modeling_vit_cls.training.step import initial_state, make_train_step

    config = ViTClsConfig(**work.sizes, num_labels=1000)
    model = FlaxViTClsForImageClassification(config, dtype=work.dtype, _do_init=False)
    if work.kind == "inference":
        params, pixels = random_like(model.params_shape_tree, work.dtype), jax.numpy.asarray(work.pixels)
        return lambda: jax.block_until_ready(model(pixels, params=params).logits)
    arguments = TrainingArguments("unused", max_grad_norm=0, weight_decay=0.05, lr_scheduler_type="constant")
    params = stack_params(random_like(model.params_shape_tree))
    optimizer = make_optimizer(arguments, params, 1000)
    step = make_train_step(model.module, optimizer, ViTClsImageProcessor.for_config(config), arguments)
    images = np.random.default_rng(0).integers(0, 256, (work.batch, 224, 224, 3), np.uint8)
    rows, valid = np.arange(work.batch, dtype=np.int32), np.ones(work.batch, bool)
    batch = Batch(images, work.labels.astype(np.int32), rows, valid)
    state = initial_state(params, optimizer, with_ema=False)

    def train() -> None:
        nonlocal state
        state, _ = step(state, batch)
        jax.block_until_ready(state)

    return train


def flax_vit(work: Work) -> Step:
    """FlaxViTForImageClassification of transformers 4.57, as its examples use it."""
    import jax
    import optax
    from transformers import FlaxViTForImageClassification, ViTConfig

    model = FlaxViTForImageClassification(ViTConfig(**work.sizes, num_labels=1000), dtype=work.dtype, _do_init=False)
    pixels, labels = jax.numpy.asarray(work.pixels), jax.numpy.asarray(work.labels)
    if work.kind == "inference":
        params = random_like(model.params_shape_tree, work.dtype)
        call = jax.jit(lambda params, pixels: model(pixels, params=params).logits)
        return lambda: jax.block_until_ready(call(params, pixels))
    params = random_like(model.params_shape_tree)
    optimizer = optax.adamw(5e-4, weight_decay=0.05)

    def loss_of(params: Any, pixels: jax.Array, labels: jax.Array) -> jax.Array:
        logits = model(pixels, params=params, dropout_rng=jax.random.key(0), train=True).logits.astype("float32")
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(params: Any, opt_state: Any, pixels: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
        updates, opt_state = optimizer.update(jax.grad(loss_of)(params, pixels, labels), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    compiled, state = jax.jit(step, donate_argnums=(0, 1)), (params, optimizer.init(params))

    def train() -> None:
        nonlocal state
        state = jax.block_until_ready(compiled(*state, pixels, labels))

    return train


def jimm(work: Work) -> Step:
    """jax-image-models' VisionTransformer; inference only."""
    import jax
    from flax import nnx

    jax.set_mesh(jax.make_mesh((1, 1), ("fsdp", "tp")))
    from jimm.models.vit import VisionTransformer

    sizes = {"hidden_size": work.sizes["hidden_size"], "num_heads": work.sizes["num_attention_heads"]}
    sizes |= {"mlp_dim": work.sizes["intermediate_size"], "num_layers": work.layers}
    model = VisionTransformer(**sizes, dtype=work.dtype, param_dtype=work.dtype)
    model.eval()
    pixels = jax.numpy.asarray(work.pixels.transpose(0, 2, 3, 1), work.dtype)
    call = nnx.jit(lambda model, pixels: model(pixels))
    return lambda: jax.block_until_ready(call(model, pixels))


def timm(work: Work, compiled: bool = False) -> Step:
    """VisionTransformer of timm; bfloat16 casts its weights for inference; training is under autocast."""
    import torch

    del sys.modules["torchvision"]  # see benchmarks/__init__.py
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "golden"))
    import cpu_torchvision  # noqa: F401
    from timm.models.vision_transformer import VisionTransformer

    width, heads = SIZES[work.size]
    return torch_step(VisionTransformer(embed_dim=width, num_heads=heads, depth=work.layers), work, compiled, torch)


def timm_compiled(work: Work) -> Step:
    """The same through torch.compile."""
    return timm(work, compiled=True)


def hf_torch(work: Work) -> Step:
    """ViTForImageClassification of transformers in PyTorch; inference only."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    model = ViTForImageClassification(ViTConfig(**work.sizes, num_labels=1000))
    return torch_step(model, work, False, torch)


def torch_step(model: Any, work: Work, compiled: bool, torch: Any) -> Step:
    """A step of a PyTorch model."""
    dtype, pixels, labels = getattr(torch, work.dtype), torch.from_numpy(work.pixels), torch.from_numpy(work.labels)
    if work.kind == "inference":
        model, pixels = model.eval().to(dtype), pixels.to(dtype)
        call = torch.compile(model) if compiled else model

        def infer() -> None:
            with torch.inference_mode():
                call(pixels)

        return infer
    optimizer = torch.optim.AdamW(model.train().parameters(), 5e-4, weight_decay=0.05, fused=True)
    call = torch.compile(model) if compiled else model

    def train() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=work.dtype == "bfloat16"):
            logits = call(pixels)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return train


def gemm_jax(work: Work) -> Step:
    """The machine's limit: the product of an MLP's first layer at B/16 and eight images, by XLA."""
    import jax

    a, b = np.ones((8 * 197, 768), np.float32), np.ones((768, 3072), np.float32)
    a, b = jax.numpy.asarray(a, work.dtype), jax.numpy.asarray(b, work.dtype)
    product = jax.jit(lambda a, b: jax.lax.dot(a, b, preferred_element_type="float32"))
    return lambda: jax.block_until_ready(product(a, b))


def gemm_torch(work: Work) -> Step:
    """The same product by PyTorch."""
    import torch

    dtype = getattr(torch, work.dtype)
    a, b = torch.ones(8 * 197, 768, dtype=dtype), torch.ones(768, 3072, dtype=dtype)
    return lambda: a @ b


PEERS = {"ours": ours, "FlaxViT": flax_vit, "jimm": jimm, "timm": timm, "timm compiled": timm_compiled}
PEERS |= {"HF torch": hf_torch, "GEMM, XLA": gemm_jax, "GEMM, torch": gemm_torch}


def peak_memory() -> int:
    """Bytes of this process's largest resident set."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])


def main() -> None:
    """Build, run the first step, then one round for each line."""
    peer, kind, size, dtype, batch, layers = sys.argv[1:]
    step = PEERS[peer](Work(kind, size, dtype, int(batch), int(layers)))
    start = time.perf_counter()
    step()
    print(json.dumps({"first": time.perf_counter() - start}), flush=True)
    step()
    for _ in sys.stdin:
        seconds, end = [], time.perf_counter() + SECONDS
        while time.perf_counter() < end or len(seconds) < 2:
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds, "memory": peak_memory()}), flush=True)


if __name__ == "__main__":
    main()
