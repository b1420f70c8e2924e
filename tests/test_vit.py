"""Properties of the modules: what each readout reads, what positions mean, what training draws at random."""

import itertools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import arrays, pixels, spread, tiny_config, tiny_model
from reference import norm

from modeling_vit_cls import FlaxViTClsModel, ViTClsConfig
from modeling_vit_cls.config_rules import Positions, Readout
from modeling_vit_cls.nn.layers import Mlp
from modeling_vit_cls.nn.positions import relative_rows, resample_relative, rope_table, rotate, sincos2d_table
from modeling_vit_cls.nn.resampling import resample_positions
from modeling_vit_cls.nn.vit import FlaxViTClsModule


def swap_patches(images: np.ndarray) -> np.ndarray:
    """(B, C, 8, 8) of 4-pixel patches: left and right columns of patches exchanged."""
    return np.concatenate([images[..., 4:], images[..., :4]], axis=-1)


def without_order(**overrides) -> FlaxViTClsModel:
    return tiny_model(FlaxViTClsModel, position_embedding="none", **overrides)


@pytest.mark.parametrize("readout", get_args(Readout))
def test_without_positions_no_readout_sees_the_order_of_patches(readout):
    model, images = without_order(readout=readout, num_register_tokens=3), pixels()
    np.testing.assert_allclose(
        model(images).pooler_output, model(swap_patches(images)).pooler_output, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("position_embedding", sorted(set(get_args(Positions)) - {"none"}))
def test_positions_make_the_order_matter(position_embedding):
    model, images = tiny_model(FlaxViTClsModel, position_embedding=position_embedding), pixels()
    assert abs(model(images).pooler_output - model(swap_patches(images)).pooler_output).max() > 1e-3


def test_learned_positions_permuted_with_their_patches_change_nothing():
    model, images = tiny_model(FlaxViTClsModel, readout="mean"), pixels()
    swapped = jax.tree.map(lambda leaf: leaf, model.params)
    table = swapped["embeddings"]["position_embedding"]["embedding"]
    swapped["embeddings"]["position_embedding"]["embedding"] = table[jnp.array([0, 2, 1, 4, 3])]
    expected = model(images).pooler_output
    np.testing.assert_allclose(model(swap_patches(images), params=swapped).pooler_output, expected, atol=1e-5)


def test_what_each_readout_reads():
    images = pixels()
    model = tiny_model(FlaxViTClsModel, num_register_tokens=3, use_distillation_token=True)
    tokens = model(images).last_hidden_state
    assert tokens.shape == (2, 1 + 1 + 3 + 4, 16)
    cls, mean = tokens[:, 0], tokens[:, 5:].mean(axis=1)
    for readout, expected in [("cls", cls), ("mean", mean), ("cls_mean", jnp.concatenate([cls, mean], axis=1))]:
        found = model.with_readout(readout)(images)
        np.testing.assert_array_equal(found.last_hidden_state, tokens)
        np.testing.assert_allclose(found.pooler_output, expected, atol=1e-6)


@pytest.mark.parametrize("readout", get_args(Readout))
def test_a_readout_is_as_wide_as_its_config_says(readout):
    model = tiny_model(FlaxViTClsModel, readout=readout)
    assert model(pixels()).pooler_output.shape == (2, model.config.readout_size)


def test_norm_after_readout_leaves_the_tokens_as_they_are():
    model, images = tiny_model(FlaxViTClsModel, norm_position="after_readout", readout="mean"), pixels()
    outputs = model(images, output_hidden_states=True)
    np.testing.assert_array_equal(outputs.last_hidden_state, outputs.hidden_states[-1])
    mean = np.asarray(outputs.last_hidden_state[:, 1:].mean(axis=1))
    np.testing.assert_allclose(outputs.pooler_output, norm(mean, arrays(model.params["norm"])), atol=1e-5)


def test_without_a_final_norm_tokens_and_readout_are_as_the_last_block_gives_them():
    model = tiny_model(FlaxViTClsModel, norm_position="none", readout="mean")
    assert "norm" not in model.params
    outputs = model(pixels(), output_hidden_states=True)
    np.testing.assert_array_equal(outputs.last_hidden_state, outputs.hidden_states[-1])
    np.testing.assert_allclose(outputs.pooler_output, outputs.last_hidden_state[:, 1:].mean(axis=1), atol=1e-6)


def test_position_tokens_cover_what_they_say():
    shapes = {}
    for tokens in ("all", "patches"):
        config = tiny_config(position_embedding_tokens=tokens, num_register_tokens=2, use_distillation_token=True)
        tree = FlaxViTClsModel(config, _do_init=False).params_shape_tree
        shapes[tokens] = tree["embeddings"]["position_embedding"]["embedding"].shape
    assert shapes == {"all": (6, 16), "patches": (4, 16)}


def test_patch_padding_shifts_the_pixels_and_fills_with_zeros():
    plain, images = tiny_model(FlaxViTClsModel), pixels()
    padded = FlaxViTClsModel(tiny_config(patch_padding=1), _do_init=False)
    shifted = np.zeros_like(images)
    shifted[:, :, 1:, 1:] = images[:, :, :-1, :-1]
    outputs = padded(images, params=plain.params)
    np.testing.assert_array_equal(outputs.last_hidden_state, plain(shifted).last_hidden_state)


def test_several_cls_tokens_are_a_prefix_of_which_the_readout_is_the_mean():
    images = pixels()
    model = tiny_model(use_distillation_token=True, num_cls_tokens=3, num_register_tokens=2)
    params = model.params["vit_cls"]["embeddings"]
    assert params["cls_token"].shape == (3, 16)
    assert params["position_embedding"]["embedding"].shape == (3 + 1 + 4, 16)
    backbone = FlaxViTClsModel(model.config, _do_init=False)
    outputs = backbone(images, params=model.params["vit_cls"], output_hidden_states=True)
    table, first = params["position_embedding"]["embedding"], outputs.hidden_states[0]
    np.testing.assert_allclose(first[0, :3], params["cls_token"] + table[:3], atol=1e-7)
    np.testing.assert_allclose(first[0, 3:4], params["distillation_token"] + table[3:4], atol=1e-7)
    np.testing.assert_array_equal(first[0, 4:6], params["register_tokens"])
    tokens = np.asarray(outputs.last_hidden_state)
    assert tokens.shape == (2, 3 + 1 + 2 + 4, 16)
    np.testing.assert_allclose(outputs.pooler_output, tokens[:, :3].mean(axis=1), atol=1e-6)
    results, head = model(images), arrays(model.params["distillation_classifier"])  # only the tokens of the heads
    np.testing.assert_allclose(results.distillation_logits, tokens[:, 3] @ head["kernel"] + head["bias"], atol=1e-5)
    head = arrays(model.params["classifier"])
    np.testing.assert_allclose(
        results.cls_logits, np.asarray(outputs.pooler_output) @ head["kernel"] + head["bias"], atol=1e-5
    )


def test_several_cls_tokens_in_a_row_are_the_readout():
    model = tiny_model(readout="cls_concat", num_cls_tokens=3, num_register_tokens=2)
    backbone = FlaxViTClsModel(model.config, _do_init=False)
    outputs = backbone(pixels(), params=model.params["vit_cls"])
    np.testing.assert_array_equal(outputs.pooler_output, outputs.last_hidden_state[:, :3].reshape(2, 48))
    pooled, head = np.asarray(outputs.pooler_output), arrays(model.params["classifier"])
    logits = model(pixels()).logits  # of the last block only these tokens are computed
    np.testing.assert_allclose(logits, pooled @ head["kernel"] + head["bias"], atol=1e-5, rtol=1e-5)


def test_registers_have_no_position_and_stand_between_cls_and_patches():
    config = tiny_config(num_register_tokens=2)
    module = FlaxViTClsModule(config)
    variables = {"params": spread(module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"])}
    _, state = module.apply(variables, jnp.zeros((1, 8, 8, 3)), capture_intermediates=True)
    sequence = state["intermediates"]["embeddings"]["__call__"][0][0]
    embeddings = variables["params"]["embeddings"]
    table = embeddings["position_embedding"]["embedding"]
    np.testing.assert_array_equal(sequence[1:3], embeddings["register_tokens"])
    np.testing.assert_allclose(sequence[0], (embeddings["cls_token"] + table[:1])[0], atol=1e-7)


@pytest.mark.parametrize("act", ["gelu", "gelu_pytorch_tanh", "quick_gelu", "silu", "relu"])
def test_gated_mlp_is_the_formula(act):
    formulas = {
        "gelu": lambda x: x * (1 + np.asarray(jax.scipy.special.erf(x / np.sqrt(2)))) / 2,
        "gelu_pytorch_tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
        "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
        "silu": lambda x: x / (1 + np.exp(-x)),
        "relu": lambda x: np.maximum(x, 0),
    }
    module, x = Mlp(tiny_config(hidden_act=act), gated=True), pixels().reshape(2, 12, 16)
    p = arrays(spread(module.init(jax.random.key(0), x)["params"]))
    gate, up = (x @ p[name]["kernel"] + p[name]["bias"] for name in ("gate", "fc1"))
    expected = (formulas[act](gate) * up) @ p["fc2"]["kernel"] + p["fc2"]["bias"]
    np.testing.assert_allclose(module.apply({"params": p}, x), expected, atol=1e-5, rtol=1e-4)


def test_layer_scale_zero_would_be_the_identity():
    model, images = tiny_model(FlaxViTClsModel, layer_scale_init_value=0.5), pixels()
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * 0 if "layer_scale" in str(path) else leaf, model.params
    )
    states = model(images, params=params, output_hidden_states=True).hidden_states
    np.testing.assert_array_equal(states[0], states[-1])
    assert (
        FlaxViTClsModel(tiny_config(layer_scale_init_value=0.5)).params["encoder"]["layer_00"]["layer_scale1"][0] == 0.5
    )


@pytest.mark.parametrize("rate", ["hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"])
def test_dropout_of_each_kind_acts_in_training_alone(rate):
    model, images = tiny_model(**{rate: 0.5}), pixels(8)
    first, second = (model(images, train=True, dropout_rng=jax.random.PRNGKey(k)).logits for k in (0, 1))
    again = model(images, train=True, dropout_rng=jax.random.PRNGKey(0)).logits
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()
    np.testing.assert_array_equal(model(images).logits, model(images, dropout_rng=jax.random.PRNGKey(0)).logits)


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean():
    model, images = tiny_model(FlaxViTClsModel, drop_path_rate=0.5), np.repeat(pixels(1), 256, axis=0)
    states = model(images, train=True, dropout_rng=jax.random.PRNGKey(0), output_hidden_states=True).hidden_states
    first, last = states[1] - states[0], states[2] - states[1]
    assert (first == first[:1]).all(), "the rate grows from 0 at the first block"
    kinds = {tuple(np.round(row.ravel()[:4], 4)) for row in np.asarray(last)}
    assert len(kinds) == 4, "two branches, each kept or dropped for the whole image"
    untouched = (abs(last).max(axis=(1, 2)) == 0).mean()
    assert 0.15 < untouched < 0.35


def test_initial_values_are_what_the_config_says():
    params = FlaxViTClsModel(tiny_config(hidden_size=128, intermediate_size=512, initializer_range=0.02)).params
    block = params["encoder"]["layer_01"]
    for kernel in (block["mlp"]["fc1"]["kernel"], block["attention"]["query"]["kernel"]):
        assert abs(float(kernel.std()) - 0.02) < 0.0005
        assert abs(float(kernel.mean())) < 0.0005
        assert float(abs(kernel).max()) <= 2 * 0.02 / 0.8796  # cut at two deviations of the normal before the cut
    assert abs(float(params["embeddings"]["cls_token"].std()) - 0.02) < 0.004
    assert not block["mlp"]["fc1"]["bias"].any()
    assert (block["norm1"]["scale"] == 1).all()
    assert (
        block["attention"]["query"]["kernel"] != params["encoder"]["layer_00"]["attention"]["query"]["kernel"]
    ).any()


def test_sincos_table_is_the_formula():
    table = sincos2d_table((2, 3), 8)
    omega = [1, 1 / 10_000]
    for i, (y, x) in enumerate((y, x) for y in range(2) for x in range(3)):
        expected = [f(a * w) for a in (x, y) for f in (np.sin, np.cos) for w in omega]
        np.testing.assert_allclose(table[i], expected, atol=1e-6)


def test_rotary_scores_depend_on_the_distance_alone():
    rope = rope_table((4, 4), 8, theta=100.0)
    query, key = (np.broadcast_to(pixels()[i, 0, 0], (1, 1, 16, 8)) for i in (0, 1))
    scores = np.asarray(jnp.einsum("bhqd,bhkd->qk", rotate(query, rope, 0), rotate(key, rope, 0))).reshape(4, 4, 4, 4)
    np.testing.assert_allclose(scores[0, 0, 1, 2], scores[2, 1, 3, 3], atol=1e-4)
    np.testing.assert_allclose(scores[1, 2, 0, 1], scores[3, 3, 2, 2], atol=1e-4)
    assert abs(scores[0, 0, 1, 2] - scores[0, 0, 2, 1]) > 1e-3


def test_rotation_leaves_prefix_tokens():
    x = jnp.asarray(pixels().reshape(2, 2, 12, 8))
    turned = rotate(x, rope_table((2, 5), 8, 100.0), 2)
    np.testing.assert_array_equal(turned[:, :, :2], x[:, :, :2])
    for few in (1, 2, 5):
        np.testing.assert_array_equal(rotate(x[:, :, :few], rope_table((2, 5), 8, 100.0), 2), turned[:, :, :few])
    np.testing.assert_allclose(jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5)


@pytest.mark.parametrize("method", ["bicubic", "bicubic_antialias", "bilinear"])
def test_interpolation_keeps_what_it_must(method):
    table = np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32)
    assert resample_positions(table, (3, 4), (3, 4), method) is table
    larger = resample_positions(table, (3, 4), (5, 7), method)
    assert larger.shape == (35, 16)
    constant = resample_positions(jnp.ones((12, 16)), (3, 4), (2, 9), method)
    np.testing.assert_allclose(constant, 1, atol=1e-6)
    turned = resample_positions(table.reshape(3, 4, 16).swapaxes(0, 1).reshape(12, 16), (4, 3), (7, 5), method)
    np.testing.assert_allclose(turned.reshape(7, 5, 16).swapaxes(0, 1).reshape(35, 16), larger, atol=1e-5)


def test_relative_positions_have_one_row_for_each_offset():
    rows, columns = 2, 3
    pairs = relative_rows((rows, columns))
    assert pairs.shape == (7, 7)
    offsets = (2 * rows - 1) * (2 * columns - 1)
    assert pairs[0, 0] == offsets + 2
    assert set(pairs[0, 1:]) == {offsets}  # from [CLS] to a patch
    assert set(pairs[1:, 0]) == {offsets + 1}
    seen = {}
    for (i, query), (j, key) in itertools.product(enumerate(np.ndindex(rows, columns)), repeat=2):
        offset = (query[0] - key[0], query[1] - key[1])
        assert seen.setdefault(offset, pairs[1 + i, 1 + j]) == pairs[1 + i, 1 + j]
    assert [seen[offset] for offset in sorted(seen)] == list(range(offsets))  # from top left to bottom right


def test_relative_positions_are_added_to_the_scores():
    model = tiny_model(FlaxViTClsModel, position_embedding="relative", num_hidden_layers=1)
    maps, table = [], model.params["encoder"]["layer_00"]["relative_positions"]["embedding"]
    for scale in (0, 1):
        params = jax.tree.map(lambda leaf: leaf, model.params)
        params["encoder"]["layer_00"]["relative_positions"]["embedding"] = scale * table
        maps.append(model(pixels(), params=params, output_attentions=True).attentions[0])
    bias = np.asarray(table)[relative_rows((2, 2))].transpose(2, 0, 1)
    expected = np.asarray(maps[0]) * np.exp(bias)
    np.testing.assert_allclose(maps[1], expected / expected.sum(axis=-1, keepdims=True), atol=1e-6)


def test_relative_positions_of_another_grid_keep_the_rows_of_cls():
    table = np.random.default_rng(0).normal(size=(3 * 5 + 3, 2)).astype(np.float32)
    other = resample_relative(table, (2, 3), (4, 2), "bilinear")
    assert other.shape == (7 * 3 + 3, 2)
    np.testing.assert_array_equal(other[-3:], table[-3:])
    expected = resample_positions(table[:-3], (3, 5), (7, 3), "bilinear")
    np.testing.assert_array_equal(other[:-3], expected)
    np.testing.assert_array_equal(resample_relative(table, (2, 3), (2, 3), "bilinear"), table)


@pytest.mark.parametrize("corners", [False, True])
def test_cropped_positions_are_the_top_left_of_a_square(corners):
    table = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    found = resample_positions(table.reshape(16, 1), (4, 4), (2, 3), "cpe_align_corners" if corners else "cpe")
    centres = np.linspace(0, 3, 3) if corners else (np.arange(3) + 0.5) * 4 / 3 - 0.5
    rows = np.stack([np.interp(centres, np.arange(4), column) for column in table.T])  # (columns, 3)
    square = np.stack([np.interp(centres, np.arange(4), row) for row in rows.T])
    np.testing.assert_allclose(np.asarray(found).reshape(2, 3), square[:2], atol=1e-6)


@pytest.mark.parametrize("position_embedding", get_args(Positions))
def test_other_and_non_square_sizes_on_request(position_embedding):
    registers = int(position_embedding != "relative")
    model = tiny_model(position_embedding=position_embedding, num_register_tokens=registers)
    assert model(pixels(size=(12, 20)), interpolate_pos_encoding=True).logits.shape == (2, 5)
    native = model(pixels(), interpolate_pos_encoding=True).logits
    np.testing.assert_array_equal(native, model(pixels()).logits)


def test_key_bias_and_qkv_bias_are_independent():
    def biased(**overrides) -> set[str]:
        config = ViTClsConfig.from_variant("vit_cls_tiny_patch16_224", **overrides)
        tree = FlaxViTClsModel(config, _do_init=False).params_shape_tree["encoder"]["layer_03"]["attention"]
        return {name for name in tree if "bias" in tree[name]}

    assert biased() == {"query", "key", "value", "out"}
    assert biased(key_bias=False) == {"query", "value", "out"}
    assert biased(qkv_bias=False) == {"out"}
    assert biased(qkv_bias=False, key_bias=True) == {"key", "out"}


def test_pre_norm_acts_before_the_first_block():
    model = FlaxViTClsModel(tiny_config(pre_norm=True))
    first = model(10 + pixels(), output_hidden_states=True).hidden_states[0]
    np.testing.assert_allclose(first.mean(axis=-1), 0, atol=1e-5)
    np.testing.assert_allclose(first.std(axis=-1), 1, atol=1e-2)


def test_representation_layer_is_a_tanh_of_the_readout():
    images = pixels()
    model = tiny_model(FlaxViTClsModel, representation_size=6)
    outputs, layer = arrays(model(images)), arrays(model.params["representation"])
    expected = np.tanh(outputs.last_hidden_state[:, 0] @ layer["kernel"] + layer["bias"])
    np.testing.assert_allclose(outputs.pooler_output, expected, atol=1e-5)


def test_attention_pooling_is_the_formula():
    model, images = tiny_model(FlaxViTClsModel, readout="map"), pixels()
    outputs, p = arrays(model(images)), arrays(model.params["readout"]["attention_pooling"])
    tokens = outputs.last_hidden_state

    def linear(x, layer):
        return x @ layer["kernel"] + layer["bias"]

    query = linear(p["probe"], p["attention"]["query"]).reshape(2, 8)
    key, value = (linear(tokens, p["attention"][name]).reshape(2, 5, 2, 8) for name in ("key", "value"))
    weights = np.asarray(jax.nn.softmax(np.einsum("hd,bkhd->bhk", query, key) / np.sqrt(8)))
    x = linear(np.einsum("bhk,bkhd->bhd", weights, value).reshape(2, 16), p["attention"]["out"])
    hidden = np.asarray(jax.nn.gelu(linear(norm(x, p["norm"]), p["mlp"]["fc1"]), approximate=False))
    np.testing.assert_allclose(outputs.pooler_output, x + linear(hidden, p["mlp"]["fc2"]), atol=1e-4)


def test_distillation_heads_are_averaged():
    model, images = tiny_model(use_distillation_token=True), pixels()
    outputs = model(images)
    np.testing.assert_allclose(outputs.logits, (outputs.cls_logits + outputs.distillation_logits) / 2, atol=1e-6)
    backbone = FlaxViTClsModel(model.config, _do_init=False)
    tokens = np.asarray(backbone(images, params=model.params["vit_cls"]).last_hidden_state)
    head = arrays(model.params["distillation_classifier"])
    np.testing.assert_allclose(outputs.distillation_logits, tokens[:, 1] @ head["kernel"] + head["bias"], atol=1e-5)
