"""The model in flax's NNX: the same logits, trained by NNX's own tools, and back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_same, pixels, spread, tiny_config, tiny_model
from flax import nnx

from modeling_vit_cls import FlaxViTClsForImageClassification, FlaxViTClsModel

CONFIGS = [{}, {"readout": "map"}, {"use_distillation_token": True, "num_register_tokens": 2, "mlp": "swiglu"}]


def images(batch: int = 2) -> np.ndarray:
    """The batch of `pixels` as linen and NNX modules take it, (B, H, W, C)."""
    return pixels(batch).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("overrides", CONFIGS, ids=str)
def test_logits_are_the_models(overrides):
    model = tiny_model(**overrides)
    expected = np.asarray(model(pixels()).logits)
    np.testing.assert_allclose(model.to_nnx()(images()).logits, expected, rtol=0, atol=1e-6 * abs(expected).max())


def test_a_backbone_has_its_readout():
    model = tiny_model(FlaxViTClsModel)
    expected = np.asarray(model(pixels()).pooler_output)
    found = nnx.jit(lambda module, batch: module(batch).pooler_output)(model.to_nnx(), images())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * abs(expected).max())


def test_parameters_are_nnx_params_of_the_same_names_and_come_back(model):
    state = nnx.state(model.to_nnx(), nnx.Param)
    assert {path for path, _ in nnx.to_flat_state(state)} == model.required_params
    assert_same(nnx.to_pure_dict(state), model.params)


def test_other_parameters_may_be_given():
    model = FlaxViTClsForImageClassification(tiny_config(), _do_init=False)
    params = spread(model.init_weights(jax.random.key(0), model.input_shape))
    np.testing.assert_allclose(
        model.to_nnx(params)(images()).logits, model(pixels(), params=params).logits, rtol=0, atol=1e-6
    )
    with pytest.raises(ValueError, match="_do_init=False"):
        model.to_nnx()


def test_it_trains_with_nnx_and_what_it_learnt_comes_back(tmp_path):
    model = tiny_model(hidden_dropout_prob=0.1)
    before, labels = jax.tree.map(np.array, model.params), jnp.arange(4)
    module = model.to_nnx()
    optimizer = nnx.Optimizer(module, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(module, optimizer, rngs):
        def loss(module, rngs):
            logits = module(images(4), False, rngs=rngs).logits
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        value, gradients = nnx.value_and_grad(loss)(module, rngs)
        optimizer.update(module, gradients)
        return value

    rngs = nnx.Rngs(dropout=0)
    losses = [float(step(module, optimizer, rngs)) for _ in range(8)]
    assert losses[-1] < losses[0] / 2
    assert_same(jax.tree.map(np.array, model.params), before)  # the model is as it was until it is given the new ones

    model.params = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    model.save_pretrained(tmp_path)
    again = FlaxViTClsForImageClassification.from_pretrained(tmp_path)
    expected = np.asarray(module(images(4)).logits)
    np.testing.assert_allclose(again(pixels(4)).logits, expected, rtol=0, atol=1e-6 * abs(expected).max())
