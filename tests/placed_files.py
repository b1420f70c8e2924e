"""Checkpoints on meshes of eight devices: tests/test_placed_files.py runs these tests in a process that has so many."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny_config, tiny_model
from safetensors.numpy import load_file, save_file
from transformers import TrainerState

from modeling_vit_cls import CheckpointError, ConfigError, FlaxViTClsForImageClassification
from modeling_vit_cls.nn.mesh import make_mesh, mesh_of, shardings, tree_shardings
from modeling_vit_cls.nn.scan import stack_params
from modeling_vit_cls.training import TrainingArguments
from modeling_vit_cls.training.optimizer import make_optimizer
from modeling_vit_cls.training.state import params_to_save, read_training_state, write_training_state
from modeling_vit_cls.training.step import initial_state

GOLDEN = Path(__file__).parent / "golden"
MESHES = ("data=8", "fsdp=8", "data=2,fsdp=2,tensor=2")
FACTS = {
    "arguments": {"global_batch": 8},
    "config": {},
    "processor": {},
    "class_names": [],
    "train_dataset": {},
    "eval_dataset": None,
}
FACTS |= {"total_steps": 1}
load = FlaxViTClsForImageClassification.from_pretrained


def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def check_placed(tree, mesh, expected) -> None:
    """Every leaf has the numbers of `expected`, and is on the mesh as the table says."""
    leaves, expected = flat(tree), flat(expected)
    assert list(leaves) == list(expected)
    placements = shardings(leaves, mesh)
    for name, leaf in leaves.items():
        assert leaf.sharding == placements[name], name
        assert leaf.dtype == expected[name].dtype
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(shard.data, np.asarray(expected[name])[shard.index], err_msg=name)


def test_values_are_those_of_the_file_and_a_save_gives_the_same_bytes(tmp_path):
    model = tiny_model(num_labels=8)
    for name, limit in (("one", "5GB"), ("shards", "4KB")):
        model.save_pretrained(tmp_path / name, max_shard_size=limit)
        for text in MESHES:
            mesh = make_mesh(text)
            loaded, report = load(tmp_path / name, mesh=mesh, output_loading_info=True)
            check_placed(loaded.params, mesh, model.params)
            assert len(report.verified_keys) == len(flat(model.params))
            assert mesh_of(loaded.params) == mesh
            divided = [leaf for leaf in flat(loaded.params).values() if not leaf.is_fully_replicated]
            assert bool(divided) == (text != "data=8")
            loaded.save_pretrained(tmp_path / "again", max_shard_size=limit)
            for file in (tmp_path / name).iterdir():
                assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_other_libraries_files(tmp_path):
    mesh = make_mesh("fsdp=8")
    for source in (GOLDEN / "vit", GOLDEN / "timm_beit", GOLDEN / "npz_big_vision" / "checkpoint.npz"):
        whole, loaded = load(source), load(source, mesh=mesh)
        check_placed(loaded.params, mesh, whole.params)
        assert not all(leaf.is_fully_replicated for leaf in flat(loaded.params).values()), source
    folder = tmp_path / "vit"
    folder.mkdir()
    for file in (GOLDEN / "vit").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    dense = next(name for name in tensors if name.endswith("0.intermediate.dense.weight"))
    tensors[dense][1, 1] = np.nan
    save_file({name: tensor.astype(np.float64) for name, tensor in tensors.items()}, folder / "model.safetensors")
    reports = [load(folder, mesh=each, output_loading_info=True)[1] for each in (None, mesh)]
    assert reports[0] == reports[1]
    assert len(reports[1].nonfinite_keys) == 1
    assert reports[1].cast_keys


def test_a_damaged_tensor_is_refused_by_name(tmp_path):
    tiny_model(num_labels=8).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    for text in MESHES:
        with pytest.raises(CheckpointError, match=r"model.safetensors: tensor 'vit_cls\..*the file is damaged"):
            load(tmp_path, mesh=text)


def test_what_is_interpolated_or_drawn_is_placed_too(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    changed = {"image_size": 16, "num_labels": 8, "seed": 3}
    whole = load(tmp_path, **changed)
    for text in MESHES:
        loaded = load(tmp_path, mesh=text, **changed)
        check_placed(loaded.params, make_mesh(text), whole.params)
    check_placed(loaded.with_readout("cls_mean").params, make_mesh(text), whole.with_readout("cls_mean").params)
    with pytest.raises(ConfigError, match="mesh='tensor=4': must divide num_attention_heads=2"):
        load(tmp_path, mesh="tensor=4,data=2")


def test_a_state_goes_on_on_any_mesh(tmp_path):
    params = stack_params(tiny_model(num_hidden_layers=4, num_labels=8).params)
    optimizer = make_optimizer(TrainingArguments(str(tmp_path / "run"), ema_decay=0.9), params, 1)
    state = initial_state(params, optimizer, True)
    noise = np.random.default_rng(0)
    state = jax.tree.map(lambda leaf: jnp.asarray(leaf + noise.integers(9, size=leaf.shape).astype(leaf.dtype)), state)
    kept = {"global_step": int(state.step)}
    (tmp_path / "one").mkdir()
    write_training_state(tmp_path / "one", state, TrainerState(**kept), FACTS)
    bytes_of_one = (tmp_path / "one" / "training_state.safetensors").read_bytes()
    model = FlaxViTClsForImageClassification(tiny_config(num_hidden_layers=4, num_labels=8))
    model.write_checkpoint(tmp_path / "model", params_to_save(state))
    for text in MESHES:
        mesh = make_mesh(text)
        like = tree_shardings(state, mesh)
        abstract = jax.tree.map(lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s), state, like)
        read, trainer_state = read_training_state(tmp_path / "one", abstract, FACTS)
        assert trainer_state.global_step == int(state.step)
        check_placed(read, mesh, state)
        folder = tmp_path / text
        folder.mkdir()
        write_training_state(folder, read, TrainerState(**kept), FACTS)
        assert (folder / "training_state.safetensors").read_bytes() == bytes_of_one
        model.write_checkpoint(folder / "model", params_to_save(read))
        file = "model.safetensors"
        assert (folder / "model" / file).read_bytes() == (tmp_path / "model" / file).read_bytes()
        back, _ = read_training_state(folder, state, FACTS)
        for name, leaf in flat(back).items():
            np.testing.assert_array_equal(leaf, flat(state)[name], err_msg=name)
