"""What is chosen for an NVIDIA GPU, on a CPU: the compiler's options, and what a LayerNorm keeps for its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import arrays, assert_same, pixels, tiny_config, tiny_model

from modeling_vit_cls import ViTClsImageProcessor
from modeling_vit_cls.images.batch import Batch
from modeling_vit_cls.nn import compiled, fused_attention, gpu, layers
from modeling_vit_cls.nn.linear import layer_norm
from modeling_vit_cls.nn.vit import FlaxViTClsModule
from modeling_vit_cls.training import step
from modeling_vit_cls.training.arguments import TrainingArguments
from modeling_vit_cls.training.optimizer import make_optimizer

OPTIONS = {"xla_gpu_enable_triton_gemm": False, "xla_gpu_dot_merger_threshold_mb": 0}


@pytest.fixture
def hopper(monkeypatch):
    """A CPU that says that it is a Hopper GPU. XLA takes the options of GPUs everywhere."""
    monkeypatch.setattr(gpu, "compute_capability", lambda: 9.0)
    monkeypatch.delenv("XLA_FLAGS")


def test_half_precision_on_hopper_has_options_of_the_compiler(hopper, monkeypatch):
    assert gpu.compiler_options("bfloat16") == gpu.compiler_options(jnp.float16) == OPTIONS
    assert gpu.compiler_options(jnp.float32) is None
    monkeypatch.setattr(gpu, "compute_capability", lambda: 8.0)
    assert gpu.compiler_options("bfloat16") is None


def test_plain_products_have_no_options(hopper, monkeypatch):
    monkeypatch.setattr(fused_attention, "compute_capability", gpu.compute_capability)
    fields = {"hidden_size": 16, "num_attention_heads": 2}
    fused = FlaxViTClsModule(tiny_config(**fields), "bfloat16")
    assert fused_attention.program_options(fused) == OPTIONS
    assert fused_attention.program_options(fused.clone(attn_implementation="xla")) is None
    relative = FlaxViTClsModule(tiny_config(position_embedding="relative", **fields), "bfloat16")
    assert fused_attention.program_options(relative) is None


def test_an_option_of_the_user_stays(hopper, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_triton_gemm=true")
    assert gpu.compiler_options("bfloat16") == {"xla_gpu_dot_merger_threshold_mb": 0}


def test_an_option_that_xla_does_not_know_is_left_out(hopper, monkeypatch):
    monkeypatch.setattr(gpu, "_OPTIONS", OPTIONS | {"xla_gpu_of_another_version": True})
    assert gpu.compiler_options("bfloat16") == OPTIONS


@pytest.fixture
def wrong_options(monkeypatch):
    """Options that XLA refuses, so that a program that is compiled with them is seen."""
    monkeypatch.setattr(compiled, "program_options", lambda module: {"xla_gpu_of_another_version": True})


def test_a_call_has_the_options_and_a_part_of_another_function_has_its_own(wrong_options):
    model = tiny_model(layer_norm_eps=0.017)  # a config that no other test has, because compiled functions are kept
    images = pixels()
    for call in (lambda: model(images), lambda: model.forward_intermediates(images, 1)):
        with pytest.raises(jax.errors.JaxRuntimeError, match="No such compile option"):
            call()

    def total(params, images):
        return model(images, params=params).logits.sum()

    by_hand = model.module.apply({"params": model.params}, images.transpose(0, 2, 3, 1)).logits
    np.testing.assert_allclose(jax.jit(total)(model.params, images), by_hand.sum(), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda: model(images).logits)(), by_hand, rtol=1e-4, atol=1e-5)
    each = jax.vmap(lambda image: model(image[None]).logits[0])(images)
    np.testing.assert_allclose(each, by_hand, rtol=1e-4, atol=1e-5)
    assert np.isfinite(jax.grad(total)(model.params, images)["classifier"]["bias"]).all()
    assert jax.eval_shape(lambda: model(images).logits).shape == by_hand.shape


def test_a_training_step_has_the_options(monkeypatch):
    monkeypatch.setattr(step, "program_options", lambda module: {"xla_gpu_of_another_version": True})
    model, arguments = tiny_model(), TrainingArguments("unused", scan_layers=False)
    optimizer = make_optimizer(arguments, model.params, 10)
    processor = ViTClsImageProcessor.for_config(model.config)
    train = step.make_train_step(model.module, optimizer, processor, arguments)
    batch = Batch(np.zeros((8, 8, 8, 3), np.uint8), np.zeros(8, np.int32), np.arange(8), np.ones(8, bool))
    with pytest.raises(jax.errors.JaxRuntimeError, match="No such compile option"):
        train(step.initial_state(model.params, optimizer, with_ema=False), batch)


@pytest.mark.parametrize("mean", [0, 30, 300])
def test_a_norm_in_training_on_a_gpu_loses_less_than_the_rounding_of_its_input(mean, monkeypatch):
    exact = np.random.default_rng(0).normal(mean, 1, (50, 768))
    x = jnp.asarray(exact, jnp.bfloat16)
    params = {"params": {"scale": jnp.ones(768), "bias": jnp.zeros(768)}}
    rounded = np.asarray(x, float)
    standard = [(rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True) for rows in (exact, rounded)]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    got = layer_norm(tiny_config(), "bfloat16", "norm", training=True).apply(params, x).astype(float)
    lost = abs(got - standard[1]) - 2**-8 * abs(standard[1])  # but for the rounding of the output
    assert lost.max() < 0.2 * abs(standard[0] - standard[1]).max() + 1e-4


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_the_variance_is_in_one_pass_in_training_on_a_gpu_in_half_precision_alone(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    for dtype in ("float32", "bfloat16", "float16"):
        for training in (False, True):
            norm = layer_norm(tiny_config(), dtype, "norm", training)
            assert norm.use_fast_variance is (backend == "gpu" and training and dtype != "float32")


@pytest.mark.parametrize("training", [True, False])
def test_both_norms_of_a_block_know_of_training(training, monkeypatch):
    told = {}
    monkeypatch.setattr(layers, "layer_norm", lambda *args: told.update({args[2]: args[3]}) or layer_norm(*args))
    model, images = tiny_model(), pixels().transpose(0, 2, 3, 1)
    jax.eval_shape(lambda params: model.module.apply({"params": params}, images, not training), model.params)
    assert told == {"norm1": training, "norm2": training}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_norm_on_a_gpu_keeps_its_input_and_one_number_for_each_row(dtype, monkeypatch):
    x = jnp.asarray(np.random.default_rng(0).normal(3, 2, (50, 16)), dtype)
    plain = layer_norm(tiny_config(), dtype, "norm", training=True)
    params = {"params": {"scale": jnp.linspace(0.5, 2, 16), "bias": jnp.linspace(-1, 1, 16)}}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    on_gpu = layer_norm(tiny_config(), dtype, "norm", training=True)
    assert_same(on_gpu.init(jax.random.key(0), x), plain.init(jax.random.key(0), x))

    def backward(norm):
        return jax.vjp(lambda params, x: norm.apply(params, x), params, x)

    (want, plain_gradient), (got, gradient) = backward(plain), backward(on_gpu)
    np.testing.assert_array_equal(arrays(got), arrays(want))
    kept = [leaf for leaf in jax.tree.leaves(gradient) if leaf.size >= x.size]
    assert [leaf.dtype for leaf in kept] == [x.dtype]
    tolerance = 1e-2 if dtype == "bfloat16" else 1e-5
    for mine, other in zip(jax.tree.leaves(gradient(want)), jax.tree.leaves(plain_gradient(want)), strict=True):
        np.testing.assert_allclose(mine.astype(float), other.astype(float), rtol=tolerance, atol=1e-4)
