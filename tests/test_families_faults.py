"""Other libraries' checkpoints with something wrong are refused by file and tensor, or load as what they then are."""

import contextlib
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import read_npz
from flax.serialization import msgpack_restore, msgpack_serialize
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file, save_file
from test_families import FOLDERS, golden, load

from modeling_vit_cls import CheckpointError, ConfigError, FlaxViTClsModel, export_pretrained
from modeling_vit_cls.families.open import open_checkpoint
from modeling_vit_cls.families.strict import checked_tensors


def read(folder: Path) -> dict[str, np.ndarray]:
    """All arrays of a golden folder's weight file, by their own names."""
    if (folder / "checkpoint.npz").exists():
        return read_npz(folder / "checkpoint.npz")
    if (folder / "flax_model.msgpack").exists():
        tree = msgpack_restore((folder / "flax_model.msgpack").read_bytes())
        return {str(name): array for name, array in flatten_dict(tree, sep="/").items()}
    return load_file(next(folder.glob("*model.safetensors")))


def config_of(folder: Path) -> Path | None:
    """The config of a golden folder, whatever its library calls it; None without one."""
    return next(folder.glob("*config.json"), None)


def write(tensors: dict[str, np.ndarray], like: Path, folder: Path) -> Path:
    """The weight file of a golden folder with other contents, in `folder`."""
    if (like / "checkpoint.npz").exists():
        np.savez(folder / "checkpoint.npz", **tensors)  # pyright: ignore
        return folder / "checkpoint.npz"
    if (like / "flax_model.msgpack").exists():
        (folder / "flax_model.msgpack").write_bytes(msgpack_serialize(unflatten_dict(tensors, sep="/")))
        return folder / "flax_model.msgpack"
    file = folder / next(like.glob("*model.safetensors")).name
    save_file(tensors, file, metadata={"format": "pt"})
    return file


def no_part_of_the_model(folder: Path, name: str) -> bool:
    """Tensors that may be missing or anything: of text towers, of training, and a pooling that is not read."""
    if folder.name == "siglip_classifier" and ".head." in name:
        return True
    if folder.name in ("clip_classifier", "metaclip2_classifier") and "post_layernorm." in name:
        return True
    if folder.name.startswith("open_clip"):
        return not name.startswith("visual.")
    if folder.name == "beit_pretrained" and name.startswith("lm_head."):
        return True
    if folder.name.endswith("radio") and "input_conditioner" in name:
        return True
    outside = ("text_", "logit_", "decoder.", "temperature")
    return name.endswith(("mask_token", "bias_mask", "periods")) or name.startswith(outside)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_each_tensor_removed_renamed_or_reshaped_is_named_and_each_square_one_turned_is_seen(folder, tmp_path):
    model, expected = load(folder)
    pixels, sizes = expected["native.pixels"], {"interpolate_pos_encoding": folder.name.startswith("meta_dinov3")}
    last = next(name for name in ("logits", "image_embeds", "pooler_output") if f"native.{name}" in expected)
    right = model(pixels, **sizes)[last]
    if config := config_of(folder):
        shutil.copy(config, tmp_path)
    whole = read(folder)

    def strictly(file: Path) -> None:
        """The part of a load that refuses, without the model."""
        checked_tensors(open_checkpoint(file), allow_missing=False)

    for number, (name, tensor) in enumerate(whole.items()):
        if no_part_of_the_model(folder, name):
            continue
        rest = {key: value for key, value in whole.items() if key != name}
        faults = {
            "removed": (rest, None),
            "renamed": ({**rest, name + "s": tensor}, name + "s"),
            "reshaped": ({**rest, name: np.append(tensor, tensor.dtype.type(0))}, name),
            "recast": ({**rest, name: tensor.astype(np.int32)}, name),
        }
        if name == "register_tokens":
            del faults["removed"]  # of a file without a config, what is left is a DINOv2 without registers
        if folder.name == "tipsv2_giant" and "." not in name:  # so may a spare tensor be called; one is missing then
            faults["renamed"] = (faults["renamed"][0], None)
        for fault, (tensors, words) in faults.items():
            file = write(tensors, folder, tmp_path)
            words = words and re.escape(f"'{words}'").replace("/", "[./]")
            with pytest.raises((CheckpointError, ConfigError), match=words) as error:
                (strictly if number else type(model).from_pretrained)(file)
            assert str(file) in str(error.value) or "config.json" in str(error.value), fault
        if tensor.ndim == 2 and tensor.shape[0] == tensor.shape[1]:
            file = write({**rest, name: np.ascontiguousarray(tensor.T)}, folder, tmp_path)
            _, params = type(model).from_pretrained(file, _do_init=False)
            wrong = model(pixels, params=params, **sizes)[last]
            assert abs(wrong - right).max() > 1e-3, f"{name} transposed goes unseen"


def groups(folder: Path, names: list[str]) -> dict[str, set[str]]:
    """Tensors that go together: of a module at any depth, of that module in all blocks, of one last name, LayerScales.

    A group is called by what its names begin with, "*" for any number and for anything before a last name.
    """
    found: dict[str, set[str]] = {}
    for name in names:
        parts = name.replace("/", ".").split(".")
        alike = ["*" if part.isdigit() else re.sub(r"_\d+$", "_*", part) for part in parts]
        keys = {".".join(chosen[:end]) for chosen in (parts, alike) for end in range(1, len(parts) + 1)}
        for key in keys | {f"*.{parts[-1]}"}:
            found.setdefault(key, set()).add(name)
    found["LayerScale"] = {name for name in names if re.search(r"\.(ls\d|layer_scale\d)\.|gamma_\d", name)}
    whole = {name for name in names if not no_part_of_the_model(folder, name)}
    return {key: group for key, group in found.items() if group & whole and group != set(names)}


# What may be missing, because what is left is a checkpoint that the library itself could have written: files without a
# config do not say how many blocks there are, and a head is drawn anew, with a warning, where the file is headless.
LEGAL = {
    "meta_dino": {"blocks.1"},
    "meta_dinov2": {"blocks.1"},
    "meta_dinov2_giant": {"blocks.1", "blocks.1.1"},
    "meta_dinov2_registers": {"blocks.1", "register_tokens", "*.register_tokens"},
    "meta_dinov3": {"blocks.1"},
    "meta_dinov3_gated": {"blocks.1"},
    "npz_augreg": {"Transformer.encoderblock_1", "head"},
    "npz_big_vision": {"params.head"},
    "npz_map": {"params.head", "params.MAPHead_0", "params.MAPHead_*"},
    "nvidia_radio": {"radio_model.model.blocks.1", "*.grandma", "LayerScale"},
    "radio": {"*.lambda1", "LayerScale"},
    "torchvision": {"encoder.layers.encoder_layer_1", "heads", "heads.head"},
    "vit_pooler": {"pooler", "pooler.dense"},
}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_each_group_removed_is_named_or_leaves_another_model_of_its_library(folder, tmp_path):
    model, _ = load(folder)
    if config := config_of(folder):
        shutil.copy(config, tmp_path)
    whole, loaded, refusals = read(folder), set(), []
    for key, group in groups(folder, list(whole)).items():
        file = write({name: array for name, array in whole.items() if name not in group}, folder, tmp_path)
        try:
            again, report = type(model).from_pretrained(file, output_loading_info=True)
        except CheckpointError as error:
            refusals.append(str(error))
        else:
            loaded.add(key)
            assert report.new_keys or again.config.to_dict() != model.config.to_dict(), f"nothing misses {key}"
    names_one = f"^{tmp_path}.*(tensor (for our parameter )?'|weights of)"
    assert [said for said in refusals if not re.search(names_one, said)] == []
    assert loaded == LEGAL.get(folder.name, set())


VALUES = [None, [], {}, "x", "", -1, 0, 3, 1.5, 10**30, 1e308, float("nan"), True, [1, 2], {"a": 1}, [[]]]


@pytest.mark.parametrize("folder", list(filter(config_of, FOLDERS)), ids=lambda folder: folder.name)
def test_a_foreign_config_with_anything_in_it_loads_or_is_refused_in_a_line(folder, tmp_path):
    config = config_of(folder)
    assert config is not None
    fields, chance = json.loads(config.read_text()), random.Random(folder.name)
    for file in (*folder.glob("*model.safetensors"), *folder.glob("flax_model.msgpack")):
        shutil.copy(file, tmp_path)
    for _ in range(12):
        changed = json.loads(json.dumps(fields))
        place = changed
        while (nested := [value for value in place.values() if isinstance(value, dict) and value]) and (
            chance.random() < 0.6
        ):
            place = chance.choice(nested)
        place[chance.choice(sorted(place))] = chance.choice(VALUES)
        (tmp_path / config.name).write_text(json.dumps(changed))
        with contextlib.suppress(CheckpointError, ConfigError):
            params = FlaxViTClsModel.from_pretrained(tmp_path).params
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_what_our_model_cannot_express_is_refused_by_name(tmp_path):
    shutil.copy(golden("vit_pooler") / "model.safetensors", tmp_path)
    fields = json.loads((golden("vit_pooler") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**fields, "pooler_act": "relu"}))
    with pytest.raises(CheckpointError, match="pooler_act='relu'"):
        FlaxViTClsModel.from_pretrained(tmp_path)


def changed(name: str, folder: Path, tensors: dict[str, np.ndarray] | None = None, **fields: Any) -> Path:
    """A golden folder with other fields in its config.json, and other tensors where there are any."""
    told = json.loads((golden(name) / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, **fields}))
    save_file(read(golden(name)) if tensors is None else tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_pooling_that_the_config_leaves_out_is_not_asked_for(tmp_path):
    tensors = {key: tensor for key, tensor in read(golden("siglip")).items() if ".head." not in f".{key}"}
    model = FlaxViTClsModel.from_pretrained(changed("siglip", tmp_path, tensors, vision_use_head=False))
    assert model.config.readout == "mean"
    with pytest.raises(CheckpointError, match="tensor 'readout.attention_pooling.* missing"):
        FlaxViTClsModel.from_pretrained(changed("siglip", tmp_path, tensors))


def test_registers_of_which_there_are_none_may_stand_in_the_file(tmp_path):
    tensors = read(golden("dinov3"))
    tensors["embeddings.register_tokens"] = np.zeros((1, 0, 24), np.float32)
    model = FlaxViTClsModel.from_pretrained(changed("dinov3", tmp_path, tensors, num_register_tokens=0))
    assert model.config.num_register_tokens == 0
    export_pretrained(model, tmp_path / "out", "transformers")
    assert load_file(tmp_path / "out" / "model.safetensors")["embeddings.register_tokens"].shape == (1, 0, 24)
    with pytest.raises(CheckpointError, match="tensor 'embeddings.register_tokens' missing"):
        FlaxViTClsModel.from_pretrained(changed("dinov3", tmp_path, tensors))


@pytest.mark.parametrize("name", ["vit", "deit", "dinov2", "dinov3", "siglip", "siglip2", "clip"])
def test_a_pair_of_equal_sides_is_a_patch(name, tmp_path):
    model = FlaxViTClsModel.from_pretrained(changed(name, tmp_path, patch_size=[4, 4]))
    assert model.config.patch_size == 4
    with pytest.raises(CheckpointError, match=r"patch_size=\[4, 8\]"):
        FlaxViTClsModel.from_pretrained(changed(name, tmp_path, patch_size=[4, 8]))


def test_numbers_that_are_rounded_are_said_in_a_line(tmp_path, caplog):
    tensors = read(golden("vit"))
    double = {**tensors, "vit.layernorm.weight": tensors["vit.layernorm.weight"].astype(np.float64)}
    _, report = FlaxViTClsModel.from_pretrained(changed("vit", tmp_path, double), output_loading_info=True)
    assert report["cast_keys"] == ["norm.scale"]
    (line,) = [said for said in caplog.messages if "float64" in said]
    assert line == f"{tmp_path}: float64 in the file, float32 in the parameters: norm.scale"
    half = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    _, report = FlaxViTClsModel.from_pretrained(changed("vit", tmp_path, half), output_loading_info=True)
    assert report.cast_keys == []
