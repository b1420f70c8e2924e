"""Damaged image files: pixels or a BadImageError that names the file, at once and in little memory."""

import io
import random
import resource
import struct
import warnings
import zlib

import numpy as np
import pytest
from matrix import SOAK
from PIL import Image
from test_fault_corruptions import corrupted

from modeling_vit_cls import BadImageError, ViTClsImageProcessor

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
FAULTS = ["bit", "zeroed block", "swapped blocks", "inserted", "truncated", "appended", "html", "empty"]
PROCESSOR = ViTClsImageProcessor(size={"height": 8, "width": 8})
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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
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
    assert tally.outcomes["refused by name"] > 100 * SOAK


def png(width: int, height: int, rows: bytes) -> bytes:
    """A grey PNG that says it is so large."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
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
