"""One of two processes with two devices each that share a checkpoint, for tests/test_placed_files.py."""

import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from placed_files import FACTS, check_placed, load
from safetensors.numpy import load_file
from transformers import TrainerState

from modeling_vit_cls import CheckpointError, processes
from modeling_vit_cls.nn.mesh import make_mesh, tree_shardings
from modeling_vit_cls.nn.scan import stack_params
from modeling_vit_cls.training import TrainingArguments
from modeling_vit_cls.training.optimizer import make_optimizer
from modeling_vit_cls.training.state import abstract, params_to_save, read_training_state, write_training_state
from modeling_vit_cls.training.step import initial_state


def main(folder: Path) -> None:
    processes.join()
    first = processes.is_first()
    if first:
        assert jax.device_count() == 2 * jax.local_device_count() == 4
    whole = load(folder / "model")
    for text in ("fsdp=4", "data=2,fsdp=2", "data=4"):
        mesh = make_mesh(text)
        model, report = load(folder / "model", mesh=mesh, output_loading_info=True)
        check_placed(model.params, mesh, whole.params)
        model.save_pretrained(folder / text)
        bytes_of = [(folder / name / "model.safetensors").read_bytes() for name in ("model", text)]
        assert bytes_of[0] == bytes_of[1]
        with pytest.raises(CheckpointError, match=r"tensor 'vit_cls\..*the file is damaged"):
            load(folder / "damaged", mesh=mesh)
        report = load(folder / "foreign", mesh=mesh, output_loading_info=True)[1]
        assert report.nonfinite_keys == ["encoder.layer_00.mlp.fc1.kernel"]

        params = jax.jit(stack_params, out_shardings=tree_shardings(jax.eval_shape(stack_params, model.params), mesh))(
            model.params
        )
        state = initial_state(params, make_optimizer(TrainingArguments("run"), params, 1), True, mesh)
        kept = TrainerState(global_step=0)
        also = partial(write_training_state, state=state, trainer_state=kept, run=FACTS)
        model.write_checkpoint(folder / f"state-{text}", params_to_save(state), also=also)
        read, _ = read_training_state(folder / f"state-{text}", abstract(state), FACTS)
        for one, other in zip(jax.tree.leaves(read), jax.tree.leaves(state)):
            assert one.sharding == other.sharding
            for mine, theirs in zip(one.addressable_shards, other.addressable_shards):
                np.testing.assert_array_equal(mine.data, theirs.data)
        written = load_file(folder / f"state-{text}" / "training_state.safetensors")
        np.testing.assert_array_equal(written["params.classifier.kernel"], whole.params["classifier"]["kernel"])
        bytes_of = [(folder / name / "model.safetensors").read_bytes() for name in ("model", f"state-{text}")]
        assert bytes_of[0] == bytes_of[1]
        with pytest.raises(CheckpointError, match="there is no such checkpoint"):
            read_training_state(folder / "none", abstract(state), FACTS)
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
