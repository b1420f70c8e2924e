"""Peers in JAX: this package, FlaxViT and jimm. Each is a function from a Work to a Step."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .work import Step, Work, repeated


def random_like(shapes: Any, dtype: str = "float32") -> Any:
    """Random parameters of these shapes: the same million numbers over again, since to draw all takes seconds."""
    numbers = 0.02 * np.random.default_rng(0).standard_normal(1 << 20, np.float32)

    def draw(leaf: Any) -> jax.Array:
        return jax.numpy.asarray(np.resize(numbers, leaf.shape), dtype)

    return jax.tree.map(draw, shapes)


def ours(work: Work, attention: str = "auto") -> Step:
    """This package: a call of the model, or a step of the trainer on a uint8 batch on the device."""
    if work.kind == "training":
        return training_step(work, attention)
    from modeling_vit_cls import FlaxViTClsForImageClassification, ViTClsConfig

    config = ViTClsConfig(**work.sizes, num_labels=1000)
    options: dict[str, Any] = {"dtype": work.dtype, "attn_implementation": attention}
    model = FlaxViTClsForImageClassification(config, _do_init=False, **options)
    params, pixels = random_like(model.params_shape_tree, work.dtype), jax.numpy.asarray(work.pixels)
    return repeated(lambda: model(pixels, params=params).logits, jax.block_until_ready)


def ours_plain(work: Work) -> Step:
    """This package without cuDNN's attention."""
    return ours(work, "xla")


def ours_read(work: Work) -> Step:
    """The training step, while threads of the trainer's input pipeline read JPEG files for it."""
    return training_step(work, readers=0)


def ours_read_by_processes(work: Work) -> Step:
    """The training step, while processes read JPEG files for it, two less than there are cores."""
    return training_step(work, readers=max(1, len(os.sched_getaffinity(0)) - 2))


def training_step(work: Work, attention: str = "auto", readers: int | None = None) -> Step:
    """A step of `FlaxTrainer` with default arguments. `readers` processes read JPEG files for it; 0 uses threads."""
    from modeling_vit_cls import FlaxViTClsForImageClassification, ViTClsConfig, ViTClsImageProcessor
    from modeling_vit_cls.images.batch import Batch
    from modeling_vit_cls.nn.scan import stack_params
    from modeling_vit_cls.training.arguments import TrainingArguments
    from modeling_vit_cls.training.optimizer import make_optimizer
    from modeling_vit_cls.training.step import initial_state, make_train_step, placed_ahead

    config = ViTClsConfig(**work.sizes, num_labels=1000)
    options: dict[str, Any] = {"dtype": work.dtype, "attn_implementation": attention}
    model = FlaxViTClsForImageClassification(config, _do_init=False, **options)
    arguments = TrainingArguments("unused", max_grad_norm=0, weight_decay=0.05, lr_scheduler_type="constant")
    params, processor = random_like(model.params_shape_tree), ViTClsImageProcessor.for_config(config)
    if arguments.scans_layers:
        params = stack_params(params)
    optimizer = make_optimizer(arguments, params, 1000)
    step = make_train_step(model.module.clone(scan=arguments.scans_layers), optimizer, processor, arguments)
    state = initial_state(params, optimizer, with_ema=False)
    if readers is not None:
        read = photographs(processor, work.batch, readers)
        batches = (placed for _, placed in placed_ahead(read, arguments.device_mesh, 1))
    else:
        images = np.random.default_rng(0).integers(0, 256, (work.batch, 224, 224, 3), np.uint8)
        rows, valid = np.arange(work.batch, dtype=np.int32), np.ones(work.batch, bool)
        batches = itertools.repeat(jax.device_put(Batch(images, work.labels.astype(np.int32), rows, valid)))

    def train() -> Any:
        nonlocal state
        state, _ = step(state, next(batches))
        return state

    return repeated(train, jax.block_until_ready)


def photographs(processor: Any, batch_size: int, readers: int) -> Iterator[Any]:
    """Endless batches from JPEG files: crops of 500 x 375 pixels of scikit-learn's photographs."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    from modeling_vit_cls.images.batches import training_batches
    from modeling_vit_cls.images.sources import load_images

    with tempfile.TemporaryDirectory() as name:
        for number, photograph in enumerate(load_sample_images().images):
            folder = Path(name) / "train" / str(number)
            folder.mkdir(parents=True)
            for i in range(batch_size):
                left, top = i * 13 % 140, i * 7 % 52
                Image.fromarray(photograph[top : top + 375, left : left + 500]).save(folder / f"{i}.jpg", quality=90)
        dataset = load_images(name, "train")
        options = {"num_epochs": 10**6, "seed": 0, "num_workers": readers}
        yield from training_batches(dataset, processor, batch_size=batch_size, **options)


def flax_vit(work: Work) -> Step:
    """FlaxViTForImageClassification of transformers 4.57, as its examples use it."""
    import optax
    from transformers import FlaxViTForImageClassification, ViTConfig

    model = FlaxViTForImageClassification(ViTConfig(**work.sizes, num_labels=1000), dtype=work.dtype, _do_init=False)
    pixels, labels = jax.numpy.asarray(work.pixels), jax.numpy.asarray(work.labels)
    if work.kind == "inference":
        params = random_like(model.params_shape_tree, work.dtype)
        call = jax.jit(lambda params, pixels: model(pixels, params=params).logits)
        return repeated(lambda: call(params, pixels), jax.block_until_ready)
    params = random_like(model.params_shape_tree)
    optimizer = optax.adamw(5e-4, weight_decay=0.05)

    def loss_of(params: Any, pixels: jax.Array, labels: jax.Array) -> jax.Array:
        logits = model(pixels, params=params, dropout_rng=jax.random.key(0), train=True).logits.astype("float32")
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(params: Any, opt_state: Any, pixels: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
        updates, opt_state = optimizer.update(jax.grad(loss_of)(params, pixels, labels), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    compiled, state = jax.jit(step, donate_argnums=(0, 1)), (params, optimizer.init(params))

    def train() -> Any:
        nonlocal state
        state = compiled(*state, pixels, labels)
        return state

    return repeated(train, jax.block_until_ready)


def jimm(work: Work) -> Step:
    """jax-image-models' VisionTransformer; inference only."""
    from flax import nnx

    jax.set_mesh(jax.make_mesh((1, 1), ("fsdp", "tp")))
    from jimm.models.vit import VisionTransformer

    sizes = {"hidden_size": work.sizes["hidden_size"], "num_heads": work.sizes["num_attention_heads"]}
    sizes |= {"mlp_dim": work.sizes["intermediate_size"], "num_layers": work.layers}
    model = VisionTransformer(**sizes, dtype=work.dtype, param_dtype=work.dtype)
    model.eval()
    pixels = jax.numpy.asarray(work.pixels.transpose(0, 2, 3, 1), work.dtype)
    call = nnx.jit(lambda model, pixels: model(pixels))
    return repeated(lambda: call(model, pixels), jax.block_until_ready)


def gemm(work: Work, result: str | None = None) -> Step:
    """One matrix product by XLA in the work's type; `result` is the type of the result, default the same."""
    rows, inner, columns = work.product
    a, b = jax.numpy.ones((rows, inner), work.dtype), jax.numpy.ones((inner, columns), work.dtype)
    product = jax.jit(lambda a, b: jax.lax.dot(a, b, preferred_element_type=result or work.dtype))
    return repeated(lambda: product(a, b), jax.block_until_ready)


def gemm_to_float32(work: Work) -> Step:
    """One matrix product by XLA in the work's type, with a float32 result."""
    return gemm(work, "float32")
