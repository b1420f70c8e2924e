"""What a model sees: maps of attention and features by patch, their properties, and `vit-cls explain`."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_model
from PIL import Image

from hub_scripts.__main__ import main
from modeling_vit_cls import BadImageError, ConfigError, FlaxViTClsModel, ViTClsImageProcessor
from modeling_vit_cls import pictures as p

WIDE = {"image_size": (8, 12), "num_register_tokens": 3}  # 2 x 3 patches
WITHOUT_POSITIONS = {**WIDE, "position_embedding": "none"}


def photo(seed: int = 0) -> np.ndarray:
    """An image of 2 x 3 patches of 4 x 4 pixels."""
    return np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)


def in_order(image: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The image (8, 12, 3) with its 6 patches in another order."""
    patches = image.reshape(2, 4, 3, 4, 3).swapaxes(1, 2).reshape(6, 4, 4, 3)[order]
    return patches.reshape(2, 3, 4, 4, 3).swapaxes(1, 2).reshape(8, 12, 3)


def maps(view: p.View) -> list[np.ndarray]:
    """Every map (h, w) of a view but the colours."""
    heads = [head for block in range(2) for head in view.attention(block)]
    return [*heads, view.rollout(), *np.moveaxis(view.features, -1, 0)]


@pytest.mark.parametrize("readout", ["cls", "mean", "cls_mean", "map"])
def test_without_positions_a_plain_image_has_flat_maps(readout):
    view = p.view(tiny_model(readout=readout, **WITHOUT_POSITIONS), np.full((8, 12, 3), 77, np.uint8))
    for map in maps(view):
        assert map.shape == (2, 3)
        np.testing.assert_allclose(map, map.mean(), rtol=1e-4, atol=1e-6)
    (colours,) = p.patch_colours([view.features])
    assert (colours == 0.5).all(), "rounding is not blown up to colours"
    np.testing.assert_allclose(p.patch_similarity(view.features, (1, 2)), 1, rtol=1e-5)
    drawn = np.asarray(Image.open(io.BytesIO(p.rollout_picture(view))).convert("RGB"))
    right = drawn[60:-20, drawn.shape[1] // 2 + 40 : -20]
    assert np.ptp(right.reshape(-1, 3), axis=0).max() == 0, "one colour"


@pytest.mark.parametrize("readout", ["cls", "mean"])
def test_without_positions_patches_in_another_order_have_the_maps_in_that_order(readout):
    model = tiny_model(readout=readout, **WITHOUT_POSITIONS)
    image, order = photo(), np.array([4, 2, 0, 5, 1, 3])
    before, after = p.view(model, image), p.view(model, in_order(image, order))
    for a, b in zip(maps(before), maps(after)):
        assert np.ptp(a) > 1e-4
        np.testing.assert_allclose(b.ravel(), a.ravel()[order], rtol=1e-3, atol=1e-5)
    colours = [p.patch_colours([view.features])[0].reshape(6, 3) for view in (before, after)]
    np.testing.assert_allclose(colours[1], colours[0][order], atol=1e-3)
    similar = p.patch_similarity(before.features, (1, 1)).ravel()  # patch 4 is patch 0 of the other
    np.testing.assert_allclose(p.patch_similarity(after.features, (0, 0)).ravel(), similar[order], atol=1e-4)


@pytest.mark.parametrize("model_class", [FlaxViTClsModel, None])
def test_maps_are_those_of_the_patches_alone(model_class):
    model = tiny_model(model_class, **WIDE) if model_class else tiny_model(**WIDE)
    view = p.view(model, photo())
    pixels = model.image_processor([photo()])["pixel_values"]
    attention = np.asarray(model(pixels, output_attentions=True).attentions[-1])[0]
    np.testing.assert_allclose(view.attention(-1), attention[:, 0, 4:].reshape(2, 2, 3), rtol=1e-5)
    if model_class:
        tokens = np.asarray(model(pixels).last_hidden_state)[0, 4:]
        np.testing.assert_allclose(view.features, tokens.reshape(2, 3, 16), rtol=1e-4, atol=1e-5)
    assert view.image.shape == (8, 12, 3)
    np.testing.assert_allclose(view.image, photo() / 255, atol=1e-6)


def test_rollout_is_the_product_of_attention_with_the_residual():
    attentions = np.random.default_rng(0).dirichlet(np.ones(5), (3, 2, 5))  # 3 blocks, 2 heads, 5 tokens
    whole = np.eye(5)
    for attention in attentions:
        whole = (attention.mean(axis=0) + np.eye(5)) / 2 @ whole
    for token in range(5):
        got = p.attention_rollout(list(attentions), np.eye(5)[token])
        np.testing.assert_allclose(got, whole[token])
        assert got.sum() == pytest.approx(1)
    blind = [np.eye(5)[None]] * 3
    assert p.attention_rollout(blind, np.eye(5)[2]).tolist() == np.eye(5)[2].tolist()


def test_colours_are_the_main_components_over_all_images():
    generator = np.random.default_rng(0)
    axes = np.linalg.qr(generator.normal(size=(8, 8)))[0][:3] * np.array([[9], [3], [1]])
    first, second = generator.uniform(size=(2, 3, 3)), generator.uniform(size=(4, 2, 3))
    a, b = p.patch_colours([first @ axes + 5, second @ axes + 5])
    assert (a.shape, b.shape) == ((2, 3, 3), (4, 2, 3))
    together = np.concatenate([a.reshape(-1, 3), b.reshape(-1, 3)])
    assert (together.min(axis=0), together.max(axis=0)) == (pytest.approx([0] * 3), pytest.approx([1] * 3))
    hidden = np.concatenate([first.reshape(-1, 3), second.reshape(-1, 3)])
    assert abs(np.corrcoef(together[:, 0], hidden[:, 0])[0, 1]) > 0.9
    again = p.patch_colours([(first @ axes) * 2])[0]
    np.testing.assert_allclose(again, p.patch_colours([first @ axes])[0], atol=1e-9)
    assert p.patch_colours([np.ones((2, 2, 2))])[0].shape == (2, 2, 3), "fewer features than colours"


def test_similarity_is_the_cosine_to_a_patch():
    features = np.random.default_rng(0).normal(size=(2, 3, 5))
    similarity = p.patch_similarity(features, (1, 0))
    assert similarity[1, 0] == pytest.approx(1)
    a, b = features[0, 2], features[1, 0]
    assert similarity[0, 2] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    half = p.patch_similarity((features * 100).astype(np.float16), (1, 0))  # squares beyond float16
    np.testing.assert_allclose(half, similarity, atol=1e-3)
    for patch in ((2, 0), (0, 3), (-1, 0)):
        with pytest.raises(ConfigError, match="must be a row from 0 to 1 and a column to 2"):
            p.patch_similarity(features, patch)


def test_pictures_are_png_and_the_same_each_time():
    view = p.view(tiny_model(**WIDE), photo())
    (colours,) = p.patch_colours([view.features])
    for draw in (
        p.attention_picture,
        p.rollout_picture,
        p.similarity_picture,
        lambda view: p.features_picture(view.image, colours),
    ):
        png = draw(view)
        assert png == draw(view)
        drawn = Image.open(io.BytesIO(png))
        assert drawn.format == "PNG"
        assert np.asarray(drawn.convert("RGB")).std() > 10
    assert p.similarity_picture(view, (0, 0)) != p.similarity_picture(view, (1, 2))


@pytest.fixture
def wide(tmp_path):
    tiny_model(**WIDE).save_pretrained(tmp_path / "wide")
    for number, name in enumerate(("a/cat.png", "b/cat.png")):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(photo(number)).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"none")
    return tmp_path


def test_explain_writes_four_pictures_of_each_image(wide, capsys):
    images = [str(wide / name) for name in ("a", "b/cat.png", "broken.png")]
    assert main(["explain", str(wide / "wide"), *images, "--output", str(wide / "out"), "--json"]) == 0
    shown = capsys.readouterr()
    assert "left out" in shown.err
    assert "broken.png" in shown.err
    first, second = json.loads(shown.out)
    assert first["image"].endswith("a/cat.png")
    kinds = ("attention", "features", "rollout", "similarity")
    expected = {f"{name}.{kind}.png" for name in ("cat", "cat-2") for kind in kinds}
    assert {file.name for file in (wide / "out").iterdir()} == expected
    assert second["features"] == str(wide / "out" / "cat-2.features.png")


def test_images_of_one_name_do_not_replace_each_others_pictures(tmp_path, capsys):
    model, output = tmp_path / "model", tmp_path / "out"
    tiny_model(FlaxViTClsModel).save_pretrained(model)
    names = ["1-2.png", "a/1.png", "b/1.png", "b/A.png", "a/a.png"]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo()).save(tmp_path / "in" / name)
    assert main(["explain", str(model), str(tmp_path / "in"), "--output", str(output), "--json"]) == 0
    drawn = json.loads(capsys.readouterr().out)
    assert len(drawn) == len(names)
    assert len({file.name.casefold() for file in output.iterdir()}) == len(list(output.iterdir())) == 4 * len(names)


def test_an_image_that_is_named_twice_is_drawn_once_and_the_others_keep_their_pictures(wide, capsys):
    def features(out: str, *images: str) -> dict[str, bytes]:
        paths = [str(wide / image) for image in images]
        assert main(["explain", str(wide / "wide"), *paths, "--output", str(wide / out), "--json"]) == 0
        return {row["image"]: Path(row["features"]).read_bytes() for row in json.loads(capsys.readouterr().out)}

    once = features("once", "a/cat.png", "b/cat.png")
    assert features("twice", "a", "a/cat.png", "b/cat.png", "a/cat.png") == once
    assert len(set(once.values())) == 2


@pytest.mark.parametrize(
    ("factor", "scale"), [(1 / 255, {}), (1 / 127.5, {"image_mean": [1] * 3, "image_std": [1] * 3})]
)
@pytest.mark.parametrize("do_normalize", [True, False])
def test_an_image_is_shown_as_it_is_whatever_the_scale_of_its_pixels(factor, scale, do_normalize):
    model, grey = tiny_model(**WIDE), np.full((8, 12, 3), 200, np.uint8)
    options = {"rescale_factor": factor, "do_normalize": do_normalize, "size": {"height": 8, "width": 12}, **scale}
    model.image_processor = ViTClsImageProcessor(**options)
    np.testing.assert_allclose(p.view(model, grey).image * 255, 200, atol=1e-3)


def test_explain_fails_in_one_line(wide, capsys):
    model, cat, out = str(wide / "wide"), str(wide / "a" / "cat.png"), str(wide / "out")
    for arguments, message in (
        ([model, cat, "--output", cat], "is a file: give a folder"),
        ([model, cat, "--output", out, "--patch", "9", "0"], "patch=(9, 0): must be a row from 0 to 1"),
        ([model, str(wide / "broken.png"), "--output", out], "none of the 1 images can be read"),
        ([model, str(wide / "no.png"), "--output", out], "there is no such file"),
    ):
        assert main(["explain", *arguments]) == 1
        assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (wide / "out").exists()
    with pytest.raises(BadImageError, match="broken"):
        p.view(tiny_model(**WIDE), str(wide / "broken.png"))
