"""Another patch size: the patch embedding that sees resized patches as it saw the original ones, and timm's numbers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import pixels, read_npz
from safetensors.numpy import load_file, save_file

from modeling_vit_cls import CheckpointError, ConfigError, FlaxViTClsForImageClassification
from modeling_vit_cls.nn.resampling import resample_patch_kernel

GOLDEN = Path(__file__).parent / "golden"
KERNEL = "embeddings.patch_embedding.projection.kernel"
POSITIONS = "embeddings.position_embedding.embedding"
SIDES = [(16, 8), (8, 16), (16, 14), (14, 16), (4, 7), (5, 1), (1, 3)]


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def load(folder, **overrides):
    return FlaxViTClsForImageClassification.from_pretrained(folder, output_loading_info=True, **overrides)


def random_kernel(side: int) -> np.ndarray:
    return np.random.default_rng(side).normal(size=(side, side, 3, 5)).astype(np.float32)


def resize(patches, side: int):
    """Patches (B, P, P, C) at another size: what x -> B x of the paper is here."""
    return jax.image.resize(patches, (len(patches), side, side, patches.shape[-1]), "bicubic", antialias=True)


def embed(patches, kernel) -> np.ndarray:
    return np.einsum("bhwc,hwcd->bd", patches, kernel)


@pytest.mark.parametrize(("old", "new"), [sides for sides in SIDES if sides[0] <= sides[1]])
def test_enlarged_patches_have_the_same_embedding(old, new):
    patches, kernel = pixels(4, (old, old)).transpose(0, 2, 3, 1), random_kernel(old)
    resampled = resample_patch_kernel(kernel, new)
    assert (resampled.shape, resampled.dtype) == ((new, new, 3, 5), kernel.dtype)
    expected = embed(patches, kernel)
    np.testing.assert_allclose(embed(resize(patches, new), resampled), expected, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize(("old", "new"), [sides for sides in SIDES if sides[0] > sides[1]])
def test_reduced_patches_have_the_nearest_embedding_there_is(old, new):
    """Nearest in the mean over white noise: of what is left of the old kernel, no reduced patch sees anything."""
    kernel = random_kernel(old)
    resampled = resample_patch_kernel(kernel, new)
    points = np.eye(old * old, dtype=np.float32).reshape(-1, old, old, 1)
    by_way_of_reducing = np.einsum("nhw,hwcd->ncd", resize(points, new)[..., 0], resampled)  # B^T w'
    rest = kernel - by_way_of_reducing.reshape(kernel.shape)
    np.testing.assert_allclose(resize(rest.transpose(2, 0, 1, 3), new), 0, atol=1e-5)
    assert (rest**2).sum() < (kernel**2).sum()


def test_the_same_size_changes_nothing():
    kernel = random_kernel(4)
    assert resample_patch_kernel(kernel, 4) is kernel


def test_half_precision_stays_half():
    kernel = random_kernel(4)
    resampled = resample_patch_kernel(kernel.astype(jnp.bfloat16), 6)
    assert resampled.dtype == jnp.bfloat16
    np.testing.assert_allclose(resampled.astype(np.float32), resample_patch_kernel(kernel, 6), atol=0.05)


@pytest.mark.parametrize(("old", "new"), [(16, 8), (8, 16), (16, 14), (14, 16), (7, 4), (4, 7), (5, 1), (1, 3)])
def test_numbers_are_those_of_timm(old, new):
    arrays = read_npz(GOLDEN / "resample_patch_embed.npz")
    kernel, expected = (arrays[f"{old}_to_{new}.{name}"].transpose(2, 3, 1, 0) for name in ("old", "new"))
    np.testing.assert_allclose(resample_patch_kernel(kernel, new), expected, atol=1e-5 * abs(expected).max())


def test_a_whole_model_at_another_patch_size_gives_the_logits_of_timm():
    arrays = read_npz(GOLDEN / "resample_patch_embed.npz")
    model, report = load(GOLDEN / "timm_vit", patch_size=6, image_size=(12, 24))
    assert report.interpolated_keys == [KERNEL, POSITIONS]
    expected = arrays["model.logits"]
    np.testing.assert_allclose(model(arrays["model.pixels"]).logits, expected, atol=1e-5 * abs(expected).max())


def test_loaded_for_larger_patches_a_model_sees_enlarged_patches_as_before(folder, model):
    larger, report = load(folder, patch_size=6, image_size=12)
    assert (report.interpolated_keys, report.new_keys, report.mismatched_keys) == ([KERNEL], [], [])
    assert larger.image_processor.size == {"height": 12, "width": 12}
    images = pixels()
    patches = images.reshape(2, 3, 2, 4, 2, 4).transpose(0, 2, 4, 3, 5, 1).reshape(8, 4, 4, 3)
    enlarged = np.asarray(resize(patches, 6)).reshape(2, 2, 2, 6, 6, 3).transpose(0, 5, 1, 3, 2, 4)
    logits = model(images).logits
    np.testing.assert_allclose(larger(enlarged.reshape(2, 3, 12, 12)).logits, logits, atol=1e-4)


def test_at_the_same_image_size_there_are_more_positions(folder, model, caplog):
    smaller, report = load(folder, patch_size=2)
    assert report.interpolated_keys == [KERNEL, POSITIONS]
    assert KERNEL in caplog.text
    assert smaller(pixels()).logits.shape == (2, 5)
    assert smaller.params["vit_cls"]["embeddings"]["position_embedding"]["embedding"].shape == (17, 16)
    kept = smaller.params["vit_cls"]["encoder"]
    jax.tree.map(np.testing.assert_array_equal, kept, model.params["vit_cls"]["encoder"])


def test_it_is_saved_and_loaded_at_its_new_size(folder, tmp_path):
    smaller, _ = load(folder, patch_size=2, num_labels=3)
    smaller.save_pretrained(tmp_path / "again")
    again, report = load(tmp_path / "again")
    assert report.interpolated_keys == []
    np.testing.assert_array_equal(again(pixels()).logits, smaller(pixels()).logits)


def test_what_resampling_cannot_mend_is_still_refused(folder):
    with pytest.raises(ConfigError, match="multiple of patch_size=3"):
        load(folder, patch_size=3)
    for overrides in ({"num_channels": 1}, {"hidden_size": 32}):
        with pytest.raises(CheckpointError, match="differs in the backbone"):
            load(folder, patch_size=2, **overrides)
    whole = load_file(folder / "model.safetensors")
    rest = {name: tensor for name, tensor in whole.items() if not name.endswith(KERNEL)}
    save_file(rest, folder / "model.safetensors", metadata={"format": "flax"})
    with pytest.raises(CheckpointError, match=KERNEL):
        load(folder, patch_size=2)
    *_, report = load(folder, patch_size=2, _do_init=False)
    assert (report.missing_keys, report.interpolated_keys) == ([KERNEL], [POSITIONS])
