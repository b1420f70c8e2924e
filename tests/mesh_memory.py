"""XLA's account of a training step's memory on meshes, in a process with 8 devices: python mesh_memory.py MESH..."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from modeling_vit_cls import FlaxViTClsForImageClassification, ViTClsConfig
from modeling_vit_cls.images.batch import Batch
from modeling_vit_cls.nn.mesh import tree_shardings
from modeling_vit_cls.nn.scan import stack_params
from modeling_vit_cls.training import TrainingArguments
from modeling_vit_cls.training.optimizer import make_optimizer
from modeling_vit_cls.training.step import initial_state, make_train_step, place_batch

SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}


def memory(mesh: str) -> dict[str, int]:
    """Bytes of a device for the state with its batch, and for temporaries: ViT-S/16, 64 images in all, bfloat16."""
    how = TrainingArguments("unused", mesh=mesh, per_device_train_batch_size=8, bf16=True)
    model = FlaxViTClsForImageClassification(ViTClsConfig(**SMALL, num_labels=1000), _do_init=False)
    params = jax.eval_shape(stack_params, model.params_shape_tree)
    optimizer = make_optimizer(how, params, 10)
    state = jax.eval_shape(lambda params: initial_state(params, optimizer, False), params)
    state = jax.tree.map(lambda leaf, where: leaf.update(sharding=where), state, tree_shardings(state, how.device_mesh))
    size = how.train_batch_size
    rows = (np.zeros(size, kind) for kind in (np.int32, np.int32, bool))
    batch = place_batch(Batch(np.zeros((size, 224, 224, 3), np.uint8), *rows), how.device_mesh, 1)
    module = model.module.clone(dtype=jnp.bfloat16, scan=True)
    step = make_train_step(module, optimizer, model.image_processor, how)
    analysis = step.lower(state, batch).compile().memory_analysis()
    return {"arguments": analysis.argument_size_in_bytes, "temporaries": analysis.temp_size_in_bytes}


if __name__ == "__main__":
    print(json.dumps({mesh: memory(mesh) for mesh in sys.argv[1:]}))
