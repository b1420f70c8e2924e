"""Damaged image files: pixels or a BadImageError that names the file, at once and in little memory."""

import base64
import io
import os
import random
import resource
import socket
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from matrix import SOAK
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from test_fault_corruptions import corrupted

from modeling_vit_cls import BadImageError, ViTClsImageProcessor
from modeling_vit_cls.images.rgb import FORMATS, load_image

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
FAULTS = ["bit", "zeroed block", "swapped blocks", "inserted", "truncated", "appended", "html", "empty"]
PROCESSOR = ViTClsImageProcessor(size={"height": 8, "width": 8})
FAST = {"WEBP": {"lossless": True, "method": 0}, "AVIF": {"speed": 10}}
MEMORY = 600_000_000  # bytes that all the cases of a test may add to the process's peak


@pytest.fixture(autouse=True)
def little_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < MEMORY


def read(tally, path):
    """pixel_values of a file, or our error; what Pillow warns of in a damaged file is no failure of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = tally.attempt(lambda: PROCESSOR(path)["pixel_values"])
    if isinstance(found, Exception):
        assert isinstance(found, BadImageError)
        assert str(path) in str(found)
        assert len(str(found)) < 1000
        tally.note("refused by name")
    else:
        assert found.shape == (1, 3, 8, 8)
        assert np.isfinite(found).all()
        tally.note("read")
    return found


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000"])
def test_mutated_files(kind, tmp_path, tally):
    file, chance = io.BytesIO(), random.Random(kind)
    Image.fromarray(PIXELS).save(file, kind)
    path = tmp_path / f"image.{kind.lower()}"
    for case in range(500 * SOAK):
        damaged = file.getvalue()
        for _ in range(chance.randrange(1, 4)):
            damaged = corrupted(damaged, FAULTS[case % len(FAULTS)], chance) if damaged else damaged
        path.write_bytes(damaged)
        read(tally, path)
    assert tally.outcomes["refused by name"] > 50 * SOAK


def test_every_format_of_pillow_is_read_or_refused(tmp_path, tally):
    """What each of its plugins writes, under the name of a photograph, whole and damaged."""
    Image.init()
    chance = random.Random(0)
    for kind in sorted(Image.SAVE):
        for mode in ("RGB", "L", "1", "F"):
            file = io.BytesIO()
            try:
                Image.fromarray(PIXELS).convert(mode).save(file, kind)
            except Exception:  # it cannot write this mode, or is not built in
                continue
            path = tmp_path / "holiday.jpg"
            path.write_bytes(file.getvalue())
            found = read(tally, path)
            assert isinstance(found, Exception) == (kind not in FORMATS or mode == "F")
            for case in range(4 * SOAK):
                path.write_bytes(corrupted(file.getvalue(), FAULTS[case % len(FAULTS)], chance))
                read(tally, path)
            break


def test_no_program_is_started_for_an_image(tmp_path, tally, monkeypatch):
    program, mark = tmp_path / "gs", tmp_path / "started"
    program.write_text(f'#!/bin/sh\ntouch {mark}\n[ "$1" = --version ] && echo 10.0 && exit 0\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "holiday.jpg").write_bytes(text)
    assert isinstance(read(tally, tmp_path / "holiday.jpg"), BadImageError)
    with pytest.raises(BadImageError, match="format"):  # nor for one that someone else has opened
        PROCESSOR(Image.open(io.BytesIO(text)))
    with pytest.raises(BadImageError, match="formats are JPEG"):
        load_image(text)
    assert not mark.exists()


def test_what_is_no_image_is_told_what_is(tmp_path):
    file = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(file)
    with Image.open(file) as closed:
        pass
    with pytest.raises(BadImageError, match=r"PngImageFile: was closed before .* use it inside `with`"):
        load_image(closed)
    with open(file, "rb") as opened:
        for wrong in (opened, io.BytesIO(file.read_bytes()), None, {"path": str(file)}):
            with pytest.raises(BadImageError, match=f"{type(wrong).__name__}: expected a path, the bytes of a file"):
                load_image(wrong)
    with pytest.raises(
        BadImageError, match="holds the image itself, expected a path: give the bytes, base64.b64decode"
    ):
        load_image("data:image/png;base64," + base64.b64encode(file.read_bytes()).decode())


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_each_kind_of_bytes_is_a_file(kind):
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    np.testing.assert_array_equal(np.asarray(load_image(kind(file.getvalue()))), PIXELS)
    np.testing.assert_array_equal(np.asarray(load_image(memoryview(PIXELS))), PIXELS)


@pytest.mark.parametrize("mode", ["LA", "La", "RGBA", "RGBa", "PA"])
def test_a_transparent_image_is_on_white_in_each_mode(mode):
    image = Image.new("RGBA", (3, 2), (0, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    for step in {"La": ("LA", "La"), "PA": ("PA",)}.get(mode, (mode,)):
        image = image.convert(step)
    found = np.asarray(load_image(image))
    assert found[0, 1].tolist() == [255, 255, 255]
    assert (np.delete(found.reshape(6, 3), 1, axis=0) == 0).all()


def test_whatever_has_no_words_is_named_by_its_kind(monkeypatch, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")

    def fail(*_):
        raise AssertionError

    monkeypatch.setattr(PngImageFile, "load_read", fail)
    with pytest.raises(BadImageError, match=r"cannot be read as an image \(AssertionError\)"):
        load_image(tmp_path / "a.png")


def test_only_regular_files_are_opened(tmp_path, tally):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    os.symlink("/dev/zero", tmp_path / "device.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s.jpg"))
        for name in ("pipe.jpg", "folder.jpg", "device.jpg", "s.jpg"):
            error = read(tally, tmp_path / name)
            assert "expected a regular file" in str(error)
    os.symlink("loop.jpg", tmp_path / "loop.jpg")
    assert isinstance(read(tally, tmp_path / "loop.jpg"), BadImageError)


@pytest.mark.parametrize(
    "raised", [RuntimeError, NotImplementedError, EOFError, AttributeError, struct.error, zlib.error]
)
def test_whatever_pillow_raises_is_one_error(raised, tmp_path, tally, monkeypatch):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")

    def fail(*_):
        raise raised("of a decoder")

    monkeypatch.setattr(PngImageFile, "load_read", fail)
    assert isinstance(read(tally, tmp_path / "a.png"), BadImageError)
    with pytest.raises(BadImageError, match="row 7: cannot be read"):
        load_image((tmp_path / "a.png").read_bytes(), name="row 7")


# Of pixels that are all alike, a file of some bytes; sides by which a decoder would need more than it may.
@pytest.mark.parametrize(
    ("kind", "mode", "side"),
    [
        ("WEBP", "RGB", 6000),
        ("AVIF", "RGB", 7200),
        ("JPEG2000", "RGB", 5200),
        ("JPEG", "CMYK", 7600),
        ("PNG", "LA", 9500),
    ],
)
def test_what_decoding_takes_is_known_before(kind, mode, side, tmp_path, tally):
    path = tmp_path / "small.bin"
    save = f"Image.new({mode!r}, ({side}, {side})).save({str(path)!r}, {kind!r}, **{FAST.get(kind, {})})"
    subprocess.run(
        [sys.executable, "-c", f"from PIL import Image; {save}"], check=True
    )  # whose own memory is not counted here
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "bytes to decode" in str(read(tally, path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB


def test_a_narrow_image_does_not_grow_while_it_is_resized(tmp_path, tally):
    for width, height in ((1, 65_537), (90_000_000, 1), (1, 65_536)):
        (tmp_path / "line.png").write_bytes(png(width, height, zlib.compress(bytes(2 * 65_536))))
        assert isinstance(read(tally, tmp_path / "line.png"), BadImageError) == (max(width, height) > 65_536)
    with pytest.raises(BadImageError, match="would become"):  # half-way, one side is resized and the other is not
        ViTClsImageProcessor(size=1024)(tmp_path / "line.png")


def tiff(width: int, height: int, tile: int) -> bytes:
    """A grey TIFF of one tile, compressed (LZW), whose data is a few bytes."""
    data = b"\x80" + bytes(20)
    tags = {256: width, 257: height, 258: 8, 259: 5, 262: 1, 277: 1, 322: tile, 323: tile, 324: 8, 325: len(data)}
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in tags)
    start = 8 + len(data) + len(data) % 2
    return struct.pack("<2sHI", b"II", 42, start) + data.ljust(start - 8, b"\0") + directory + bytes(4)


def test_a_tile_may_not_be_larger_than_an_image(tmp_path, tally):
    (tmp_path / "tile.tiff").write_bytes(tiff(8, 8, 60_000))
    assert "bytes to decode" in str(read(tally, tmp_path / "tile.tiff"))


def png(width: int, height: int, rows: bytes, bits: int = 8, colours: int = 1, clear: bytes | None = None) -> bytes:
    """A PNG, grey or of 3 `colours`, that says it is so large; `clear` is the value of its transparent pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, 2 if colours == 3 else 0, 0, 0, 0)
    chunks = [(b"IHDR", header), *([(b"tRNS", clear)] if clear else []), (b"IDAT", rows), (b"IEND", b"")]
    lines = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(lines)


@pytest.mark.parametrize("side", [10_001, 13_000, 60_000, 2**31 - 1])
def test_bombs_are_refused_by_their_header(side, tmp_path, tally):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, zlib.compress(bytes(1_000_000))))
    error = read(tally, path)
    assert isinstance(error, BadImageError)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
def test_odd_sizes_are_read(size, tmp_path, tally):
    Image.new("RGB", size, (10, 200, 30)).save(tmp_path / "odd.png")
    found = read(tally, tmp_path / "odd.png")
    expected = PROCESSOR(Image.new("RGB", (8, 8), (10, 200, 30)))["pixel_values"]
    np.testing.assert_allclose(found, expected, atol=0.02)
