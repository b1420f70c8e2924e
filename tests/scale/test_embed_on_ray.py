"""The program of docs/embed_on_ray.md, in Ray's local mode: actors are killed, shards are missing, arguments change."""

import importlib.util
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
from conftest import tiny_model
from embedded import content, read, whole_shards
from PIL import Image

from modeling_vit_cls import FlaxViTClsModel
from modeling_vit_cls.embed import embed

PAGE = Path(__file__).parents[2] / "docs" / "embed_on_ray.md"
ROWS, SHARDS, KILLS = 600, 60, 4


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the program, a model, photos, and `unbroken`, what a run without Ray has made of them."""
    if importlib.util.find_spec("ray") is None:
        pytest.fail("Ray is missing: run this test by `make scale`, which installs it into .venv-ray", pytrace=False)
    place = tmp_path_factory.mktemp("place")
    (program,) = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (place / "embed_on_ray.py").write_text(program)
    tiny_model(FlaxViTClsModel).save_pretrained(place / "model")
    (place / "photos").mkdir()
    generator = np.random.default_rng(0)
    for row in range(ROWS):
        pixels = generator.integers(0, 256, (200, 160, 3), np.uint8)
        Image.fromarray(pixels).save(place / "photos" / f"{row:03d}.jpg")
    model = FlaxViTClsModel.from_pretrained(place / "model")
    photos = datasets.load_dataset(str(place / "photos"), split="train")
    embed(model, photos, place / "unbroken", shards=SHARDS, disable_tqdm=True)
    return place


def started(place: Path, output: Path, shards: int = SHARDS) -> subprocess.Popen:
    """The program with two actors, in Ray's local mode. What it prints goes to `place / "log"`."""
    inputs = [str(place / "model"), str(place / "photos")]
    command = [sys.executable, str(place / "embed_on_ray.py"), *inputs, str(output)]
    command += ["--actors", "2", "--shards", str(shards)]
    environment = {**os.environ, "HOME": str(place), "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    with open(place / "log", "w") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


def actors_at_work(program: subprocess.Popen) -> list:
    """The processes of the program's actors that are in a call of `embed`."""
    import psutil

    actors = []
    for process in psutil.Process(program.pid).children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:  # it has ended meanwhile
            continue
        if title.startswith("ray::Embedder.embed"):
            actors.append(process)
    return actors


def test_actors_are_killed_and_every_row_is_embedded_once_with_the_same_bytes(place, tmp_path):
    """Each kill comes after a random number of shards; those before it have killed other actors, or the same again."""
    chance, killed = random.Random(0), []
    program = started(place, tmp_path / "out")
    for stop in sorted(chance.sample(range(SHARDS // 3), KILLS)):
        while whole_shards(tmp_path / "out") < stop or not (actors := actors_at_work(program)):
            assert program.poll() is None, (place / "log").read_text()
            time.sleep(0.01)
        actor = chance.choice(actors)
        actor.send_signal(signal.SIGKILL)
        actor.wait()
        killed.append(actor.pid)
        assert whole_shards(tmp_path / "out") < SHARDS
    assert program.wait() == 0, (place / "log").read_text()
    assert len(set(killed)) == KILLS
    assert f"{ROWS} images, {SHARDS} shards" in (place / "log").read_text()
    assert sorted(read(tmp_path / "out")["row"]) == list(range(ROWS))
    files = {name: file for name, file in content(tmp_path / "out").items() if not name.startswith(".embed.json.tmp-")}
    assert files == content(place / "unbroken")


def test_the_same_command_does_the_missing_shards_alone_and_another_one_is_refused(place, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    for name, file in content(place / "unbroken").items():
        (output / name).write_bytes(file)
    missing = {f"part-{shard:05d}-of-{SHARDS:05d}.parquet" for shard in (3, 30, 59)}
    for name in missing:
        (output / name).unlink()
    before = {file.name: file.stat().st_ino for file in output.iterdir()}
    assert started(place, output).wait() == 0, (place / "log").read_text()
    assert content(output) == content(place / "unbroken")
    after = {file.name: file.stat().st_ino for file in output.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == missing
    assert started(place, output, shards=SHARDS + 1).wait() == 1
    message = f"shards={SHARDS + 1}: the shards in {output} have shards={SHARDS}: give another folder"
    assert message in (place / "log").read_text()
