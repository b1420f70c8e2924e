"""Weight files of every format: read right, lightly, and never as pickle."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from conftest import read_npz
from flax.serialization import msgpack_serialize
from flax.traverse_util import unflatten_dict
from safetensors.numpy import save_file
from test_families import GOLDEN

from modeling_vit_cls import (
    CheckpointError,
    FlaxViTClsForImageClassification,
    FlaxViTClsModel,
    ViTClsConfig,
    export_pretrained,
)
from modeling_vit_cls.files.formats import read_file
from modeling_vit_cls.files.tensor import DTYPES
from modeling_vit_cls.files.writing import write_safetensors

ARRAYS = {
    "a/b/kernel": np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32),
    "a/b/bias": np.arange(20, dtype=np.float16),
    "a/short": np.arange(8, dtype=np.float32).astype(ml_dtypes.bfloat16),
    "scale": np.linspace(0, 1, 7),
    **{f"many/{i}": np.full((i + 1, 2), i, np.float32) for i in range(20)},
}


def write(file: Path, arrays: dict[str, np.ndarray]) -> Path:
    if file.suffix == ".msgpack":
        file.write_bytes(msgpack_serialize(unflatten_dict(dict(arrays), sep="/")))
    elif file.suffix == ".safetensors":
        save_file({name.replace("/", "."): array for name, array in arrays.items()}, file)
    elif file.stem == "compressed":
        np.savez_compressed(file, **arrays)  # pyright: ignore
    else:
        np.savez(file, **arrays)  # pyright: ignore
    return file


FILES = ["model.safetensors", "flax_model.msgpack", "plain.npz", "compressed.npz"]


def test_a_file_is_written_as_safetensors_writes_it(tmp_path):
    """Array by array: the same bytes, but for the metadata, which safetensors has in a random order."""
    chance = np.random.default_rng(0)
    types = [ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype for dtype in DTYPES.values()]
    arrays = {f"{name}{i}": (9 * chance.random((3, 5))).astype(dtype) for i, dtype in enumerate(types) for name in "ba"}
    arrays |= {'"é\n': np.array(3, np.int32), "empty": np.zeros((0, 3), np.float32), "turned": np.ones((4, 3)).T}
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    write_safetensors(ours, {**arrays, "placed": jnp.arange(3), "swapped": np.arange(3, dtype=">f4")}, {"a": "é\n"})
    arrays |= {"placed": np.arange(3, dtype=np.int32), "swapped": np.arange(3, dtype=np.float32)}
    save_file({name: np.array(array, order="C") for name, array in arrays.items()}, theirs, {"a": "é\n"})
    assert ours.read_bytes() == theirs.read_bytes()
    with pytest.raises(TypeError, match="'b' has the type complex64, expected one of uint64"):
        write_safetensors(ours, {"b": np.zeros(3, np.complex64)}, {})


@pytest.mark.parametrize("name", FILES)
def test_every_array_of_every_type_is_read(name, tmp_path):
    found = read_file(write(tmp_path / name, ARRAYS))
    assert set(found) == {key.replace("/", ".") for key in ARRAYS}
    for key, array in ARRAYS.items():
        tensor = found[key.replace("/", ".")]
        assert (tensor.shape, tensor.dtype) == (array.shape, array.dtype.name)
        np.testing.assert_array_equal(tensor.read(), array)


def test_what_stands_in_a_msgpack_array_is_checked_byte_by_byte(tmp_path):
    whole = write(tmp_path / "flax_model.msgpack", {"a/kernel": np.ones((8, 4), np.float32)}).read_bytes()
    assert whole.count(b"\xc4\x80") == 1  # binary data of 128 bytes
    wrong = {b"\xa7float32": [b"\xa7,loat32", b"\xa7objects", b"\xa7float3\x00", b"\xa7complex"]}
    wrong |= {b"\xc4\x80": [b"\xc5\x80", b"\xc4\x7f", b"\x00\x00"]}
    for right, others in wrong.items():
        for other in others:
            file = tmp_path / "changed.msgpack"
            file.write_bytes(whole.replace(right, other))
            with pytest.raises(CheckpointError, match="changed.msgpack"):
                read_file(file)


def test_arrays_in_fortran_order_keep_their_rows(tmp_path):
    array = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    np.savez(tmp_path / "file.npz", array=array)
    np.testing.assert_array_equal(read_file(tmp_path / "file.npz")["array"].read(), array)


@pytest.mark.parametrize("name", FILES)
def test_what_was_read_does_not_change_with_the_file(name, tmp_path):
    file = write(tmp_path / name, ARRAYS)
    array = read_file(file)["a.b.kernel"].read()
    file.write_bytes(bytes(file.stat().st_size))
    np.testing.assert_array_equal(array, ARRAYS["a/b/kernel"])


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_ends_early_or_is_something_else_is_named(name, tmp_path):
    whole = write(tmp_path / name, ARRAYS).read_bytes()
    file = tmp_path / name
    for length in (0, 1, 7, 20, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=str(file)):
            all(tensor.read().size for tensor in read_file(file).values())
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        read_file(file)


def test_an_array_of_objects_is_refused_unread(tmp_path):
    np.savez(tmp_path / "file.npz", evil=np.array([print], dtype=object))
    with pytest.raises(CheckpointError, match="array 'evil' holds pickled objects, which are never read"):
        FlaxViTClsModel.from_pretrained(tmp_path / "file.npz")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "dino_vits16.pth", "model.ckpt"])
def test_pickles_are_refused_with_the_remedy(name, tmp_path):
    shutil.copy(GOLDEN / "vit" / "config.json", tmp_path)
    (tmp_path / name).write_bytes(b"\x80\x04.")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(CheckpointError, match="never read") as error:
            FlaxViTClsModel.from_pretrained(path)
        assert f"weights_only=True) for file in [{name!r}]" in str(error.value)


def test_of_several_weight_files_one_must_be_given(tmp_path):
    for name in ("a.npz", "b.npz"):
        shutil.copy(GOLDEN / "npz_augreg" / "checkpoint.npz", tmp_path / name)
    with pytest.raises(CheckpointError, match="several weight files.*a.npz"):
        FlaxViTClsModel.from_pretrained(tmp_path)
    FlaxViTClsModel.from_pretrained(tmp_path / "a.npz")


def test_the_folder_of_a_raw_state_dict_may_have_any_name_in_it(tmp_path):
    shutil.copy(GOLDEN / "meta_dinov2" / "model.safetensors", tmp_path / "dinov2_vits14.safetensors")
    assert FlaxViTClsModel.from_pretrained(tmp_path).config.position_interpolation == "bicubic_offset"


def test_weights_that_are_of_no_family_are_refused_with_those_there_are(tmp_path):
    save_file({"layer1.0.conv1.weight": np.zeros((3, 3), np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="torchvision.*Meta's DINO.*these tensor names match none"):
        FlaxViTClsModel.from_pretrained(tmp_path)


MEASURE = """
import sys
import jax, jax.numpy as jnp
from modeling_vit_cls import FlaxViTClsForImageClassification as Model

def mebibytes(kind):
    return int(next(line for line in open("/proc/self/status") if line.startswith(kind)).split()[1]) / 1024

jnp.zeros(3).block_until_ready()
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
before = mebibytes("VmRSS")
model = Model.from_pretrained(sys.argv[1])
jax.block_until_ready(model.params)
print(mebibytes("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux's /proc")
@pytest.mark.parametrize("kind", ["ours", "transformers", "timm"])
def test_a_load_takes_little_more_memory_than_the_weights(kind, tmp_path):
    config = ViTClsConfig(num_hidden_layers=6, num_labels=10)
    shapes, generator = (
        FlaxViTClsForImageClassification(config, _do_init=False).params_shape_tree,
        np.random.default_rng(0),
    )
    params = jax.tree.map(lambda leaf: generator.standard_normal(leaf.shape, dtype=np.float32), shapes)
    model = FlaxViTClsForImageClassification(config, params=params)
    if kind == "ours":
        model.save_pretrained(tmp_path / "out")
    else:
        export_pretrained(model, tmp_path / "out", kind)
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, str(tmp_path / "out")]
    peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    weights = (tmp_path / "out" / "model.safetensors").stat().st_size / 2**20
    assert peak < 1.15 * weights + 16, f"{peak:.0f} MiB for {weights:.0f} MiB of weights"  # 16 for code that runs first


def test_bfloat16_of_big_vision_is_read_by_its_two_bytes(tmp_path):
    arrays = read_npz(GOLDEN / "npz_map" / "checkpoint.npz")
    half = {name: array.astype(ml_dtypes.bfloat16) for name, array in arrays.items()}
    np.savez(tmp_path / "half.npz", **half)  # pyright: ignore
    model = FlaxViTClsForImageClassification.from_pretrained(tmp_path / "half.npz")
    kernel = model.params["classifier"]["kernel"]
    assert kernel.dtype == "bfloat16"
    np.testing.assert_array_equal(kernel, half["params/head/kernel"])


def test_settings_beside_a_weight_file_are_its_settings(tmp_path):
    for name in ("config.json", "flax_model.msgpack"):
        shutil.copy(GOLDEN / "flax_vit" / name, tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**fields, "hidden_act": "relu"}))
    model = FlaxViTClsForImageClassification.from_pretrained(tmp_path / "flax_model.msgpack")
    assert model.config.hidden_act == "relu"


def test_another_byte_order_and_a_name_that_stands_twice_are_refused(tmp_path):
    np.savez(tmp_path / "big.npz", kernel=np.ones(3, ">f4"))
    with pytest.raises(CheckpointError, match="expected this machine's byte order"):
        read_file(tmp_path / "big.npz")
    np.savez(tmp_path / "twice.npz", **{"head/kernel": np.ones(3), "head.kernel": np.zeros(3)})  # pyright: ignore
    with pytest.raises(CheckpointError, match="holds 'head.kernel' twice"):
        read_file(tmp_path / "twice.npz")
