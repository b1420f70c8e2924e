"""What the page of `vit-cls demo` shows, without Gradio: scores, readouts, attention, neighbours, markup, messages."""

import io
import json
import re
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import datasets
import numpy as np
import pytest
import yaml
from conftest import tiny_model
from PIL import Image

from hub_scripts.__main__ import main
from modeling_vit_cls import BadImageError, CheckpointError, ConfigError, FlaxViTClsModel, ImageClassificationPipeline
from modeling_vit_cls import pictures as p
from modeling_vit_cls.embed import embed
from modeling_vit_cls.names import EMBED
from modeling_vit_cls.page.markup import message, sections, summary
from modeling_vit_cls.page.neighbours import Neighbour, Neighbours
from modeling_vit_cls.page.seen import PageModel, load_models

pytestmark = pytest.mark.world

ROOT = Path(__file__).parents[1]


def photo(seed: int = 0, channels: int = 3) -> bytes:
    """A PNG file of 10 x 9 pixels."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 10, channels), np.uint8)
    Image.fromarray(pixels.squeeze()).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def shown() -> PageModel:
    return PageModel.of("tiny", tiny_model())


def test_scores_are_those_of_the_pipeline(shown, folder, tmp_path):
    (tmp_path / "photo.png").write_bytes(photo())
    expected = ImageClassificationPipeline(folder)(tmp_path / "photo.png")[0]
    (loaded,) = load_models([str(folder)])
    for model in (shown, loaded):
        seen = model.see(photo())
        assert (seen.scores, seen.own_scores, seen.remark) == (expected, None, "")


def test_another_readout_of_the_same_width_is_read_by_the_same_classifier(shown):
    seen, own = shown.see(photo(), "mean"), shown.see(photo())
    assert (
        seen.scores
        == ImageClassificationPipeline(tiny_model().with_readout("mean"))(Image.open(io.BytesIO(photo())))[0]
    )
    assert seen.scores != own.scores == seen.own_scores
    assert "trained on the readout 'cls'" in seen.remark
    assert (own.source, seen.source) == ("[CLS]", "all patches (mean)")
    np.testing.assert_array_equal(seen.colours, own.colours)


def test_a_readout_without_a_trained_classifier_has_pictures_and_no_scores(shown):
    seen = shown.see(photo(), "cls_mean")
    assert (seen.readout, seen.scores, seen.own_scores) == ("cls_mean", None, None)
    assert "no classifier that was trained for the width of the readout 'cls_mean'" in seen.remark
    np.testing.assert_array_equal(seen.attention, shown.see(photo()).attention)
    assert summary(shown, seen) == "tiny: no scores."


@pytest.mark.parametrize(
    ("fields", "readouts"),
    [
        ({}, ("cls", "mean", "cls_mean")),
        ({"readout": "map"}, ("map",)),
        ({"use_cls_token": False, "readout": "mean"}, ("mean",)),
        ({"num_cls_tokens": 2}, ("cls", "cls_concat", "mean", "cls_mean")),
    ],
)
def test_readouts_are_those_whose_parameters_the_backbone_has(fields, readouts):
    model = PageModel.of("tiny", tiny_model(**fields))
    assert model.readouts == readouts
    seen = model.see(photo(), "map")
    assert seen.readout == readouts[0]
    assert ("no parameters for the readout 'map'" in seen.remark) == (readouts != ("map",))


def test_attention_is_that_of_the_chosen_block_and_head(shown):
    view = p.view(tiny_model(), Image.open(io.BytesIO(photo())))
    for block in (1, 2):
        for head in (1, 2):
            seen = shown.see(photo(), block=block, head=head)
            np.testing.assert_allclose(seen.attention, view.attention(block - 1)[head - 1], rtol=1e-5)
            assert seen.attention_of == f"block {block} of 2, head {head} of 2"
    seen = shown.see(photo())
    np.testing.assert_allclose(seen.attention, view.attention(-1).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(seen.rollout, view.rollout(), rtol=1e-5)
    assert seen.attention_of == "block 2 of 2, mean of 2 heads"
    for choice, words in (({"block": 3}, "no block 3: it has 2"), ({"head": 4}, "no head 4: it has 2")):
        seen = shown.see(photo(), **choice)
        assert seen.attention is None
        assert words in seen.remark
        assert seen.scores


def test_backbones_have_pictures_alone(tmp_path):
    tiny_model(FlaxViTClsModel).save_pretrained(tmp_path / "backbone")
    seen = PageModel.load(tmp_path / "backbone").see(photo())
    assert seen.scores is None
    assert "it has no classifier" in seen.remark
    assert seen.rollout.shape == (2, 2)


def test_models_share_their_parameters(shown):
    own = shown.backbone("cls").params["norm"]["scale"]
    assert shown.backbone("mean").params["norm"]["scale"] is own
    assert shown.classifier is not None
    assert shown.classifier.params["vit_cls"]["norm"]["scale"] is own


def test_folders_are_named_by_their_last_part_where_that_is_enough(tmp_path):
    folders = [str(tmp_path / name) for name in ("a/vit", "b/vit", "other")]
    for folder in folders:
        tiny_model(FlaxViTClsModel).save_pretrained(folder)
    assert [model.name for model in load_models(folders)] == [*folders[:2], "other"]


def test_what_is_no_image_is_an_error_in_words(shown):
    for content in (b"", b"none", photo()[:60]):
        with pytest.raises(BadImageError, match="^This file: "):
            shown.see(content)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """Seven images embedded by the backbone of the tiny classifier, with its readout "mean"."""
    images = [{"bytes": photo(seed), "path": f"{seed}.png"} for seed in range(7)]
    features = datasets.Features({"image": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "dog"])})
    dataset = datasets.Dataset.from_dict({"image": images, "kind": [0, 1, 0, 1, -1, 1, None]}, features=features)
    folder = tmp_path_factory.mktemp("embedded") / "out"
    model = tiny_model()
    model.save_pretrained(folder.parent / "model")
    backbone = FlaxViTClsModel.from_pretrained(folder.parent / "model")
    embed(backbone, dataset, folder, readout="mean", shards=2, disable_tqdm=True)
    return folder


def test_neighbours_are_found_by_the_model_that_embedded_them(shown, embedded):
    other = PageModel.of("other", tiny_model(readout="mean", num_register_tokens=1))
    neighbours = Neighbours(embedded, [other, shown])
    assert neighbours.model is shown
    nearest = neighbours.nearest(photo(3), count=20)
    assert sorted(neighbour.row for neighbour in nearest) == list(range(7))
    assert (nearest[0].row, nearest[0].label) == (3, "dog")
    assert nearest[0].similarity == pytest.approx(1, abs=1e-5)
    assert np.array_equal(np.asarray(nearest[0].image), np.asarray(Image.open(io.BytesIO(photo(3)))))
    similarities = [neighbour.similarity for neighbour in nearest]
    assert similarities == sorted(similarities, reverse=True)
    assert {neighbour.row for neighbour in nearest if neighbour.label is None} == {4, 6}
    assert len(neighbours.nearest(photo(3), count=2)) == 2


def test_embeddings_of_other_weights_or_another_processor_are_refused(shown, embedded):
    with pytest.raises(ConfigError, match="neighbours=.*whose weights are those of no model here"):
        Neighbours(embedded, [PageModel.of("other", tiny_model(num_register_tokens=1))])
    model = tiny_model()
    model.image_processor = type(model.image_processor)(size={"height": 8, "width": 8}, image_mean=[0.1] * 3)
    with pytest.raises(ConfigError, match="another image processor than that of changed"):
        Neighbours(embedded, [PageModel.of("changed", model)])


def test_folders_that_are_no_whole_embedded_dataset_are_refused(shown, embedded, tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match=r"has no \.embed\.json: give a folder that `vit-cls embed`"):
            Neighbours(folder, [shown])
    manifest = json.loads((embedded / EMBED).read_text())
    (tmp_path / EMBED).write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="has 0 of 2 shards: give the same command"):
        Neighbours(tmp_path, [shown])
    del manifest["processor"]
    (tmp_path / EMBED).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="is damaged"):
        Neighbours(tmp_path, [shown])


class Tags(HTMLParser):
    """The tags of a text, each with its attributes; they must be closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open += [] if tag in ("img", "br") else [tag]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_markup_has_exact_scores_and_words_for_every_picture(shown):
    seen = shown.see(photo(), "mean")
    neighbours = [Neighbour(3, "a cat", 0.5, Image.new("RGB", (500, 300))), Neighbour(4, None, 0.25, None)]
    text = sections([(shown, seen, neighbours), (shown, shown.see(photo()), [])])
    tags = Tags(text).tags
    values = [float(attributes["value"] or "") for tag, attributes in tags if tag == "data"]
    assert seen.scores is not None
    assert seen.own_scores is not None
    assert values == [row["score"] for scores in (seen.scores, seen.own_scores, seen.own_scores) for row in scores]
    pictures = [attributes for tag, attributes in tags if tag == "img"]
    assert len(pictures) == 9
    assert all(picture["alt"] and (picture["src"] or "").startswith("data:image/png;base64,") for picture in pictures)
    assert "row 3 of the dataset" in text
    assert "cannot be read any more" in text
    assert re.search(r"largest in row [12], column [12] of 2 x 2 patches", text)
    assert re.fullmatch(
        r"tiny: LABEL_\d \(\d+\.\d%\) by the readout mean; LABEL_\d \(\S+\) by its own, cls\.", summary(shown, seen)
    )


def test_grey_models_and_unbounded_scores_are_drawn():
    model = PageModel.of("grey", tiny_model(num_channels=1, problem_type="regression"))
    seen = model.see(photo(channels=1))
    tags = Tags(sections([(model, seen, [])])).tags
    assert seen.scores is not None
    bounded = sum(0 <= row["score"] <= 1 for row in seen.scores)
    assert sum(tag == "meter" for tag, _ in tags) == bounded < 5


def test_names_and_labels_cannot_become_markup():
    evil = "<script>alert('1')</script>\n<b>"
    model = PageModel.of(evil, tiny_model(id2label={i: f"{evil}{i}" for i in range(5)}))
    seen = model.see(photo())
    text = sections([(model, seen, [Neighbour(0, evil, 0.5, None)])]) + summary(model, seen) + message(evil)
    assert not {"script", "b"} & {tag for tag, _ in Tags(text).tags}


def test_without_gradio_the_message_has_the_command(folder, monkeypatch, capsys):
    """Also where the package is installed without matplotlib, which another extra has too."""
    for name in [*sys.modules]:
        if name.startswith(("modeling_vit_cls.page", "modeling_vit_cls.pictures")):
            monkeypatch.delitem(sys.modules, name)
    for name in ("gradio", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["demo", str(folder)]) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(r"vit-cls: gradio is needed to show the page: `pip install .*\[demo\].*\n", error)


def test_the_space_installs_what_the_page_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    space = ROOT / "hub_scripts" / "space"
    requirements = [line for line in (space / "requirements.txt").read_text().splitlines() if line[0] != "#"]
    assert requirements == sorted([*project["dependencies"], *project["optional-dependencies"]["demo"]])
    card = yaml.safe_load((space / "README.md").read_text().split("---")[1])
    assert f"gradio=={card['sdk_version']}\n" in (ROOT / "constraints" / "page-5.txt").read_text()
    assert (space / card["app_file"]).is_file()
