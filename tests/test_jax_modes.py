"""JAX's stricter modes: no silent promotion of ranks, and 64 bits, change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same, pixels, tiny_config

from modeling_vit_cls import FlaxViTClsForImageClassification
from modeling_vit_cls.images.augmentation import Augmentation, augment, normalise
from modeling_vit_cls.images.batch import Batch
from modeling_vit_cls.training import TrainingArguments
from modeling_vit_cls.training.optimizer import make_optimizer
from modeling_vit_cls.training.step import initial_state, make_train_step

EVERYTHING = [
    {"use_distillation_token": True, "drop_path_rate": 0.1, "hidden_dropout_prob": 0.1, "pre_norm": True},
    {
        "readout": "cls_mean",
        "position_embedding": "rope",
        "mlp": "swiglu",
        "layer_scale_init_value": 0.1,
        "num_register_tokens": 2,
        "representation_size": 8,
        "hidden_size": 32,
    },
    {"readout": "map", "use_cls_token": False, "position_embedding_tokens": "patches"},
]


def model_of(overrides):
    return FlaxViTClsForImageClassification(tiny_config(**overrides, num_hidden_layers=1))


@pytest.mark.parametrize("overrides", EVERYTHING)
def test_ranks_are_never_promoted(overrides):
    with jax.numpy_rank_promotion("raise"):
        model = model_of(overrides)

        def loss(params):
            return model(pixels(), params=params, train=True, dropout_rng=jax.random.PRNGKey(0)).logits.sum()

        jax.eval_shape(jax.grad(loss), model.params)  # ranks are compared where a function is traced
        jax.eval_shape(lambda: model(pixels(size=(12, 8)), interpolate_pos_encoding=True).logits)
        jax.eval_shape(lambda: model.forward_intermediates(pixels(), norm=True))
        key, how = jax.random.PRNGKey(0), Augmentation(True, 0.2, 0.2)
        images = jax.eval_shape(lambda x: normalise(x, model.image_processor), jnp.zeros((2, 8, 8, 3), jnp.uint8))
        batch = (images, jax.ShapeDtypeStruct((2, 5), jnp.float32), jax.ShapeDtypeStruct((2,), bool))
        jax.eval_shape(lambda *given: augment(key, *given, how), *batch)


@pytest.mark.parametrize("overrides", EVERYTHING)
def test_64_bits_give_the_same_parameters_and_float32_logits(overrides):
    narrow = model_of(overrides)
    with jax.enable_x64(True):
        wide = model_of(overrides)
        assert_same(wide.params, narrow.params)
        for given in (pixels(), pixels().astype(np.float64)):
            assert jax.eval_shape(lambda given=given: wide(given).logits).dtype == jnp.float32


@pytest.mark.parametrize("overrides", EVERYTHING)
def test_a_module_that_is_first_built_under_64_bits_has_float32_parameters(overrides):
    """By the module's own `init` too; the model's shapes may be known from before."""
    config = tiny_config(**overrides, num_hidden_layers=1, patch_bias=True)
    module = FlaxViTClsForImageClassification(config, _do_init=False).module
    images, key = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32), jax.random.PRNGKey(0)
    with jax.enable_x64(True):
        wide = jax.eval_shape(module.init, key, images)["params"]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(wide)} == {"float32"}


AUGMENTED = {"horizontal_flip": True, "mixup_alpha": 0.2, "cutmix_alpha": 1.0}
TRAINED = {"label_smoothing_factor": 0.1, "ema_decay": 0.9, "weight_decay": 0.1, "layer_decay": 0.8}
TRAINED |= {"gradient_accumulation_steps": 2, "max_grad_norm": 1.0}


def test_a_training_step_under_64_bits_gives_the_types_that_it_takes():
    how = TrainingArguments("unused", per_device_train_batch_size=2, **AUGMENTED, **TRAINED)
    with jax.enable_x64(True):
        model = model_of({"drop_path_rate": 0.1, "hidden_dropout_prob": 0.1})
        optimizer = make_optimizer(how, model.params, 10)
        state = initial_state(model.params, optimizer, with_ema=True)
        step = make_train_step(model.module, optimizer, model.image_processor, how)
        batch = Batch(np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, np.int32), np.arange(4), np.ones(4, bool))
        after, _ = jax.eval_shape(step, state, batch)
    types = [[leaf.dtype for leaf in jax.tree.leaves(tree)] for tree in (state, after)]
    assert types[0] == types[1]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(after.params)} == {"float32"}


def test_images_are_flipped_and_mixed_alike_under_64_bits():
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    given = (images, np.eye(4, 5, dtype=np.float32), np.ones(4, bool), Augmentation(**AUGMENTED))
    for seed in range(4):  # both kinds of mixing are drawn
        narrow = augment(jax.random.key(seed), *given)
        with jax.enable_x64(True):
            wide = augment(jax.random.key(seed), *given)
        assert_same(wide, narrow)
