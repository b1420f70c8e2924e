"""Zero-shot classifiers: logits of the source's images and texts, a model as any other, errors that name what."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_same, pixels, read_npz, tiny_model
from test_families import GOLDEN, distance

from modeling_vit_cls import (
    ConfigError,
    FlaxAutoModelForImageClassification,
    FlaxViTClsForImageClassification,
    FlaxViTClsModel,
    ImageClassificationPipeline,
    ViTClsConfig,
    export_pretrained,
)
from modeling_vit_cls.evaluation.benchmark import benchmark
from modeling_vit_cls.images.sources import load_images

pytestmark = pytest.mark.world

LABELS = ["cat", "dog", "cow", "ewe", "hen"]


def zero_shot(name: str) -> tuple[FlaxViTClsForImageClassification, dict[str, np.ndarray]]:
    """A classifier from the image tower and the texts of a golden folder, and what the whole model gives."""
    arrays = read_npz(GOLDEN / name / "expected.npz")
    expected = {key.partition(".")[2]: arrays[key] for key in arrays if key.startswith("zero_shot.")}
    lengths = np.linspace(0.5, 3, 5)[:, None]  # which do not matter
    backbone = FlaxViTClsModel.from_pretrained(GOLDEN / name)
    model = FlaxViTClsForImageClassification.from_text_embeddings(
        backbone, expected["texts"] * lengths, LABELS, expected["scale"], expected.get("bias")
    )
    return model, {**expected, "pixels": arrays["native.pixels"]}


@pytest.mark.parametrize("name", ["clip_model", "siglip_text_model"])
def test_logits_are_those_of_the_whole_model(name, tmp_path):
    model, expected = zero_shot(name)
    assert (expected.get("bias") is None) == (name == "clip_model")
    assert distance(model(expected["pixels"]).logits, expected["logits"]) < 1e-5
    model.save_pretrained(tmp_path)
    for loaded in (FlaxAutoModelForImageClassification, FlaxViTClsForImageClassification):
        again = loaded.from_pretrained(tmp_path)
        assert_same(again.params, model.params)
        assert again.config.id2label == dict(enumerate(LABELS))
        np.testing.assert_array_equal(again(expected["pixels"]).logits, model(expected["pixels"]).logits)


def from_texts(embeddings=None, labels=("a", "b", "c"), scale=10.0, bias=None, **overrides):
    backbone = tiny_model(FlaxViTClsModel, **overrides)
    if embeddings is None:
        embeddings = np.random.default_rng(0).normal(size=(len(labels), backbone.config.embedding_size))
    return FlaxViTClsForImageClassification.from_text_embeddings(backbone, embeddings, labels, scale, bias)


@pytest.mark.parametrize(
    "overrides", [{}, {"projection_size": 7}, {"representation_size": 6, "readout": "cls_mean"}, {"readout": "map"}]
)
def test_logits_are_scaled_cosines(overrides):
    texts = np.random.default_rng(0).normal(
        size=(3, ViTClsConfig(**overrides, hidden_size=16, num_attention_heads=2).embedding_size)
    )
    model = from_texts(texts, bias=-2.0, scale=5.0, **overrides)
    backbone = FlaxViTClsModel(model.config, params=model.params["vit_cls"])
    images = np.asarray(backbone.get_image_features(pixels()))
    lengths = np.linalg.norm(images, axis=1)[:, None] * np.linalg.norm(texts, axis=1)
    np.testing.assert_allclose(model(pixels()).logits, 5 * images @ texts.T / lengths - 2, atol=1e-5)
    with_maps = model(pixels(), output_hidden_states=True).logits
    np.testing.assert_allclose(with_maps, model(pixels()).logits, atol=1e-5)


def test_the_backbone_s_recomputation_is_kept():
    backbone = tiny_model(FlaxViTClsModel)
    backbone.enable_gradient_checkpointing()
    texts = np.eye(2, backbone.config.embedding_size)
    classifier = FlaxViTClsForImageClassification.from_text_embeddings(backbone, texts, ["a", "b"], scale=1)
    assert classifier.module.gradient_checkpointing


def test_an_image_that_is_its_text_has_the_logit_of_the_scale():
    backbone = tiny_model(FlaxViTClsModel, projection_size=7)
    texts = backbone.get_image_features(pixels(3))
    model = FlaxViTClsForImageClassification.from_text_embeddings(backbone, texts, ["a", "b", "c"], 100.0)
    logits = np.asarray(model(pixels(3)).logits)
    np.testing.assert_allclose(np.diag(logits), 100, rtol=1e-5)
    assert (logits.argmax(axis=1) == [0, 1, 2]).all()


def test_pipeline_benchmark_and_training_take_it():
    names = [str(number) for number in range(10)]
    model = from_texts(labels=names, num_channels=1, projection_size=7)
    digits = load_images("digits", "test").select(range(20))
    (predictions,) = ImageClassificationPipeline(model)([digits[0]["image"]], top_k=None)
    assert {row["label"] for row in predictions} == set(names)
    assert sum(row["score"] for row in predictions) == pytest.approx(1)
    assert benchmark(model, digits, disable_tqdm=True)["examples"] == 20

    images, labels = jnp.asarray(pixels(10, channels=1)), jnp.arange(10)

    @jax.jit
    def loss(params):
        logits = model.module.apply({"params": params}, images.transpose(0, 2, 3, 1)).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    gradient = jax.jit(jax.grad(loss))(model.params)
    for name in ("kernel", "bias"):
        assert abs(gradient["classifier"][name]).max() > 0
    assert abs(gradient["vit_cls"]["projection"]["kernel"]).max() > 0
    stepped = jax.tree.map(lambda leaf, slope: leaf - 1e-3 * slope, model.params, gradient)
    assert loss(stepped) < loss(model.params)


def test_it_is_fine_tuned_with_new_classes_or_as_a_plain_classifier(tmp_path):
    from_texts(projection_size=7).save_pretrained(tmp_path)
    _, report = FlaxViTClsForImageClassification.from_pretrained(tmp_path, num_labels=4, output_loading_info=True)
    assert sorted(report.new_keys) == ["classifier.bias", "classifier.kernel"]
    plain, report = FlaxViTClsForImageClassification.from_pretrained(
        tmp_path, classifier_input="readout", output_loading_info=True
    )
    assert sorted(report.new_keys) == ["classifier.bias", "classifier.kernel"]  # of the readout's width
    assert plain.params["classifier"]["kernel"].shape == (16, 3)
    backbone = FlaxViTClsModel.from_pretrained(tmp_path)
    assert backbone(pixels()).image_embeds.shape == (2, 7)


@pytest.mark.parametrize(("to", "field"), [("transformers", "num_labels"), ("timm", "projection_size")])
def test_other_libraries_have_no_such_classifier_of_clip(to, field, tmp_path):
    model, _ = zero_shot("clip_model")
    with pytest.raises(ConfigError, match=f"^{field}="):
        export_pretrained(model, tmp_path / "out", to)


@pytest.mark.parametrize("to", ["transformers", "timm"])
def test_other_libraries_have_no_classifier_of_a_unit_vector(to, tmp_path):
    with pytest.raises(ConfigError, match="^classifier_input="):
        export_pretrained(from_texts(layer_norm_eps=1e-12 if to == "transformers" else 1e-6), tmp_path / "out", to)
    assert not Path(tmp_path / "out").exists()
    backbone = FlaxViTClsModel(from_texts().config, params=from_texts().params["vit_cls"])
    export_pretrained(backbone, tmp_path / "backbone", to)


ZEROS = np.zeros((3, 16))


@pytest.mark.parametrize(
    ("wrong", "field", "message"),
    [
        ({"embeddings": np.ones((3, 7))}, "embeddings", r"must have shape \(3, 16\)"),
        ({"embeddings": np.ones((2, 16))}, "embeddings", r"must have shape \(3, 16\)"),
        ({"embeddings": np.ones(16)}, "embeddings", "must have shape"),
        ({"embeddings": ZEROS}, "embeddings", "length 0"),
        ({"embeddings": ZEROS + np.nan}, "embeddings", "length nan"),
        ({"labels": ["a", "b", "a"]}, "labels", "different texts"),
        ({"labels": ["a", "b", 3]}, "labels", "different texts"),
        ({"labels": []}, "labels", "different texts"),
        ({"scale": 0}, "scale", "above 0"),
        ({"scale": -1.0}, "scale", "above 0"),
        ({"scale": "100"}, "scale", "finite"),
        ({"scale": np.ones(2)}, "scale", "finite"),
        ({"scale": float("nan")}, "scale", "finite"),
        ({"bias": float("inf")}, "bias", "finite"),
    ],
)
def test_what_does_not_fit_is_named(wrong, field, message):
    with pytest.raises(ConfigError, match=message) as error:
        from_texts(**wrong)
    assert error.value.field == field


def test_only_a_backbone_and_no_distillation_head(model):
    with pytest.raises(ConfigError, match="must be a FlaxViTClsModel"):
        FlaxViTClsForImageClassification.from_text_embeddings(model, np.ones((1, 16)), ["a"], 1.0)
    with pytest.raises(ConfigError, match="distillation head"):
        from_texts(use_distillation_token=True)


def test_the_field_changes_no_digest_of_earlier_checkpoints():
    """Their files were digested before there was such a field."""
    from modeling_vit_cls.files.digests import architecture_digest

    plain = ViTClsConfig.from_variant("vit_cls_tiny_patch16_224")
    assert architecture_digest(plain) == EARLIER
    assert (
        architecture_digest(ViTClsConfig.from_variant("vit_cls_tiny_patch16_224", classifier_input="unit_embedding"))
        != EARLIER
    )


EARLIER = "4de297b6bf261c177387692f2588965a"
