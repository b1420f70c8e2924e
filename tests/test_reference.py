"""The seed's function and the model against the NumPy forward pass of reference.py."""

import jax
import numpy as np
import pytest
import reference
from conftest import spread

from modeling_vit_cls import ConfigError, FlaxViTClsForImageClassification, ViTClsConfig, vit_cls_forward

SEED_EXAMPLE = {"patch_size": 2, "d_model": 8, "num_heads": 2, "d_ff": 16, "num_layers": 2, "num_classes": 10}
SIZES = [
    ((4, 4, 3), SEED_EXAMPLE),
    ((6, 9, 1), {"patch_size": 3, "d_model": 12, "num_heads": 3, "d_ff": 20, "num_layers": 1, "num_classes": 1}),
    ((8, 4, 4), {"patch_size": 4, "d_model": 20, "num_heads": 1, "d_ff": 8, "num_layers": 3, "num_classes": 7}),
    ((5, 5, 2), {"patch_size": 5, "d_model": 16, "num_heads": 16, "d_ff": 64, "num_layers": 2, "num_classes": 3}),
]


def config_of(shape, sizes) -> ViTClsConfig:
    return ViTClsConfig(
        image_size=shape[:2],
        num_channels=shape[2],
        patch_size=sizes["patch_size"],
        hidden_size=sizes["d_model"],
        num_attention_heads=sizes["num_heads"],
        intermediate_size=sizes["d_ff"],
        num_hidden_layers=sizes["num_layers"],
        num_labels=sizes["num_classes"],
    )


def image_of(shape) -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def test_shapes_of_the_seeds_walk_through():
    image = image_of((4, 4, 3))
    model = FlaxViTClsForImageClassification(config_of(image.shape, SEED_EXAMPLE))
    shapes = []
    reference.forward(image, model.params, heads=2, shapes=shapes)
    assert shapes == [(4, 8), (5, 8), (8,)]
    _, state = model.module.apply({"params": model.params}, image[None], capture_intermediates=True)
    seen = state["intermediates"]["vit_cls"]
    assert seen["embeddings"]["patch_embedding"]["__call__"][0].shape == (1, 4, 8)
    assert seen["embeddings"]["__call__"][0].shape == (1, 5, 8)
    assert seen["readout"]["__call__"][0].shape == (1, 8)
    assert model.params["vit_cls"]["embeddings"]["cls_token"].shape == (1, 8)
    assert model.params["vit_cls"]["embeddings"]["position_embedding"]["embedding"].shape == (5, 8)


@pytest.mark.parametrize(("shape", "sizes"), SIZES)
def test_vit_cls_forward_is_the_seeds(shape, sizes):
    image = image_of(shape)
    logits = vit_cls_forward(7, image, **sizes)
    params = FlaxViTClsForImageClassification(config_of(shape, sizes), seed=7).params
    assert logits.shape == (sizes["num_classes"],)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, reference.forward(image, params, sizes["num_heads"]), atol=1e-5)


@pytest.mark.parametrize(("shape", "sizes"), SIZES)
def test_model_with_parameters_far_from_initial(shape, sizes):
    images = np.stack([image_of(shape), 2 * image_of(shape)])
    model = FlaxViTClsForImageClassification(config_of(shape, sizes))
    model.params = spread(model.params, 0.2)
    expected = [reference.forward(image, model.params, sizes["num_heads"]) for image in images]
    np.testing.assert_allclose(model(images.transpose(0, 3, 1, 2)).logits, np.stack(expected), atol=1e-5, rtol=1e-5)


def test_same_seed_same_logits_other_seed_other_logits():
    image = image_of((4, 4, 3))
    first, again, other = (vit_cls_forward(seed, image, **SEED_EXAMPLE) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).all()


def test_vit_cls_forward_under_jit_and_vmap():
    images = np.stack([image_of((4, 4, 3))] * 3) * np.arange(1, 4, dtype=np.float32).reshape(3, 1, 1, 1)
    function = jax.jit(jax.vmap(lambda image: vit_cls_forward(0, image, **SEED_EXAMPLE)))
    expected = [vit_cls_forward(0, image, **SEED_EXAMPLE) for image in images]
    np.testing.assert_allclose(function(images), np.stack(expected), atol=1e-6)


def test_contradictions_are_named():
    with pytest.raises(ConfigError, match="hidden_size=9: must be a multiple of num_attention_heads=2"):
        vit_cls_forward(0, image_of((4, 4, 3)), **{**SEED_EXAMPLE, "d_model": 9})
    with pytest.raises(ConfigError, match=r"image_size=\(5, 4\): each side must be a multiple of patch_size=2"):
        vit_cls_forward(0, image_of((5, 4, 3)), **SEED_EXAMPLE)
