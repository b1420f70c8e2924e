"""ImageFeatureExtractionPipeline: features as transformers has them."""

import numpy as np
import pytest
from conftest import tiny_model
from embedded import pictures, small_backbone

from modeling_vit_cls import ConfigError, FlaxViTClsModel, ImageFeatureExtractionPipeline

pytestmark = pytest.mark.world


@pytest.fixture(scope="module")
def backbone() -> FlaxViTClsModel:
    return small_backbone()


def test_features_as_transformers_pipeline_gives_them(backbone):
    pipe = ImageFeatureExtractionPipeline(backbone, batch_size=2)
    assert pipe.task == "image-feature-extraction"
    images = [np.array(image) for image in pictures(3)["image"]]
    outputs = backbone(backbone.image_processor(images)["pixel_values"])
    tokens, pooled = pipe(images), pipe(images, pool=True)
    assert isinstance(tokens[0][0][0], float)
    np.testing.assert_allclose(tokens, outputs.last_hidden_state, atol=1e-5)
    np.testing.assert_allclose(pooled, outputs.pooler_output, atol=1e-5)
    array = pipe(images, pool=True, normalize=True, return_tensors=True)
    assert isinstance(array, np.ndarray)
    np.testing.assert_allclose(np.linalg.norm(array, axis=1), 1, atol=1e-6)
    (single,) = pipe(images[0], pool=True)
    np.testing.assert_allclose(single, pooled[0], atol=1e-5)
    assert pipe([]) == []
    always = ImageFeatureExtractionPipeline(backbone, pool=True, normalize=True, return_tensors=True)
    np.testing.assert_allclose(always(images), array, atol=1e-6)


def test_features_of_images_of_different_sizes_and_of_a_folder(tmp_path):
    model = tiny_model(FlaxViTClsModel, dynamic_image_size=True)
    processor = type(model.image_processor)(size={"max_num_patches": 16, "patch_size": 4})
    images = [np.full((*size, 3), 100, np.uint8) for size in [(8, 16), (16, 16)]]
    tokens = ImageFeatureExtractionPipeline(model, processor)(images, return_tensors=True)
    assert [array.shape for array in tokens] == [(16, 16), (17, 16)]
    tiny_model().save_pretrained(tmp_path / "classifier")
    assert np.shape(ImageFeatureExtractionPipeline(tmp_path / "classifier")(images, pool=True)) == (2, 16)
    with pytest.raises(ConfigError, match="must be a FlaxViTClsModel"):
        ImageFeatureExtractionPipeline(tiny_model())
