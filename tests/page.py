"""The page of `vit-cls demo` in headless Chromium, as people use it: `make test-page`, which installs Gradio.

The server is a process of its own. Uploads, clicks and keys go through the browser, fifty requests at once through
Gradio's client. Nothing waits for a fixed time.
"""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import datasets
import httpx
import numpy as np
import pytest
from conftest import tiny_model
from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from modeling_vit_cls import FlaxViTClsModel, ImageClassificationPipeline
from modeling_vit_cls.embed import embed

ROOT = Path(__file__).parents[1]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
AT_ONCE = 50
LONG_NAME = "a_model_with_a_name_that_is_longer_than_a_phone_is_wide"
OWN = ["each model's own", "last", "mean of all"]
expect.set_options(timeout=120_000)  # milliseconds; a first request compiles


def photo(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


@contextmanager
def server(arguments: list[str], temporary: Path, **environment: str) -> Iterator[str]:
    """The address of a page served by a process of its own; its temporary files are in `temporary`."""
    variables = {**os.environ, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1", **environment}
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, env=variables)
    assert process.stdout is not None
    try:
        address = re.match(r"http://\S+", process.stdout.readline())
        assert address, "the server did not start"
        yield address[0]
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Three models, an embedded dataset, an image, and files that are none."""
    place = tmp_path_factory.mktemp("page")
    tiny_model().save_pretrained(place / "cls")
    tiny_model(readout="mean", num_hidden_layers=3, image_size=224, patch_size=16).save_pretrained(place / LONG_NAME)
    tiny_model(FlaxViTClsModel).save_pretrained(place / "backbone")
    images = [{"bytes": photo(seed), "path": f"{seed}.png"} for seed in range(9)]
    features = datasets.Features({"image": datasets.Image()})
    dataset = datasets.Dataset.from_dict({"image": images}, features=features)
    embed(FlaxViTClsModel.from_pretrained(place / "cls"), dataset, place / "embedded", disable_tqdm=True)
    (place / "photo.png").write_bytes(photo(4))
    for number in range(9):  # equal files are one file on the server
        (place / f"{number}.png").write_bytes(photo(number))
    (place / "broken.png").write_bytes(photo(4)[:300])
    (place / "large.png").write_bytes(b"\0" * (20 * 2**20 + 1))
    return place


@pytest.fixture(scope="module")
def address(place) -> Iterator[str]:
    models = [str(place / name) for name in ("cls", LONG_NAME, "backbone")]
    temporary = place / "temporary"
    temporary.mkdir()
    command = ["-m", "hub_scripts", "demo", *models, "--neighbours", str(place / "embedded")]
    with server(command, temporary) as address:
        yield address
    assert files_in(temporary) == [], "no file is left when the page was closed"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "Chromium is needed: apt-get install chromium, or set CHROMIUM to its path"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address) -> Iterator[Page]:
    """The page, just opened. It asks no other machine for anything, and no error of a script is left unseen."""
    page, addresses, errors = browser.new_page(), [], []
    page.on("request", lambda request: addresses.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    expect(page.get_by_role("button", name="Click to upload or drop files")).to_be_visible()
    expect(page.locator("#status")).to_have_attribute("aria-live", "polite")  # the page's script has run
    yield page
    others = [url for url in addresses if not url.startswith((address, "data:", "blob:"))]
    page.close()
    assert (others, errors) == ([], [])


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def upload(page: Page, file: Path) -> None:
    page.locator("#upload input[type=file]").set_input_files(file)


def scores(text: str) -> list[float]:
    return [float(value) for value in re.findall(r'<data value="([^"]+)"', text)]


def expected(place: Path, readout: str | None = None) -> list[float]:
    """The five best scores of the photo, by the library."""
    pipeline = ImageClassificationPipeline(place / "cls")
    if readout is not None:
        pipeline = ImageClassificationPipeline(pipeline.model.with_readout(readout))
    return [row["score"] for row in pipeline(place / "photo.png", top_k=5)[0]]


def test_an_upload_shows_the_scores_of_the_library(page, place):
    upload(page, place / "photo.png")
    section = page.get_by_role("region", name="cls", exact=True)
    expect(section.get_by_role("table", name="Readout cls")).to_be_visible()
    assert scores(section.inner_html()) == pytest.approx(expected(place), rel=1e-5)
    expect(section.get_by_role("img", name="row 4 of the dataset")).to_be_visible()  # the photo itself
    expect(page.get_by_role("region", name="backbone")).to_contain_text("it has no classifier")
    expect(page.locator("#status")).to_contain_text("backbone: no scores.")


def test_the_switch_of_the_readout_shows_what_changes(page, place):
    upload(page, place / "photo.png")
    section = page.get_by_role("region", name="cls", exact=True)
    expect(section).to_be_visible()
    page.get_by_role("radio", name="mean", exact=True).check()
    expect(section.get_by_role("table", name="Its own readout, cls")).to_be_visible()
    assert scores(section.inner_html()) == pytest.approx([*expected(place, "mean"), *expected(place)], rel=1e-5)
    expect(section).to_contain_text("The classifier was trained on the readout 'cls' and reads 'mean' here.")
    page.get_by_role("radio", name="cls_mean").check()
    expect(section).to_contain_text("no classifier that was trained for the width of the readout 'cls_mean'")
    expect(section.get_by_role("table")).to_have_count(0)
    expect(section.locator("figure")).to_have_count(4)


def test_files_that_cannot_be_used_give_a_message_and_the_page_lives_on(page, place):
    for name, words in (
        ("broken.png", "This file: cannot be read as an image"),
        ("large.png", "exceed the maximum allowed size of 20.0 Mb"),
    ):
        upload(page, place / name)
        expect(page.get_by_text(words).first).to_be_visible()
        upload(page, place / "photo.png")
        expect(page.get_by_role("table", name="Readout cls")).to_be_visible()
        page.reload()
    page.get_by_role("radio", name="mean", exact=True).check()
    expect(page.get_by_text("Choose an image first.")).to_be_visible()


def test_keys_alone_are_enough(page, place):
    def press_until(target, key: str = "Tab") -> None:
        for _ in range(30):
            page.keyboard.press(key)
            if target.evaluate("element => element === document.activeElement"):
                return
        raise AssertionError(f"{target} is not reached by {key}")

    press_until(page.get_by_role("button", name="Click to upload or drop files"))
    with page.expect_file_chooser() as chooser:
        page.keyboard.press(
            "Space"
        )  # Enter does the same, but headless Chromium does not always count it as a user's act
    chooser.value.set_files(place / "photo.png")
    section = page.get_by_role("region", name=LONG_NAME)
    expect(section).to_contain_text("block 3 of 3, mean of 2 heads")
    press_until(page.get_by_role("radio", name="cls", exact=True))
    page.keyboard.press("Space")
    expect(page.get_by_role("radio", name="cls", exact=True)).to_be_checked()
    press_until(page.locator("#block input"))
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(section).to_contain_text(re.compile(r"block [12] of 3"))


def test_blocks_and_heads_that_a_model_lacks_are_named(page, place):
    upload(page, place / "photo.png")
    for dropdown, choice in (("#block input", "3"), ("#head input", "2")):
        page.locator(dropdown).click()
        option = page.get_by_role("option", name=choice, exact=True).filter(visible=True)
        expect(option).to_have_count(1)  # the other list has closed
        option.click()
    expect(page.get_by_role("region", name=LONG_NAME)).to_contain_text("block 3 of 3, head 2 of 2")
    expect(page.get_by_role("region", name="cls", exact=True)).to_contain_text("This model has no block 3: it has 2.")


def test_a_phone_shows_all_without_scrolling_sideways(page, place):
    page.set_viewport_size({"width": 390, "height": 844})
    upload(page, place / "photo.png")
    expect(page.get_by_role("table", name="Readout cls")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    right = page.evaluate(
        "Math.max(...[...document.querySelectorAll('#results *')].map(e => e.getBoundingClientRect().right))"
    )
    assert right <= 390


def test_screen_readers_get_a_name_for_everything(page, place):
    upload(page, place / "photo.png")
    expect(page.get_by_role("table", name="Readout cls")).to_be_visible()
    assert page.evaluate("document.documentElement.lang") == "en"
    expect(page.get_by_role("group", name="Readout")).to_be_visible()
    expect(page.locator("#status")).to_have_attribute("aria-live", "polite")
    assert page.locator("#results img:not([alt]), #results img[alt='']").count() == 0
    for dropdown, name in (("#block input", "Block of the attention"), ("#head input", "Head of the attention")):
        expect(page.locator(dropdown)).to_have_accessible_name(name)


def test_fifty_requests_at_once_get_the_same_answer(address, place):
    # A request takes three threads of the client, and with its 40 the one of Gradio 6.17 waits forever: gradio#13760.
    client = Client(address, verbose=False, max_workers=4 * AT_ONCE, httpx_kwargs={"timeout": 600})

    def look(_: int) -> str:
        *_, results = client.submit(handle_file(place / "photo.png"), *OWN, api_name="/look").result()
        return results

    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = set(threads.map(look, range(AT_ONCE)))
    (answer,) = answers
    assert scores(answer)[:5] == pytest.approx(expected(place), rel=1e-5)


def test_the_server_itself_refuses_large_files_and_lives_on(address, place):
    url = f"{address}gradio_api/upload"
    with (place / "large.png").open("rb") as large:
        assert httpx.post(url, files={"files": large}, timeout=120).status_code == 413
    assert httpx.get(address).status_code == 200
    assert not [file for file in files_in(place / "temporary") if file.stat().st_size > 2**20]


SHORT = """
import sys
import modeling_vit_cls.page.app as app
from hub_scripts.__main__ import main
app.FILE_SECONDS = 1
app.MAX_WAITING = 2
sys.exit(main(sys.argv[1:]))
"""


def test_a_full_queue_refuses_and_uploaded_files_are_deleted_while_the_page_runs(place, tmp_path):
    with server(["-c", SHORT, "demo", str(place / "backbone")], tmp_path) as address:
        client = Client(address, verbose=False, httpx_kwargs={"timeout": 600})
        requests = [client.submit(handle_file(place / f"{n}.png"), *OWN, api_name="/look") for n in range(9)]
        errors = [str(error) for request in requests if (error := request.exception())]
        assert 0 < len(errors) < 9
        assert all("queue is full" in error.lower() for error in errors), errors
        for _ in range(600):
            if not files_in(tmp_path):
                break
            time.sleep(0.1)
        assert files_in(tmp_path) == []


def test_the_space_serves_the_same_page(place, tmp_path):
    shutil.copytree(ROOT / "hub_scripts" / "space", tmp_path / "space")
    (tmp_path / "temporary").mkdir()
    port = str(41_000 + os.getpid() % 20_000)
    names = {"MODELS": str(place / "backbone"), "GRADIO_SERVER_PORT": port}
    with server([str(tmp_path / "space" / "app.py")], tmp_path / "temporary", **names):
        client = Client(f"http://127.0.0.1:{port}", verbose=False)
        *_, line, _ = client.predict(handle_file(place / "photo.png"), *OWN, api_name="/look")
    assert line == "backbone: no scores."
