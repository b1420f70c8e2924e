"""The mesh: what is divided how, and that nothing depends on the number of devices (more in scale/test_meshes.py)."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from children import on_devices
from conftest import pixels, tiny_config, tiny_model
from flax.traverse_util import flatten_dict
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from modeling_vit_cls import ConfigError, FlaxViTClsForImageClassification, ViTClsConfig
from modeling_vit_cls.nn.mesh import AXES, checked_mesh, make_mesh, partition
from modeling_vit_cls.training import TrainingArguments
from modeling_vit_cls.training.optimizer import make_optimizer
from modeling_vit_cls.training.step import initial_state

RUNS, CALLS = (Path(__file__).parent / name for name in ("mesh_runs.py", "mesh_calls.py"))
CUBE = AbstractMesh((2, 2, 2), AXES)


def named(mesh, tree) -> dict:
    """{dotted name: (shape, shape on a device, partition)} of the arrays of a tree."""
    parts = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        spec = partition(name, leaf.shape, mesh)
        sizes = [mesh.shape[axis] if axis else 1 for axis in (*spec, *[None] * (leaf.ndim - len(spec)))]
        parts[name] = (leaf.shape, tuple(n // size for n, size in zip(leaf.shape, sizes)), tuple(spec))
    return parts


def shapes(config) -> dict:
    """The shapes of the parameters by dotted name."""
    return flatten_dict(FlaxViTClsForImageClassification(config, _do_init=False).params_shape_tree, sep=".")


def test_a_parameter_is_divided_by_its_name():
    config = tiny_config(mlp="swiglu", readout="map", num_register_tokens=2)
    parts = {name: spec for name, (_, _, spec) in named(CUBE, shapes(config)).items()}
    block = "vit_cls.encoder.layer_00"
    assert parts[f"{block}.attention.query.kernel"] == ("fsdp", "tensor")
    assert parts[f"{block}.attention.query.bias"] == ("tensor",)
    assert parts[f"{block}.attention.out.kernel"] == ("tensor", "fsdp")
    assert parts[f"{block}.attention.out.bias"] == ()
    assert parts[f"{block}.mlp.fc1.kernel"] == parts[f"{block}.mlp.gate.kernel"] == ("fsdp", "tensor")
    assert parts[f"{block}.mlp.fc2.kernel"] == ("tensor", "fsdp")
    assert parts["vit_cls.embeddings.patch_embedding.projection.kernel"] == (None, None, None, "fsdp")
    assert parts["vit_cls.embeddings.position_embedding.embedding"] == (None, "fsdp")
    assert parts["classifier.kernel"] == ("fsdp",)
    whole = [name for name, spec in parts.items() if spec == ()]
    assert all(name.endswith(("bias", "scale", "token", "tokens", "probe")) for name in whole)


def test_the_axis_of_stacked_blocks_and_what_does_not_divide_stay_whole():
    assert partition("opt_state.0.mu.encoder.layers.mlp.fc1.kernel", (4, 16, 32), CUBE) == P(None, "fsdp", "tensor")
    assert partition("encoder.layers.mlp.fc1.kernel", (4, 15, 32), CUBE) == P(None, None, "tensor")
    assert partition("encoder.layers.norm1.scale", (4, 16), CUBE) == P()
    assert partition("classifier.kernel", (16, 5), AbstractMesh((8, 1, 1), AXES)) == P()


@pytest.mark.parametrize("optim", ["adamw", "sgd"])
def test_on_eight_devices_of_fsdp_each_has_an_eighth_of_the_state(optim):
    config = ViTClsConfig.from_variant("vit_cls_base_patch16_224")
    params = FlaxViTClsForImageClassification(config, _do_init=False).params_shape_tree
    optimizer = make_optimizer(TrainingArguments("unused", optim=optim, weight_decay=0.1), params, 10)
    state = jax.eval_shape(lambda params: initial_state(params, optimizer, True), params)
    parts = named(AbstractMesh((1, 8, 1), AXES), state).values()
    whole, own = (sum(math.prod(part[i]) for part in parts) for i in (0, 1))
    assert own <= 1.05 * whole / 8


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("data=2", "gives 2 devices, but there are 1"),
        ("data=-1,fsdp=2", "needs a multiple of 2 devices, but there are 1"),
        ("data=-1,fsdp=-1", "only one axis may have size -1"),
        ("fspd=8", "did you mean 'fsdp'"),
        ("data=0", "must be like"),
        ("data=1,data=1", "gives the size of data twice"),
        ("", "must be like"),
    ],
)
def test_a_wrong_mesh_is_refused_when_the_arguments_are_made(text, rule):
    with pytest.raises(ConfigError, match=f"mesh={text!r}: .*{rule}"):
        TrainingArguments("unused", mesh=text)


def test_a_mesh_has_the_three_axes():
    config = tiny_config()
    with pytest.raises(ConfigError, match="with the axes"):
        checked_mesh(jax.make_mesh((1,), ("data",)), config)
    explicit = jax.make_mesh((1, 1, 1), AXES, (jax.sharding.AxisType.Explicit,) * 3)
    assert checked_mesh(explicit, config) == make_mesh("data=1")


@pytest.mark.parametrize("name", ["fsdp", "deepspeed", "parallelism_config", "ddp_backend"])
def test_other_ways_to_use_devices_name_the_mesh(name):
    with pytest.raises(ConfigError, match="mesh='fsdp=-1'"):
        TrainingArguments("unused", **{name: "full_shard"})


def test_random_numbers_do_not_depend_on_the_number_of_devices():
    assert jax.config.jax_threefry_partitionable


def test_training_on_a_mesh_is_training_on_one_device(tmp_path):
    runs = [{"meshes": {"data=2,fsdp=2,tensor=2": 4}, "steps": 3}]
    ((difference,),) = (each.values() for each in on_devices(8, RUNS, tmp_path, json.dumps(runs)))
    assert difference["losses"] < 1e-5
    assert difference["params"] < 2e-4  # AdamW divides noise by noise where the gradient is zero: the biases of keys
    assert difference["compilations"] == [1]


def test_a_model_runs_on_the_mesh_of_its_parameters():
    ((_, differences),) = on_devices(8, CALLS, "data=2,fsdp=2,tensor=2").items()
    assert max(differences.values()) < 2e-6, differences


def test_a_model_runs_inside_shard_map_over_a_mesh_of_this_package():
    mesh, model = make_mesh("data=-1"), tiny_model()
    images = jnp.asarray(pixels(batch=2 * mesh.size))
    logits = jax.shard_map(
        lambda params, part: model(part, params=params).logits, mesh=mesh, in_specs=(P(), P(AXES)), out_specs=P(AXES)
    )
    np.testing.assert_allclose(jax.jit(logits)(model.params, images), model(images).logits, atol=1e-6)
