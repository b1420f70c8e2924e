"""Embeddings of images and the outputs of single blocks: the right ones, in their place, with no work beyond."""

import copy
import pickle
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import arrays, pixels, tiny_config, tiny_model
from flax.core import freeze

from modeling_vit_cls import BadImageError, ConfigError, FlaxViTClsForImageClassification, FlaxViTClsModel
from modeling_vit_cls.config_rules import Positions

OTHER = (12, 20)  # 3 x 5 patches
DEPTH = 4


@pytest.fixture(scope="module")
def deep():
    """A backbone of four blocks with [CLS], a distillation token and two registers."""
    return tiny_model(FlaxViTClsModel, num_hidden_layers=DEPTH, num_register_tokens=2, use_distillation_token=True)


@pytest.mark.parametrize(
    ("overrides", "output", "width"),
    [
        ({}, "pooler_output", 16),
        ({"readout": "cls_mean", "representation_size": 6}, "pooler_output", 6),
        ({"projection_size": 8, "norm_position": "after_readout"}, "image_embeds", 8),
        ({"return_dict": False, "output_hidden_states": True}, "pooler_output", 16),
    ],
)
def test_image_features_are_the_projected_readout_or_the_readout(overrides, output, width):
    model, images = tiny_model(FlaxViTClsModel, **overrides), pixels()
    features = model.get_image_features(images)
    assert isinstance(features, jax.Array)
    assert features.shape == (2, width)
    np.testing.assert_array_equal(features, getattr(model(images, return_dict=True), output))
    np.testing.assert_allclose(jax.jit(model.get_image_features)(images), features, atol=1e-5)


def test_image_features_take_what_the_call_takes():
    model, images, key = tiny_model(FlaxViTClsModel, hidden_dropout_prob=0.5), pixels(), jax.random.PRNGKey(0)
    expected = model(images, dropout_rng=key, train=True).pooler_output
    np.testing.assert_array_equal(model.get_image_features(images, dropout_rng=key, train=True), expected)
    assert abs(expected - model.get_image_features(images)).max() > 0.1
    doubled = jax.tree.map(lambda leaf: 2 * leaf, model.params)
    np.testing.assert_array_equal(
        model.get_image_features(images, doubled), model(images, params=doubled).pooler_output
    )
    assert model.get_image_features(pixels(size=OTHER), interpolate_pos_encoding=True).shape == (2, 16)
    with pytest.raises(BadImageError, match="interpolate_pos_encoding=True"):
        model.get_image_features(pixels(size=OTHER))
    with pytest.raises(ConfigError, match="dropout_rng"):
        model.get_image_features(images, train=True)


CHOICES = [
    (None, [0, 1, 2, 3]),
    (1, [3]),
    (3, [1, 2, 3]),
    (np.int64(2), [2, 3]),
    ([0], [0]),
    ((-1, 0), [3, 0]),
    (range(0, 4, 2), [0, 2]),
    (np.array([1, 1, -4]), [1, 1, 0]),
]


@pytest.mark.parametrize(("indices", "blocks"), CHOICES)
def test_blocks_are_those_of_the_hidden_states_in_the_order_asked_for(deep, indices, blocks):
    images = pixels()
    states = deep(images, output_hidden_states=True).hidden_states
    found = deep.forward_intermediates(images, indices, reshape=False, return_prefix_tokens=True)
    assert isinstance(found, tuple)
    assert len(found) == len(blocks)
    for (patches, prefix), block in zip(found, blocks):
        assert (patches.shape, prefix.shape) == ((2, 4, 16), (2, 4, 16))
        np.testing.assert_allclose(jnp.concatenate([prefix, patches], axis=1), states[block + 1], atol=1e-5)


WRONG = [
    True,
    False,
    np.True_,
    0,
    -1,
    5,
    10**12,
    [],
    [4],
    [0, -5],
    1.0,
    [1.5],
    "1",
    "all",
    [None],
    [True, False, True, False],
    {"a": 1},
]


@pytest.mark.parametrize("indices", WRONG, ids=str)
def test_wrong_indices_say_what_is_allowed(deep, indices):
    words = "a number of last blocks from 1 to 4, or a sequence of blocks from -4 to 3, or None"
    with pytest.raises(ConfigError, match=words) as error:
        deep.forward_intermediates(pixels(), indices)
    assert error.value.field == "indices"


@pytest.mark.parametrize("position_embedding", get_args(Positions))
def test_a_patch_is_where_it_is_in_the_image(position_embedding):
    registers = int(position_embedding != "relative")
    overrides = {"position_embedding": position_embedding, "num_register_tokens": registers, "image_size": (12, 20)}
    model = tiny_model(FlaxViTClsModel, **overrides)
    for layer in model.params["encoder"].values():  # no token hears of another
        layer["attention"]["out"] = jax.tree.map(jnp.zeros_like, layer["attention"]["out"])
    images = pixels(1, OTHER)
    before = model.forward_intermediates(images)
    changed = images.copy()
    changed[:, :, 8:12, 4:8] += 1  # row 2, column 1
    for one, other in zip(before, model.forward_intermediates(changed)):
        assert one.shape == (1, 3, 5, 16)
        np.testing.assert_array_equal(np.argwhere(abs(one - other).max(axis=-1)[0] > 1e-6), [[2, 1]])


def test_other_sizes_on_request(deep):
    images = pixels(size=OTHER)
    states = deep(images, output_hidden_states=True, interpolate_pos_encoding=True).hidden_states
    (feature_map,) = deep.forward_intermediates(images, [1], interpolate_pos_encoding=True)
    np.testing.assert_allclose(feature_map, states[2][:, 4:].reshape(2, 3, 5, 16), atol=1e-5)
    with pytest.raises(BadImageError, match="interpolate_pos_encoding=True"):
        deep.forward_intermediates(images)


@pytest.mark.parametrize("kind", [FlaxViTClsModel, FlaxViTClsForImageClassification])
def test_normed_the_last_block_is_the_last_hidden_state(kind):
    model, images = tiny_model(kind), pixels()
    backbone = FlaxViTClsModel(model.config, _do_init=False)
    expected = backbone(images, params=model.params.get("vit_cls", model.params)).last_hidden_state
    normed = model.forward_intermediates(images, norm=True, reshape=False, return_prefix_tokens=True)
    np.testing.assert_allclose(jnp.concatenate(normed[-1][::-1], axis=1), expected, atol=1e-5)
    (raw,) = arrays(model.forward_intermediates(images, [0]))
    p = arrays(model.params.get("vit_cls", model.params)["norm"])
    centred = raw - raw.mean(axis=-1, keepdims=True)
    by_hand = centred / np.sqrt(raw.var(axis=-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]
    np.testing.assert_allclose(normed[0][0].reshape(by_hand.shape), by_hand, atol=1e-4)


def test_a_norm_that_tokens_do_not_have_is_refused():
    for position in ("after_readout", "none"):
        model = tiny_model(FlaxViTClsModel, norm_position=position)
        assert len(model.forward_intermediates(pixels())) == 2
        with pytest.raises(ConfigError, match=f"norm_position='{position}' no final LayerNorm acts on") as error:
            model.forward_intermediates(pixels(), norm=True)
        assert error.value.field == "norm"


def test_the_prefix_is_in_order_and_may_be_empty(deep):
    images = pixels()
    ((_, prefix),) = deep.forward_intermediates(images, 1, norm=True, return_prefix_tokens=True)
    np.testing.assert_allclose(prefix[:, 0], deep(images).pooler_output, atol=1e-5)  # [CLS] comes first
    bare = tiny_model(FlaxViTClsModel, use_cls_token=False, readout="mean")
    ((patches, prefix),) = bare.forward_intermediates(images, 1, return_prefix_tokens=True)
    assert (patches.shape, prefix.shape) == ((2, 2, 2, 16), (2, 0, 16))


def flops(function, *arguments) -> float:
    """Operations of the compiled function."""
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


def test_blocks_after_the_last_one_asked_for_cost_nothing():
    model, images = tiny_model(num_hidden_layers=DEPTH), pixels()
    costs = [flops(lambda x: model.forward_intermediates(x, [block]), images) for block in range(DEPTH)]  # noqa: B023
    steps = np.diff(costs)
    np.testing.assert_allclose(steps, steps[0], rtol=0.01)  # each block costs as much as the next
    assert costs[0] < 1.3 * steps[0]
    whole = flops(lambda x: model(x, output_hidden_states=True).logits, images)
    assert costs[-1] < whole  # no readout, no head


def test_under_every_transformation(deep):
    images = pixels(3)

    def features(x, params=None):
        return deep.forward_intermediates(x, [1], params=params)[0]

    expected = features(images)
    np.testing.assert_allclose(jax.jit(features)(images), expected, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(lambda x: features(x[None])[0])(images), expected, atol=1e-5)
    np.testing.assert_allclose(features(images, freeze(deep.params)), expected, atol=1e-5)
    with jax.disable_jit():
        np.testing.assert_allclose(features(images), expected, atol=1e-5)
    assert abs(features(images, jax.tree.map(lambda leaf: 2 * leaf, deep.params)) - expected).max() > 0.1
    slopes = jax.grad(lambda params: (features(images, params) ** 2).mean())(deep.params)["encoder"]
    used = [max(abs(leaf).max() for leaf in jax.tree.leaves(slopes[f"layer_{i:02d}"])) > 0 for i in range(DEPTH)]
    assert used == [True, True, False, False]


def test_copies_pickles_other_readouts_and_gradient_checkpointing_keep_the_features(deep):
    images = pixels()
    expected = deep.forward_intermediates(images, [2])[0]
    others = [copy.deepcopy(deep), pickle.loads(pickle.dumps(deep)), deep.with_readout("mean")]
    others[0].enable_gradient_checkpointing()
    for other in others:
        np.testing.assert_allclose(other.forward_intermediates(images, [2])[0], expected, atol=1e-5)


def test_half_precision_and_parameters_of_the_caller():
    half = FlaxViTClsModel(tiny_config(), dtype="bfloat16", _do_init=False)
    model = tiny_model(FlaxViTClsModel)
    (features,) = half.forward_intermediates(pixels(), 1, params=model.params, norm=True)
    assert features.dtype == jnp.bfloat16
    np.testing.assert_allclose(features, model.forward_intermediates(pixels(), 1, norm=True)[0], atol=0.15)
    with pytest.raises(ValueError, match="_do_init=False"):
        half.forward_intermediates(pixels())
