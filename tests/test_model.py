"""The two models as users call them: under every transformation, in training loops, and wrongly."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import transformers
from conftest import pixels, tiny_config, tiny_model
from flax.core import freeze
from flax.training.common_utils import onehot
from flax.training.train_state import TrainState

from modeling_vit_cls import (
    BadImageError,
    ConfigError,
    FlaxAutoModel,
    FlaxAutoModelForImageClassification,
    FlaxPreTrainedModel,
    FlaxViTClsForImageClassification,
    FlaxViTClsModel,
    ImageClassificationPipeline,
    ViTClsImageProcessor,
)
from modeling_vit_cls.images.sources import load_images
from modeling_vit_cls.training import FlaxTrainer, TrainingArguments

pytestmark = pytest.mark.world


def test_outputs_are_named_indexed_and_pytrees(model):
    outputs = model(pixels(), output_hidden_states=True, output_attentions=True)
    assert list(outputs.keys()) == ["logits", "hidden_states", "attentions"]
    assert outputs[0] is outputs.logits is outputs["logits"]
    assert [state.shape for state in outputs.hidden_states] == [(2, 5, 16)] * 3
    assert [map.shape for map in outputs.attentions] == [(2, 2, 5, 5)] * 2
    np.testing.assert_allclose(outputs.attentions[1].sum(axis=-1), 1, atol=1e-5)
    assert len(jax.tree.leaves(outputs)) == 6
    doubled = jax.tree.map(lambda leaf: 2 * leaf, outputs)
    np.testing.assert_array_equal(doubled.logits, 2 * outputs.logits)
    assert model(pixels(), return_dict=False)[0].shape == (2, 5)
    assert list(model(pixels()).keys()) == ["logits"]


def test_the_config_can_ask_for_states_and_tuples():
    model = FlaxViTClsModel(tiny_config(output_hidden_states=True))
    assert list(model(pixels()).keys()) == ["last_hidden_state", "pooler_output", "hidden_states"]


def test_class_attributes_and_properties(model):
    for kind in (FlaxViTClsModel, FlaxViTClsForImageClassification):
        assert issubclass(kind, FlaxPreTrainedModel)
        assert (kind.base_model_prefix, kind.main_input_name) == ("vit_cls", "pixel_values")
    assert isinstance(model, FlaxPreTrainedModel)
    assert model.framework == "flax"
    assert model.num_parameters() == sum(leaf.size for leaf in jax.tree.leaves(model.params))
    assert ("vit_cls", "embeddings", "cls_token") in model.required_params
    assert jax.tree.map(jnp.shape, model.params) == jax.tree.map(lambda s: s.shape, model.params_shape_tree)
    if hasattr(transformers, "FlaxPreTrainedModel"):
        assert isinstance(model, transformers.FlaxPreTrainedModel)
        assert issubclass(FlaxAutoModel, transformers.FlaxAutoModel)
        assert issubclass(FlaxAutoModelForImageClassification, transformers.FlaxAutoModelForImageClassification)


def test_jit_vmap_and_no_jit_agree(model):
    images = pixels(3)
    expected = model(images).logits
    np.testing.assert_allclose(jax.jit(lambda x: model(x).logits)(images), expected, atol=1e-5)
    alone = jax.vmap(lambda x: model(x[None]).logits[0])(images)
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    with jax.disable_jit():
        np.testing.assert_allclose(model(images).logits, expected, atol=1e-5)
    np.testing.assert_allclose(jax.pmap(lambda x: model(x).logits)(images[None])[0], expected, atol=1e-5)
    np.testing.assert_allclose(model(images[1:2]).logits[0], expected[1], atol=1e-5)
    np.testing.assert_allclose(model(images, params=freeze(model.params)).logits, expected, atol=1e-6)


def test_gradient_is_the_slope(model):
    images = pixels()

    def loss(params):
        return (model(images, params=params).logits ** 2).mean()

    gradient = jax.grad(loss)(model.params)
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient)), "every parameter is used"
    direction = jax.tree.map(lambda leaf: leaf / optax.tree.norm(gradient), gradient)
    shifted = [jax.tree.map(lambda p, d: p + s * d, model.params, direction) for s in (1e-2, -1e-2)]  # noqa: B023
    slope = (loss(shifted[0]) - loss(shifted[1])) / 2e-2
    np.testing.assert_allclose(slope, optax.tree.norm(gradient), rtol=2e-2)


@pytest.mark.parametrize(
    "overrides", [{"position_embedding": "rope", "num_register_tokens": 1}, {"drop_path_rate": 0.1}]
)
def test_gradient_checkpointing_changes_no_number(overrides):
    model, images, key = tiny_model(**overrides), pixels(), jax.random.PRNGKey(0)

    def loss(params):
        return (model(images, params=params, train=True, dropout_rng=key).logits ** 2).mean()

    before = jax.grad(loss)(model.params)
    assert "remat" not in str(jax.make_jaxpr(jax.grad(loss))(model.params))
    model.enable_gradient_checkpointing()
    assert model.with_readout("mean").module.gradient_checkpointing
    assert "remat" in str(jax.make_jaxpr(jax.grad(loss))(model.params))
    for ours, theirs in zip(jax.tree.leaves(jax.grad(loss)(model.params)), jax.tree.leaves(before)):
        np.testing.assert_allclose(ours, theirs, atol=1e-6, rtol=1e-4)


def test_train_state_loop_as_in_transformers_flax_examples():
    """The loop of transformers' run_image_classification.py for Flax: apply_fn is the model's call."""

    class State(TrainState):
        dropout_rng: jax.Array

    model = FlaxViTClsForImageClassification(tiny_config(hidden_dropout_prob=0.1, drop_path_rate=0.1, num_labels=2))
    state = State.create(
        apply_fn=model.__call__, params=model.params, tx=optax.adamw(3e-3), dropout_rng=jax.random.PRNGKey(0)
    )
    labels = np.arange(16) % 2
    batch = {"pixel_values": pixels(16) * 0.3 + labels[:, None, None, None], "labels": labels}

    def train_step(state, batch):
        dropout_rng, new_rng = jax.random.split(state.dropout_rng)

        def compute_loss(params):
            labels = batch.pop("labels")
            logits = state.apply_fn(**batch, params=params, dropout_rng=dropout_rng, train=True)[0]
            return optax.softmax_cross_entropy(logits, onehot(labels, logits.shape[-1])).mean()

        loss, gradient = jax.value_and_grad(compute_loss)(state.params)
        return state.apply_gradients(grads=gradient, dropout_rng=new_rng), loss

    step, losses = jax.jit(train_step, donate_argnums=0), []
    for _ in range(30):
        state, loss = step(state, dict(batch))
        losses.append(float(loss))
    assert losses[-1] < 0.2 < losses[0]
    accuracy = (model(batch["pixel_values"], params=state.params).logits.argmax(axis=-1) == labels).mean()
    assert accuracy == 1


@pytest.mark.parametrize("dtype", ["bfloat16", jnp.bfloat16, jnp.float16])
def test_half_precision_computes_near_float32(model, dtype):
    half = FlaxViTClsForImageClassification(model.config, dtype=dtype, _do_init=False)
    logits = half(pixels(), params=model.params).logits
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, model(pixels()).logits, atol=0.1)
    assert half(pixels(), params=model.params, output_hidden_states=True).hidden_states[0].dtype == jnp.dtype(dtype)


def test_casts_are_copies_and_keep_what_the_mask_says(model):
    mask = jax.tree.map(lambda _: True, model.params)
    mask["classifier"]["kernel"] = False
    cast = model.to_bf16(model.params, mask)
    assert cast["classifier"]["kernel"].dtype == jnp.float32
    assert cast["classifier"]["bias"].dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(model.to_fp16(model.params))} == {jnp.dtype("float16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(model.to_fp32(cast))} == {jnp.dtype("float32")}
    assert model(pixels(), params=cast).logits.shape == (2, 5)


def test_without_init_parameters_are_the_callers():
    model = FlaxViTClsForImageClassification(tiny_config(), _do_init=False)
    with pytest.raises(ValueError, match="_do_init=False"):
        _ = model.params
    with pytest.raises(ValueError, match="_do_init=False"):
        model.params = {}
    params = model.init_weights(jax.random.PRNGKey(0), model.input_shape)
    same = FlaxViTClsForImageClassification(tiny_config(), seed=0)
    np.testing.assert_array_equal(model(pixels(), params=params).logits, same(pixels()).logits)
    partial = {"vit_cls": params["vit_cls"]}
    completed = model.init_weights(jax.random.PRNGKey(1), model.input_shape, params=partial)
    assert completed["vit_cls"]["norm"]["scale"] is params["vit_cls"]["norm"]["scale"]
    assert (completed["classifier"]["kernel"] != params["classifier"]["kernel"]).any()


def test_setting_parameters_checks_that_none_is_missing():
    model = FlaxViTClsForImageClassification(tiny_config())
    with pytest.raises(ValueError, match=r"classifier\.bias"):
        model.params = {**model.params, "classifier": {"kernel": model.params["classifier"]["kernel"]}}
    with pytest.raises(ConfigError, match="params=None: must be a nested dict"):
        model.params = None
    with pytest.raises(ConfigError, match=r"input_shape=\(1, 3, 8, 8\).* such as \(1, 8, 8, 3\)"):
        FlaxViTClsForImageClassification(tiny_config(), input_shape=(1, 3, 8, 8))
    with pytest.raises(ConfigError, match="dtype='garbage'"):
        FlaxViTClsForImageClassification(tiny_config(), dtype="garbage")
    with pytest.raises(ConfigError, match="config"):
        FlaxViTClsForImageClassification({"hidden_size": 16})


@pytest.mark.parametrize(("readout", "new"), [("mean", set()), ("cls_mean", {"classifier"}), ("map", {"pooling"})])
def test_with_readout_shares_all_but_a_head_of_another_width(model, readout, new):
    other = model.with_readout(readout)
    assert (model.config.readout, other.config.readout) == ("cls", readout)
    assert other(pixels()).logits.shape == (2, 5)
    before = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(model.params)}
    after = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(other.params)}
    changed = {name for name in after if name not in before or (before[name].shape != after[name].shape)}
    assert all(any(word in name for word in new) for name in changed)
    assert bool(changed) == bool(new)
    for name in set(before) & set(after):
        if not any(word in name for word in new):
            np.testing.assert_array_equal(before[name], after[name])


def test_models_are_copied_and_pickled(model):
    expected = model(pixels()).logits
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other(pixels()).logits, expected)


def test_auto_classes_build_from_a_config():
    assert isinstance(FlaxAutoModel.from_config(tiny_config()), FlaxViTClsModel)
    model = FlaxAutoModelForImageClassification.from_config(tiny_config())
    assert isinstance(model, FlaxViTClsForImageClassification)
    with pytest.raises(ValueError, match="BertConfig"):
        FlaxAutoModelForImageClassification.from_config(transformers.BertConfig())


GOOD = pixels()


class Tensor:
    """What an image processor returns with return_tensors="pt": a shape, and a dtype that NumPy does not know."""

    shape, dtype, numpy = GOOD.shape, "torch.float32", GOOD.copy


WRONG_CALLS = {
    "no batch axis": (GOOD[0], "add one in front"),
    "five axes": (GOOD[None], "a batch has 4 axes"),
    "one axis": (GOOD.ravel(), "a batch has 4 axes"),
    "scalar": (np.float32(1), "a batch has 4 axes"),
    "nhwc": (GOOD.transpose(0, 2, 3, 1), r"transpose it by \(0, 3, 1, 2\)"),
    "grey": (GOOD[:, :1], "axis 1 holds the channels"),
    "four channels": (pixels(channels=4), "axis 1 holds the channels"),
    "empty batch": (GOOD[:0], "the batch is empty"),
    "no pixels": (GOOD[..., :0], "the batch is empty"),
    "larger": (pixels(size=(16, 16)), "interpolate_pos_encoding=True"),
    "one pixel more": (pixels(size=(9, 8)), "interpolate_pos_encoding=True"),
    "same count of patches": (pixels(size=(4, 16)), "interpolate_pos_encoding=True"),
    "smaller than a patch": (pixels(size=(3, 3)), "interpolate_pos_encoding=True"),
    "uint8": ((GOOD * 50).astype(np.uint8), "ViTClsImageProcessor"),
    "int32": (GOOD.astype(np.int32), "ViTClsImageProcessor"),
    "bool": (GOOD > 0, "ViTClsImageProcessor"),
    "complex": (GOOD.astype(np.complex64), "ViTClsImageProcessor"),
    "list": (GOOD.tolist(), "got list"),
    "none": (None, "got NoneType"),
    "text": ("cat.png", "got str"),
    "of PyTorch": (Tensor(), r"got Tensor .*x\.numpy\(\)"),
    "features": ({"pixel_values": GOOD}, r"got dict .*model\(\*\*features\)"),
}


ARRAYS = [name for name, (value, _) in WRONG_CALLS.items() if isinstance(value, np.ndarray)]  # all that jit takes


@pytest.mark.parametrize(("name", "jitted"), [(n, False) for n in WRONG_CALLS] + [(n, True) for n in ARRAYS])
def test_wrong_call_says_what_was_expected_and_what_came(model, name, jitted):
    value, words = WRONG_CALLS[name]
    call = jax.jit(lambda x: model(x).logits) if jitted else model
    with pytest.raises(BadImageError, match=words) as error:
        call(value)
    assert "expected pixel_values of shape (batch, 3, 8, 8)" in str(error.value)
    if not jitted:
        with pytest.raises(BadImageError, match=words):
            model.forward_intermediates(value)


def test_other_size_must_still_be_whole_patches(model):
    with pytest.raises(BadImageError, match="multiples of patch_size=4"):
        model(pixels(size=(10, 8)), interpolate_pos_encoding=True)


def test_training_without_a_key_is_refused_where_it_would_do_nothing():
    with pytest.raises(ConfigError, match="dropout_rng"):
        tiny_model(hidden_dropout_prob=0.1)(pixels(), train=True)
    assert tiny_model()(pixels(), train=True).logits.shape == (2, 5)


def test_float64_and_bfloat16_pixels_are_taken(model):
    expected = model(pixels()).logits
    np.testing.assert_allclose(model(pixels().astype(np.float64)).logits, expected, atol=1e-6)
    np.testing.assert_allclose(model(jnp.asarray(pixels(), jnp.bfloat16)).logits, expected, atol=0.1)


def test_pipeline_gives_labels_and_scores(model):
    images = [np.random.default_rng(i).integers(0, 256, (9, 11, 3), dtype=np.uint8) for i in range(5)]
    pipeline = ImageClassificationPipeline(model, batch_size=2)
    found = pipeline(images)
    logits = model(model.image_processor(images)["pixel_values"]).logits
    for row, predictions in zip(jax.nn.softmax(logits), found):
        assert [p["label"] for p in predictions] == [f"LABEL_{i}" for i in np.argsort(-row)]
        assert sum(p["score"] for p in predictions) == pytest.approx(1)
    single = pipeline(images[0], top_k=2)
    assert [len(row) for row in single] == [2]
    assert single[0][0]["score"] == pytest.approx(found[0][0]["score"], abs=1e-6)
    many = ImageClassificationPipeline(tiny_model(num_labels=7))
    best, every = many(images[0])[0], many(images[0], top_k=None)[0]
    assert (best, len(every)) == (every[:5], 7), "five labels by default, as in transformers"
    assert [row for _, row in many.iterate(images[:1])] == [best]
    assert pipeline.task == "image-classification"
    for wrong in ({"top_k": 0}, {"top_k": -1}):
        with pytest.raises(ConfigError, match="top_k"):
            pipeline(images, **wrong)
    with pytest.raises(ConfigError, match="batch_size"):
        ImageClassificationPipeline(model, batch_size=0)
    with pytest.raises(ConfigError, match="model"):
        ImageClassificationPipeline(FlaxViTClsModel(tiny_config()))


class Tempered(FlaxViTClsForImageClassification):
    """Logits divided by a temperature, which every constructor must be given."""

    def __init__(self, config, temperature, **kwargs):
        super().__init__(config, **kwargs)
        self.temperature = temperature


def test_copies_of_a_subclass_keep_its_attributes(tmp_path):
    model = Tempered(tiny_config(num_channels=1, num_labels=10), 50.0)
    model.enable_gradient_checkpointing()
    other = model.with_readout("mean")
    assert (type(other), other.temperature, other.config.readout) == (Tempered, 50.0, "mean")
    assert (model.config.readout, other.module.gradient_checkpointing) == ("cls", True)
    digits = load_images("digits", "test").select(range(20))
    how = {"max_steps": 2, "bf16": True, "load_best_model_at_end": True, "disable_tqdm": True}
    how |= dict.fromkeys(("eval_strategy", "save_strategy"), "steps") | {"eval_steps": 1, "save_steps": 1}
    trainer = FlaxTrainer(model, TrainingArguments(str(tmp_path), **how), digits, digits)
    trainer.train()
    assert model.without_params("bfloat16").temperature == trainer.model.temperature == 50.0


@pytest.mark.parametrize("name", ["__call__", "preprocess"])
def test_what_training_would_not_call_is_refused(name, tmp_path):
    def own(self, *args, **kwargs):
        return super(type(self), self).__call__(*args, **kwargs)

    model = FlaxViTClsForImageClassification(tiny_config(num_channels=1, num_labels=10))
    processor = type("OwnProcessor", (ViTClsImageProcessor,), {name: own}).for_config(model.config)
    with pytest.raises(ConfigError, match=f"processing_class='OwnProcessor': has its own {name}"):
        FlaxTrainer(model, TrainingArguments(str(tmp_path)), processing_class=processor)
    own_model = type("OwnModel", (FlaxViTClsForImageClassification,), {"__call__": own})(model.config)
    with pytest.raises(ConfigError, match="model='OwnModel': has its own __call__"):
        FlaxTrainer(own_model, TrainingArguments(str(tmp_path)))
