"""Damaged weight files: an error that names the file or the very same weights, and never anything between."""

import random
import shutil
import struct
from pathlib import Path

import jax
import numpy as np
import pytest
from matrix import SOAK
from test_families import GOLDEN

from modeling_vit_cls import CheckpointError, FlaxViTClsForImageClassification, FlaxViTClsModel

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
PAGE = b"<!DOCTYPE html><html><body>404: not found</body></html>\n"
STRUCTURAL = ["truncated", "appended", "git-lfs", "html", "empty"]
FAULTS = ["bit", "header bit", "zeroed block", "swapped blocks", "inserted", *STRUCTURAL]


def corrupted(whole: bytes, how: str, chance: random.Random) -> bytes:
    """A file with one fault; a header is taken to stand where safetensors has it."""
    place, data = chance.randrange(len(whole)), bytearray(whole)
    if how == "bit":
        data[place] ^= 1 << chance.randrange(8)
    elif how == "header bit":
        data[chance.randrange(min(len(whole), 8 + struct.unpack("<Q", whole[:8])[0]))] ^= 1 << chance.randrange(8)
    elif how == "zeroed block":
        data[place : place + 512] = bytes(len(data[place : place + 512]))
    elif how == "swapped blocks":
        other = chance.randrange(len(whole))
        data[place : place + 64], data[other : other + 64] = whole[other : other + 64], whole[place : place + 64]
    elif how == "inserted":
        data[place:place] = chance.randbytes(chance.randrange(1, 9))
    elif how == "truncated":
        del data[place:]
    elif how == "appended":
        data += chance.randbytes(chance.randrange(1, 600))
    else:
        data = bytearray({"git-lfs": POINTER, "html": PAGE, "empty": b""}[how])
    return bytes(data)


def same(a, b) -> bool:
    """Whether two trees are the same to the bit."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b))
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes() and x.dtype == y.dtype for x, y in pairs
    )


@pytest.mark.parametrize("shards", ["5GB", "8KB"])
@pytest.mark.parametrize("how", FAULTS)
def test_no_corruption_of_ours_goes_unseen(how, shards, model, tmp_path, tally):
    model.save_pretrained(tmp_path, max_shard_size=shards)
    chance, files = random.Random(f"{how} {shards}"), sorted(tmp_path.glob("*.safetensors"))
    cases = 100 * SOAK
    for _ in range(cases):
        file = chance.choice(files)
        whole = file.read_bytes()
        file.write_bytes(damaged := corrupted(whole, how, chance))
        loaded = tally.attempt(lambda: FlaxViTClsForImageClassification.from_pretrained(tmp_path))
        file.write_bytes(whole)
        if isinstance(loaded, Exception):
            assert isinstance(loaded, CheckpointError)
            assert str(tmp_path) in str(loaded)
            tally.note("refused by name")
        else:
            assert same(loaded.params, model.params), "silently wrong"
            tally.note("same weights")
            assert how not in STRUCTURAL or damaged == whole
    assert tally.outcomes["refused by name"] > cases // 2


# Their files have no digests: what is changed inside a number cannot be seen, and is never said to be verified.
@pytest.mark.parametrize("how", FAULTS)
@pytest.mark.parametrize(
    ("folder", "name"),
    [("vit", "model.safetensors"), ("flax_vit", "flax_model.msgpack"), ("npz_augreg", "checkpoint.npz")],
)
def test_no_corruption_of_other_libraries_files_is_passed_off_as_verified(folder, name, how, tmp_path, tally):
    shutil.copytree(GOLDEN / folder, tmp_path, dirs_exist_ok=True)
    file: Path = tmp_path / name
    whole, chance = file.read_bytes(), random.Random(f"{how} {folder}")
    right = FlaxViTClsModel.from_pretrained(file)
    for _ in range(17 * SOAK):
        file.write_bytes(corrupted(whole, how, chance))
        loaded = tally.attempt(lambda: FlaxViTClsModel.from_pretrained(file, output_loading_info=True))
        if isinstance(loaded, Exception):
            assert isinstance(loaded, CheckpointError)
            assert str(tmp_path) in str(loaded)
            tally.note("refused by name")
        else:
            found, report = loaded
            assert report.verified_keys == []
            assert jax.tree.map(np.shape, found.params) == jax.tree.map(np.shape, right.params)
            # a zip archive may have a comment after it; any other file that is not whole is refused
            assert how not in STRUCTURAL or (how == "appended" and same(found.params, right.params))
            tally.note("loaded, not verified")
