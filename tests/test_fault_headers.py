"""Files that lie about what they hold: refused by name, at once, and before memory is taken for it."""

import json
import os
import random
import resource
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_config
from flax.serialization import msgpack_serialize
from matrix import SOAK
from test_families import GOLDEN

from modeling_vit_cls import CheckpointError, FlaxViTClsModel
from modeling_vit_cls.files.weights import read_weights

MEMORY = 200_000_000  # bytes that all the cases of a test may add to the process's peak
DATA = bytes(range(256))


@pytest.fixture(autouse=True)
def little_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < MEMORY


def refused(tally, path: Path, file: Path) -> None:
    """Assert that a path is refused and that the message names the file."""
    error = tally.attempt(lambda: FlaxViTClsModel.from_pretrained(path))
    assert isinstance(error, CheckpointError), error
    assert str(file) in str(error)
    tally.note("refused by name")


def value(chance: random.Random):
    """Any JSON value, small or absurd."""
    numbers = [0, 1, -1, 3, 64, 256, 2**31, 2**53, 2**63, 2**64, 10**300, 1.5, float("nan"), float("inf")]
    texts = ["", "F32", "F64", "BF16", "I8", "BOOL", "F8_E4M3", "float32", "x" * 500, "\0", "..", "a.b.c", "é"]
    kind = chance.randrange(5)
    if kind < 2:
        return chance.choice(numbers)
    if kind == 2:
        return chance.choice([*texts, None, True, False])
    if kind == 3:
        return [value(chance) for _ in range(chance.randrange(4))]
    return {chance.choice(texts): value(chance) for _ in range(chance.randrange(3))}


def header(chance: random.Random) -> tuple[bytes, int]:
    """A safetensors header, some things in it changed for anything, and how many bytes its tensors fill if not."""
    entries, start = [], 0
    for number in range(chance.randrange(1, 5)):
        count = chance.randrange(0, 17)
        offsets = [start, start + 4 * count]
        entries.append((f"t{number}", {"dtype": "F32", "shape": [count], "data_offsets": offsets}))
        start += 4 * count
    for _ in range(chance.randrange(3)):
        place = chance.randrange(len(entries))
        name, entry = entries[place]
        change = chance.randrange(7)
        if change == 0:
            entries[place] = (chance.choice(["", ".", "a..b", "t0", "\0", "__metadata__", "x" * 9999]), entry)
        elif change == 1 and isinstance(entry, dict) and entry:
            entries[place] = (name, {key: item for key, item in entry.items() if key != chance.choice(list(entry))})
        elif change == 2 and isinstance(entry, dict):
            entries[place] = (name, {**entry, "shape": [value(chance) for _ in range(chance.randrange(4))]})
        elif change == 3 and isinstance(entry, dict):
            entries[place] = (name, {**entry, "data_offsets": [value(chance), value(chance)]})
        elif change == 4:
            entries.append((name, value(chance)))
        elif change == 5:
            metadata = {
                "format": value(chance),
                "xxh3_128": chance.choice(["[", "{}", "[]", '{"t0": 1}', value(chance)]),
            }
            entries.append(("__metadata__", metadata))
        elif isinstance(entry, dict):
            key = chance.choice(["dtype", "shape", "data_offsets", "more"])
            entries[place] = (name, {**entry, key: value(chance)})
    text = "{" + ",".join(f"{json.dumps(name)}:{json.dumps(entry)}" for name, entry in entries) + "}"
    return text.encode() + b" " * chance.randrange(3), start


def test_generated_safetensors_headers(tmp_path, tally):
    file = tmp_path / "model.safetensors"
    for case in range(5000 * SOAK):
        chance = random.Random(case)
        text, start = header(chance)
        said = chance.choice([len(text)] * 30 + [0, len(text) - 1, len(text) + 1, 2**31, 2**63, 2**64 - 1])
        file.write_bytes(struct.pack("<Q", said) + text + DATA[: chance.choice([start] * 9 + [256, 4, 0])])
        found = tally.attempt(lambda: read_weights(tmp_path))
        if isinstance(found, CheckpointError):
            assert str(tmp_path) in str(found)
            assert len(str(found)) < 1000 + len(str(tmp_path))
            tally.note("refused by name")
        else:
            for tensor in found.values():
                outcome = tally.attempt(tensor.read)
                assert isinstance(outcome, CheckpointError) or outcome.shape == tensor.shape
            tally.note("read")
    assert tally.outcomes["refused by name"] > 2000 * SOAK


def test_safetensors_headers_that_would_take_minutes(tmp_path, tally):
    (tmp_path / "config.json").write_text(tiny_config(architectures=["ViTClsModel"]).to_json_string())
    entry, file = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}, tmp_path / "model.safetensors"
    headers = [
        json.dumps({f"t{i}": entry for i in range(200_000)}).encode(),
        b"{" + b" " * 50_000_000 + b"}",
        json.dumps({"." * 200_000: entry}).encode(),
        json.dumps({"a": {**entry, "shape": [0, 2**62]}}).encode(),
        json.dumps({"a": {**entry, "shape": [0] * 100_000}}).encode(),
        b'{"__metadata__":{"xxh3_128":"' + b"[" * 1_000_000 + b'"}}',
        b'{"a":' * 100_000,
    ]
    for text in headers:
        file.write_bytes(struct.pack("<Q", len(text)) + text)
        refused(tally, tmp_path, file)


def npy(shape: str, descr: str = "'<f4'") -> bytes:
    """The header of an array in the npy format, whatever its text says."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def test_arrays_of_an_npz_that_claim_what_is_not_there(tmp_path, tally):
    file = tmp_path / "checkpoint.npz"
    shapes = ["(2**62,)", "(4611686018427387904,)", "(-1,)", "(1000000000, 1000000000)", "(1.5,)", "'x'", "()" * 99]
    entries = [npy(shape) for shape in shapes]
    entries += [
        npy("(1,)", descr) + bytes(8) for descr in ("'|O'", "'>f4'", "'<U4'", "[('a', '<f4')]", "'<f99'", "None")
    ]
    entries += [b"", b"\x93NUMPY", b"\x93NUMPY\x09\x00", npy("(1,)")[:50], b"not an array"]
    for content in entries:
        for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            with zipfile.ZipFile(file, "w", compression) as archive:
                archive.writestr("embedding/kernel.npy", content)
            refused(tally, file, file)


def test_a_bomb_in_an_npz_is_refused_before_it_is_inflated(tmp_path, tally):
    file = tmp_path / "checkpoint.npz"
    for shape in ("(100000000,)", "(7,)"):
        archive = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        with archive, archive.open("embedding/kernel.npy", "w") as opened:
            opened.write(npy(shape))
            for _ in range(40):
                opened.write(bytes(10_000_000))
        refused(tally, file, file)


def test_trees_of_msgpack_that_claim_what_is_not_there(tmp_path, tally):
    shutil.copy(GOLDEN / "flax_vit" / "config.json", tmp_path)
    file, deep = tmp_path / "flax_model.msgpack", {"a": np.zeros(3, np.float32)}
    for _ in range(200):
        deep = {"a": deep}
    contents = [
        msgpack_serialize(deep),
        b"\x81" * 100_000,
        b"\x91" * 100_000,
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
    ]
    contents += [
        b"\x81\xa1a\xc9\xff\xff\xff\xff\x01",
        b"\x80",
        b"\x93\x01\x02\x03",
        b"\xa5hello",
        b"\x2a",
        b"\x81\x01\x01",
    ]
    contents += [msgpack_serialize({"vit": number}) for number in (1, "x", [1, 2], None, 1.5)]
    for content in contents:
        file.write_bytes(content)
        refused(tally, tmp_path, tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "preprocessor_config.json"])
def test_json_of_a_hundred_megabytes_is_refused_by_its_size(name, tmp_path, tally):
    shutil.copytree(GOLDEN / "vit", tmp_path, dirs_exist_ok=True)
    if name.endswith("index.json"):
        (tmp_path / "model.safetensors").unlink()
    with open(tmp_path / name, "wb") as file:
        file.write(b'{"a": "')
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b'"}')
    error = tally.attempt(lambda: FlaxViTClsModel.from_pretrained(tmp_path).image_processor)
    assert isinstance(error, CheckpointError), error
    assert name in str(error)
    assert "bytes" in str(error)
    tally.note("refused by name")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_pipes_and_devices_are_no_files(name, tmp_path, tally):
    for make in (os.mkfifo, lambda path: os.symlink("/dev/zero", path)):
        folder = tmp_path / make.__name__
        shutil.copytree(GOLDEN / "vit", folder)
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
        error = tally.attempt(lambda folder=folder: FlaxViTClsModel.from_pretrained(folder).image_processor)
        assert isinstance(error, CheckpointError), error
        assert str(folder) in str(error)
        tally.note("refused by name")
