"""Plans beside XLA's memory analysis of the real training step: `python -m tests.scale.plan_memory`.

Prints a table and writes benchmarks/results/plan.md; with --json it only prints the numbers.

The step is compiled for eight virtual devices of a CPU, and never run. Two passes of XLA for CPUs are left out, since
other devices have no use for them: the one that converts all that was kept in bfloat16 to float32 before the backward
pass (loop invariant code motion), and the scheduler that runs operations side by side, with more temporaries.
"""

import json
import os
import sys

if __name__ == "__main__":  # before jax is imported
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = (
        "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 "
        "--xla_disable_hlo_passes=while-loop-invariant-code-motion "
        "--xla_cpu_enable_concurrency_optimized_scheduler=false"
    )

import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict
from jax.sharding import NamedSharding

from modeling_vit_cls import ViTClsConfig
from modeling_vit_cls.families.open import parameter_shapes
from modeling_vit_cls.images.batch import Batch
from modeling_vit_cls.images.processor import ViTClsImageProcessor
from modeling_vit_cls.nn.mesh import BATCH, axis_sizes, tree_shardings
from modeling_vit_cls.nn.scan import stack_params
from modeling_vit_cls.nn.vit import FlaxViTClsForImageClassificationModule
from modeling_vit_cls.training.arguments import TrainingArguments
from modeling_vit_cls.training.optimizer import make_optimizer
from modeling_vit_cls.training.plan import make_plan
from modeling_vit_cls.training.step import initial_state, make_train_step

SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
# name, fields of the config, mesh, images on a device
CASES = (
    ("S/16 at 224", SMALL, "data=8", 16),
    ("S/16 at 224", SMALL, "fsdp=8", 16),
    ("S/16 at 224", SMALL, "data=2,fsdp=2,tensor=2", 16),
    ("S/16 at 384, mean of the patches", SMALL | {"image_size": 384, "readout": "mean"}, "data=4,fsdp=2", 8),
    ("L/16 at 224", LARGE, "fsdp=8", 8),
)


def step_memory(config: ViTClsConfig, arguments: TrainingArguments) -> tuple[int, int]:
    """XLA's bytes on a device for the training step: of its arguments, and of its temporaries."""
    mesh, module = arguments.device_mesh, FlaxViTClsForImageClassificationModule
    shapes = unflatten_dict(dict(parameter_shapes(module, config)), sep=".")
    params = jax.eval_shape(stack_params, shapes)
    optimizer = make_optimizer(arguments, params, total_steps=1)
    state = jax.eval_shape(lambda params: initial_state(params, optimizer, arguments.ema_decay > 0), params)
    size, examples = config.image_hw, arguments.train_batch_size
    pixels = jax.ShapeDtypeStruct((examples, *size, config.num_channels), jnp.uint8)
    number, mark = (jax.ShapeDtypeStruct((examples,), dtype) for dtype in (jnp.int32, jnp.bool_))
    batch = Batch(pixels, number, number, mark)
    if mesh.size > 1:
        sharding = NamedSharding(mesh, BATCH)
        state = jax.tree.map(placed, state, tree_shardings(state, mesh))
        batch = jax.tree.map(lambda leaf: placed(leaf, sharding), batch)
    dtype = jnp.bfloat16 if arguments.bf16 else jnp.float32
    model = module(config, dtype, gradient_checkpointing=arguments.gradient_checkpointing, scan=True)
    processor = ViTClsImageProcessor(size={"height": size[0], "width": size[1]})
    step = make_train_step(model, optimizer, processor, arguments)
    analysis = step.lower(state, batch).compile().memory_analysis()
    assert analysis is not None
    return analysis.argument_size_in_bytes, analysis.temp_size_in_bytes


def placed(leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def rows():
    """The cases, each with the plan's bytes of the state and of all, and XLA's."""
    for name, fields, mesh, images in CASES:
        config = ViTClsConfig(**{"image_size": 224, "num_labels": 1000, **fields})
        for bf16 in (False, True):
            for recomputes in (False, True):
                given = {"per_device_train_batch_size": images, "bf16": bf16, "gradient_checkpointing": recomputes}
                plan = make_plan(config, axis_sizes(mesh), TrainingArguments(**given))
                state = sum(plan.memory[part] for part in ("parameters", "optimizer", "moving average", "images"))
                held, temporaries = step_memory(config, TrainingArguments(mesh=mesh, **given))
                facts = {"model": name, "mesh": mesh, "images": images}
                facts |= {"type": "bfloat16" if bf16 else "float32", "recomputed": recomputes}
                yield facts | {"state": state, "total": plan.total, "xla_state": held, "xla_total": held + temporaries}


def line(row: dict) -> str:
    """A case as a row of the table in docs/plan.md."""
    sizes = [f"{row[name] / 2**20:,.1f}" for name in ("state", "xla_state", "total", "xla_total")]
    cells = [row["model"], f"`{row['mesh']}`", row["images"], row["type"], "yes" if row["recomputed"] else "no", *sizes]
    return f"| {' | '.join(map(str, cells))} | {row['total'] / row['xla_total']:.2f} |"


if __name__ == "__main__":
    if "--json" in sys.argv:
        print(json.dumps(list(rows())))
    else:
        from benchmarks.report import write

        head = "| model | mesh | images | type | recomputed | state, MiB | XLA | all, MiB | XLA | ratio |"
        write("plan", [head, "|---|---|---|---|---|---|---|---|---|---|", *map(line, rows())])
