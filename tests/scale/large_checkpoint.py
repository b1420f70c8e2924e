"""Load and save a checkpoint of the size of a ViT-L on a mesh of eight devices, and print how much memory that took.

`large_checkpoint.py write FOLDER` makes the checkpoint; `load FOLDER`, `save FOLDER` and `save_stacked FOLDER` measure.
It runs in a process of its own, or with JAX_COORDINATOR_ADDRESS in several, which have the eight devices together.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np

from modeling_vit_cls import FlaxViTClsForImageClassification, ViTClsConfig, processes
from modeling_vit_cls.nn.mesh import make_mesh, tree_shardings
from modeling_vit_cls.nn.scan import Block, stack_params, unstack_params


def write(folder: Path) -> None:
    sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    model = FlaxViTClsForImageClassification(ViTClsConfig(**sizes, num_labels=1000), _do_init=False)
    chance = np.random.default_rng(0)
    leaves, structure = jax.tree.flatten(model.params_shape_tree)
    params = structure.unflatten([chance.standard_normal(leaf.shape, leaf.dtype) for leaf in leaves])
    model.save_pretrained(folder, params=params)


def private_bytes() -> int:
    """The memory of this process without the mapped files: man 5 proc."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(lines[name].split()[0]) for name in ("RssAnon", "RssShmem")) * 1024


def peak_of(action: Callable[[], object]) -> int:
    """How many bytes of private memory an action takes at its peak, looked at a thousand times a second."""
    before, peak, ended = private_bytes(), 0, threading.Event()

    def look() -> None:
        nonlocal peak
        while not ended.is_set():
            peak = max(peak, private_bytes())
            time.sleep(0.001)

    thread = threading.Thread(target=look)
    thread.start()
    action()
    ended.set()
    thread.join()
    return max(peak, private_bytes()) - before


def measure(what: str, folder: Path) -> int:
    """The peak of private memory of one load or save."""
    mesh = make_mesh("fsdp=8")
    jax.block_until_ready(jax.numpy.zeros(3))  # starts the devices before the measurement
    models = []

    def load() -> None:
        models.append(FlaxViTClsForImageClassification.from_pretrained(folder, mesh=mesh))
        jax.block_until_ready(models[0].params)

    peak = peak_of(load)
    if what == "load":
        return peak
    (model,) = models
    if what == "save":
        return peak_of(lambda: model.save_pretrained(folder / what))
    placements = tree_shardings(jax.eval_shape(stack_params, model.params), mesh)
    stacked = jax.block_until_ready(jax.jit(stack_params, out_shardings=placements)(model.params))
    save = partial(model.save_pretrained, folder / what, unstack_params(stacked, Block))
    save()  # compiles the functions that take a block from a stack
    return peak_of(save)


if __name__ == "__main__":
    what, folder = sys.argv[1], Path(sys.argv[2])
    processes.join()
    if what == "write":
        write(folder)
    else:
        print(json.dumps(measure(what, folder)), flush=True)
