"""Parameters of all blocks but the last in one array each, and back."""

from functools import partial

import jax
import numpy as np
import pytest
from conftest import tiny_model
from flax.traverse_util import flatten_dict

from modeling_vit_cls.nn.scan import stack, stack_params, unstack, unstack_params

IMAGES = np.zeros((1, 8, 8, 3), np.float32)


def test_the_last_block_stays_alone_and_unstacking_gives_back_each():
    model = tiny_model(num_hidden_layers=4)
    stacked = flatten_dict(stack_params(model.params), sep=".")
    kernels = {name: leaf.shape for name, leaf in stacked.items() if name.endswith("fc1.kernel")}
    names = ("vit_cls.encoder.layers.mlp.fc1.kernel", "vit_cls.encoder.layer_03.mlp.fc1.kernel")
    assert kernels == dict(zip(names, [(3, 16, 32), (16, 32)]))
    back = unstack_params(stack_params(model.params))
    assert jax.tree.structure(back) == jax.tree.structure(model.params)
    jax.tree.map(np.testing.assert_array_equal, back, model.params)


@pytest.mark.parametrize("depth", [1, 2, 102])
def test_blocks_are_in_the_order_of_their_numbers(depth):
    arrays = {f"mu.layer_{i:02d}.scale": np.full(2, i) for i in range(depth)} | {"mu.norm.scale": np.zeros(2)}
    stacked = stack(arrays)
    if depth > 1:
        np.testing.assert_array_equal(stacked["mu.layers.scale"][:, 0], range(depth - 1))
    assert {name: leaf[0] for name, leaf in unstack(stacked).items()} == {
        name: leaf[0] for name, leaf in arrays.items()
    }


def test_one_program_runs_all_blocks():
    sizes = []
    for depth in (3, 9):
        model = tiny_model(num_hidden_layers=depth)
        run = partial(model.module.clone(scan=True).apply, readout_only=True)
        lowered = jax.jit(run).lower({"params": stack_params(model.params)}, IMAGES)
        sizes.append(lowered.as_text().count("dot_general"))
    assert sizes[0] == sizes[1]


def test_a_scanned_module_returns_no_hidden_states():
    model = tiny_model()
    with pytest.raises(ValueError, match="scan=True keeps no hidden states: call the module with readout_only=True"):
        model.module.clone(scan=True).apply({"params": stack_params(model.params)}, IMAGES)
