"""Attention by a fused kernel: the same numbers as plain products, and plain products wherever maps are asked for."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import pixels, tiny_model

from modeling_vit_cls import ConfigError, FlaxViTClsForImageClassification, FlaxViTClsModel
from modeling_vit_cls.nn import fused_attention
from modeling_vit_cls.nn.fused_attention import is_fused
from modeling_vit_cls.nn.scan import stack_params

CHOICES = [{}, {"readout": "mean"}, {"readout": "map"}, {"position_embedding": "rope"}, {"num_register_tokens": 3}]


@pytest.fixture
def kernel(monkeypatch):
    """The fused path on a CPU: jax's own attention in place of cuDNN's. Returns the shapes that it was called with."""
    calls, attention = [], jax.nn.dot_product_attention

    def on_a_cpu(query, key, value, implementation, **lengths):
        assert implementation == "cudnn"
        calls.append(query.shape)

        def plain(query, key, value, lengths):
            return attention(query, key, value, implementation="xla", **lengths)

        def with_gradient(query, key, value, lengths):  # as cuDNN, whose gradient takes only such numbers of tokens
            assert query.shape[1] % 8 == 0
            return jax.vjp(lambda *arrays: plain(*arrays, lengths), query, key, value)

        like_cudnn = jax.custom_vjp(plain)
        like_cudnn.defvjp(with_gradient, lambda gradient, slope: (*gradient(slope), None))
        return like_cudnn(query, key, value, lengths)

    monkeypatch.setattr(fused_attention, "is_fused", lambda implementation, *_: implementation != "xla")
    monkeypatch.setattr(jax.nn, "dot_product_attention", on_a_cpu)
    jax.clear_caches()  # models of one config share their compiled functions, with and without this
    yield calls
    jax.clear_caches()


@pytest.mark.parametrize("fields", CHOICES, ids=str)
@pytest.mark.parametrize("model_class", [FlaxViTClsModel, FlaxViTClsForImageClassification])
def test_numbers_are_those_of_plain_products(model_class, fields, kernel):
    plain = tiny_model(model_class, **fields)
    fused = model_class(plain.config, attn_implementation="auto")
    plain = model_class(plain.config, attn_implementation="xla", _do_init=False)
    fused.params = jax.tree.map(lambda leaf: leaf + 0.1, fused.params)
    want, got = (model(pixels(), params=fused.params).to_tuple() for model in (plain, fused))
    assert kernel
    assert all(shape[2:] == (2, 8) for shape in kernel)
    for mine, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-4, rtol=1e-4)


def lengths_of_the_kernel(kernel, training, scan, **fields):
    """The numbers of tokens in the kernel's calls, for gradients that are those of plain products."""
    model = tiny_model(**fields)
    images = pixels(size=(8, 12)).transpose(0, 2, 3, 1)  # 2 x 3 patches, so that there is padding in training
    rngs = {"dropout": jax.random.key(0)}

    def loss(params, implementation):
        module = model.module.clone(attn_implementation=implementation, scan=scan)
        outputs = module.apply({"params": params}, images, not training, readout_only=True, rngs=rngs)
        return (outputs.logits**2).sum()

    params = stack_params(model.params) if scan else model.params
    slopes = jax.jit(jax.grad(loss), static_argnums=1)
    want = slopes(params, "xla")
    assert not kernel
    got = slopes(params, "auto")
    for mine, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-4, rtol=1e-3)
    return {shape[1] for shape in kernel}


@pytest.mark.parametrize(
    ("fields", "scan"), [(fields, True) for fields in CHOICES] + [({"position_embedding": "rope"}, False)], ids=str
)
def test_gradients_in_training_are_those_of_plain_products(fields, scan, kernel):
    lengths = lengths_of_the_kernel(kernel, True, scan, **fields)
    assert lengths == {16 if "num_register_tokens" in fields else 8}


def test_gradients_in_inference_are_those_of_plain_products(kernel):
    assert lengths_of_the_kernel(kernel, False, True, num_hidden_layers=3) == {7, 8}


def test_a_call_in_training_without_a_key_is_computed_as_training_is(kernel):
    model = tiny_model()

    def loss(params):
        return model(pixels(size=(8, 12)), params, train=True, interpolate_pos_encoding=True).logits.sum()

    assert jax.eval_shape(jax.grad(loss), model.params)
    assert {shape[1] for shape in kernel} == {8}


def test_maps_and_their_dropout_take_plain_products(kernel):
    model = tiny_model(attention_probs_dropout_prob=0.1)
    maps = model(pixels(), output_attentions=True).attentions
    np.testing.assert_allclose(maps[0].sum(axis=-1), 1, atol=1e-5, rtol=1e-4)
    model(pixels(), dropout_rng=jax.random.key(0), train=True)
    assert not kernel
    states = model(pixels(), output_hidden_states=True).hidden_states
    assert kernel
    assert [state.shape for state in states] == [(2, 5, 16)] * 3


def test_relative_positions_take_plain_products(kernel):
    model = tiny_model(position_embedding="relative")
    assert abs(model(pixels()).logits).max() < 1e6
    assert not kernel


def test_the_choice_is_kept_by_another_readout_and_not_saved(tmp_path):
    model = FlaxViTClsForImageClassification(tiny_model().config, attn_implementation="xla")
    assert model.with_readout("mean").module.attn_implementation == "xla"
    model.save_pretrained(tmp_path)
    assert "xla" not in (tmp_path / "config.json").read_text()
    load = FlaxViTClsForImageClassification.from_pretrained
    chosen = [load(tmp_path, attn_implementation=name).module.attn_implementation for name in ("xla", "sdpa", "auto")]
    assert chosen == ["xla", "auto", "auto"]


def test_a_host_with_a_gpu_has_plain_products_on_its_cpu(monkeypatch):
    gpu, cpu = SimpleNamespace(platform="gpu", compute_capability="9.0"), jax.devices("cpu")[0]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda kind="gpu": [gpu if kind == "gpu" else cpu])
    assert is_fused("auto", jnp.bfloat16, 64)
    for device in (cpu, "cpu"):
        with jax.default_device(device):
            assert not is_fused("auto", jnp.bfloat16, 64)


@pytest.mark.parametrize(("capability", "auto", "cudnn"), [(0.0, False, None), (8.0, False, True), (9.0, True, True)])
def test_the_kernel_is_chosen_by_the_device(capability, auto, cudnn, monkeypatch):
    monkeypatch.setattr(fused_attention, "compute_capability", lambda: capability)
    assert is_fused("auto", jnp.bfloat16, 64) is auto
    assert not is_fused("xla", jnp.bfloat16, 64)
    assert not is_fused("auto", jnp.float32, 64)
    if cudnn is None:
        with pytest.raises(ConfigError, match="attn_implementation='cudnn': needs an NVIDIA GPU"):
            is_fused("cudnn", jnp.bfloat16, 64)
    else:
        assert is_fused("cudnn", jnp.float16, 64) is cudnn
    with pytest.raises(ConfigError, match="heads of a multiple of 8"):
        is_fused("cudnn", jnp.bfloat16, 60)
    with pytest.raises(ConfigError, match="must be one of 'auto', 'xla', 'cudnn'"):
        is_fused("flash", jnp.bfloat16, 64)


def test_a_kernel_that_does_not_run_here_is_an_error_at_once():
    with pytest.raises(ConfigError, match="attn_implementation"):
        FlaxViTClsForImageClassification(tiny_model().config, attn_implementation="cudnn")
    relative = tiny_model(position_embedding="relative")
    with pytest.raises(ConfigError, match="attn_implementation"):
        relative.module.clone(attn_implementation="cudnn").apply({"params": relative.params}, jnp.zeros((1, 8, 8, 3)))
