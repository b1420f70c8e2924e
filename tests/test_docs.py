"""README and docs: each block of code runs, each link leads to a file, each public name is documented."""

import importlib
import inspect
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import tiny_model
from local_hub import Repository
from PIL import Image
from test_families import GOLDEN
from test_package import run

import modeling_vit_cls
from hub_scripts.__main__ import main
from hub_scripts.verbs import command_line
from modeling_vit_cls import FlaxViTClsForImageClassification, ViTClsConfig, export_pretrained
from modeling_vit_cls.cards import write_card
from modeling_vit_cls.training.recipe import read_recipe

pytestmark = pytest.mark.world

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").glob("*.md") if not page.is_symlink())]
OF_ITS_OWN = "own_loop.md"  # promises an accuracy, so it runs as users run it: in a process without the tests' flags

# Small checkpoints of the same families in place of those of the Hub.
STAND_INS = {
    "google/vit-base-patch16-224": "timm_vit",
    "facebook/deit-tiny-patch16-224": "vit",
    "facebook/dinov2-small": "dinov2",
    "openai/clip-vit-base-patch32": "clip_model",
    "MahmoodLab/UNI2-h": "timm_virchow",
    "paige-ai/Virchow2": "timm_virchow",
    "timm/flexivit_base.1200ep_in1k": "timm_flexivit",
}
PROCESSOR = b'{"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}'
NPZ = "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0.npz"


def blocks(page: Path) -> list[tuple[str, str]]:
    """The language and the text of each block of code, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def promised(code: str) -> list[str]:
    """What the comments behind the prints of a program promise as its output."""
    return re.findall(r"^ *print\(.*\)  # (.+)$", code, re.MULTILINE)


def check_output(code: str, output: str) -> None:
    """Each promised line is there, in order."""
    lines = iter(output.splitlines())
    for line in promised(code):
        assert line in lines, f"{line!r} is not printed, or not in this place:\n{output}"


def run_command(words: list[str], page: Path) -> None:
    """Run a command of a shell block; training is only parsed, installing and `make` only looked up."""
    program, *arguments = words
    if program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert arguments[0] == "install"
        assert arguments[1] == "." or set(re.fullmatch(r"\.\[(.+)\]", arguments[1])[1].split(",")) <= extras.keys()
    elif arguments[-1] == "--help":
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 0
    elif arguments[0] == "demo":  # would serve until Ctrl-C
        assert command_line().parse_args(arguments).models
    elif arguments[0] == "train":
        assert read_recipe(arguments[1], arguments[2:]).training.output_dir.startswith("my-")
    else:
        assert (program, main(arguments)) == ("vit-cls", 0), f"{page.name}: {shlex.join(words)}"


@pytest.fixture(scope="module")
def deit_tiny(tmp_path_factory) -> Path:
    """A checkpoint of the sizes of facebook/deit-tiny-patch16-224, as transformers writes it."""
    config = ViTClsConfig.from_variant("vit_cls_tiny_patch16_224", num_labels=1000, layer_norm_eps=1e-12)
    folder = tmp_path_factory.mktemp("deit_tiny")
    export_pretrained(FlaxViTClsForImageClassification(config), folder, to="transformers")
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch, hub) -> Path:
    """A working folder with what the pages start from: images, a trained model, a Hub with checkpoints."""
    monkeypatch.chdir(tmp_path)
    files = [
        f"photos/{split}/{name}/{n}.jpg" for split in ("train", "test") for name in ("cat", "dog") for n in range(6)
    ]
    for seed, file in enumerate(["photo.jpg", "cat.jpg", *files]):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 24, 3), np.uint8)).save(file)
    for name in ("my-vit", "my-cls", "my-mean"):
        tiny_model(id2label={0: "cat", 1: "dog"}, num_labels=2).save_pretrained(name)
    write_card("my-vit")
    np.save("texts.npy", np.random.default_rng(0).normal(size=(2, 8)))  # of CLIP's stand-in
    shutil.copy(GOLDEN / "npz_augreg" / "checkpoint.npz", NPZ)
    for repo_id, golden in STAND_INS.items():
        publish(hub, repo_id, GOLDEN / golden)
    yield tmp_path
    hub.repositories.clear()
    hub.collections.clear()


def publish(hub, repo_id: str, folder: Path) -> None:
    files = {"preprocessor_config.json": PROCESSOR} if "timm" not in folder.name else {}
    files |= {file.name: file.read_bytes() for file in folder.iterdir()}
    hub.repositories[repo_id] = Repository()
    hub.repositories[repo_id].commit(files, "a stand-in", "main")


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != OF_ITS_OWN], ids=lambda page: page.stem)
def test_blocks_of_a_page_run_in_order(page, place, hub, request, capsys):
    if page.name == "README.md":  # it shows what print(model) prints of the real one
        publish(hub, "facebook/deit-tiny-patch16-224", request.getfixturevalue("deit_tiny"))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    output = ""
    for number, (language, text) in enumerate(blocks(page)):
        if language == "python":
            exec(compile(text, f"{page.name}, block {number}", "exec"), namespace)
            output = capsys.readouterr().out
            check_output(text, output)
        elif language == "bash":
            for line in text.replace("\\\n", " ").splitlines():
                run_command(shlex.split(line, comments=True), page)
        elif language == "yaml" and (name := re.match(r"# (\S+\.yaml)\n", text)):
            Path(name[1]).write_text(text)
        elif page.name == "README.md":
            assert output.startswith(text), "what the block before it prints"
    if page.name == "README.md":
        assert namespace["metrics"]["eval_accuracy"] > 0.8


def test_the_loop_learns_as_users_run_it(tmp_path):
    code = "\n".join(text for language, text in blocks(ROOT / "docs" / OF_ITS_OWN) if language == "python")
    output = run(f"{code}\nprint(float(accuracy))", cwd=tmp_path)
    check_output(code, output)
    assert float(output.splitlines()[-1]) > 0.9


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        target = link.partition("#")[0]
        assert (page.parent / target).exists(), link


def test_files_that_contributing_names_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text().replace("NAME", "vit_cls_digits_cls")
    named = set(re.findall(r"`([\w/]+\.(?:py|md|toml|in|txt|yaml))`", text))
    places = [ROOT, *(path for path in ROOT.glob("[!.]*/**/") if "build" not in path.parts)]
    assert len(named) > 15
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    pages = set(re.findall(r"[\w/]+\.md", text[text.index("nav:") : text.index("exclude_docs:")]))
    assert pages == {page.name for page in (ROOT / "docs").glob("*.md")}
    assert yaml.safe_load(text)["strict"] is True


def test_the_page_of_models_has_a_row_for_each_checkpoint(monkeypatch):
    (hook,) = yaml.safe_load((ROOT / "mkdocs.yml").read_text().partition("plugins:")[0])["hooks"]
    monkeypatch.syspath_prepend(str((ROOT / hook).parent))
    module = importlib.import_module(Path(hook).stem)
    shown = module.on_page_markdown((ROOT / "docs" / "models.md").read_text())
    rows = re.findall(r"^\| \[(.+?)\]\(https://huggingface.co/(.+?)\) \|(?: [^|]* \|){7}$", shown, re.MULTILINE)
    assert rows == [(row.hub_id, row.hub_id) for row in modeling_vit_cls.list_pretrained()]
    assert module.on_page_markdown("# Another page") == "# Another page"


API = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)


def test_every_public_name_is_in_the_reference():
    assert {f"modeling_vit_cls.{name}" for name in modeling_vit_cls.__all__} <= set(API)


@pytest.mark.parametrize("name", API)
def test_what_is_in_the_reference_has_docstrings(name):
    module, _, attribute = name.rpartition(".")
    thing = getattr(importlib.import_module(module), attribute)
    assert thing.__doc__, name
    if inspect.isclass(thing):
        own = [kind for kind in thing.__mro__ if kind.__module__.startswith("modeling_vit_cls")]
        members = {key: value for kind in own for key, value in vars(kind).items() if not key.startswith("_")}
        without = [key for key, value in members.items() if _is_documented_kind(value) and not inspect.getdoc(value)]
        assert not without


def _is_documented_kind(member: Any) -> bool:
    return isinstance(member, property | classmethod | staticmethod) or inspect.isfunction(member)


def test_messages_that_are_explained_are_those_of_the_code():
    """What stands in the first column of the page on errors is a part of a message, word for word."""
    sources = [*(ROOT / "modeling_vit_cls").rglob("*.py"), *(ROOT / "hub_scripts").glob("*.py")]
    code = "".join(re.sub(r"['\"] *\n\s*f?['\"]", "", source.read_text()) for source in sources)
    rows = re.findall(r"^\| `(.+?)`(.*?) \|", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    ours = [message for message, note in rows if "of transformers" not in note and not message.endswith("Error")]
    assert len(ours) > 100
    assert [message for message in ours if message not in code] == []


def test_the_figures_of_the_readme_are_in_the_page_on_speed():
    readme, page = PAGES[0].read_text(), (ROOT / "docs" / "speed.md").read_text()
    figures = re.findall(r"\d+\.\d\d\b|\d+,\d{3}", readme[readme.index("## Speed") : readme.index("## What you can")])
    assert len(figures) > 8
    assert [figure for figure in figures if figure not in page] == []


def test_the_changelog_keeps_its_form():
    headings = re.findall(r"^(##+) (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    versions = [text for level, text in headings if level == "##"]
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version) for version in versions[1:])
    kinds = {text for level, text in headings if level == "###"}
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_citation_has_what_it_needs():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "type", "authors"} <= set(citation)
    assert all(author["name"] for author in citation["authors"])
    assert (citation["version"], citation["license"]) == (modeling_vit_cls.__version__, "Apache-2.0")
