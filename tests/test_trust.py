"""What a checkpoint promises: what is loaded is what was saved, and a save is whole or has not happened."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import tiny_model
from safetensors.numpy import load_file, save_file
from test_families import GOLDEN

from hub_scripts.__main__ import main
from modeling_vit_cls import CheckpointError, ConfigError, FlaxViTClsForImageClassification

pytestmark = pytest.mark.world

Model = FlaxViTClsForImageClassification


def same(a, b) -> bool:
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def attempt(path: Path):
    """The model of a path, or the error of ours that says why there is none; any other error goes through."""
    try:
        return Model.from_pretrained(path)
    except (CheckpointError, ConfigError) as error:
        return error


@pytest.fixture
def saved(model, tmp_path) -> Path:
    model.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_a_load_says_what_it_compared(saved, model):
    _, report = Model.from_pretrained(saved, output_loading_info=True)
    assert len(report.verified_keys) == len(jax.tree.leaves(model.params))
    assert report.converted_keys == []
    _, report = Model.from_pretrained(GOLDEN / "vit", output_loading_info=True)
    assert report.verified_keys == []
    assert "embeddings.patch_embedding.projection.kernel" in report.converted_keys


def test_a_config_of_another_model_is_refused_and_harmless_edits_are_not(saved, model):
    fields = json.loads((saved / "config.json").read_text())
    for change in ({"num_attention_heads": 4}, {"hidden_act": "relu"}, {"layer_norm_eps": 1e-5}, {"readout": "mean"}):
        (saved / "config.json").write_text(json.dumps({**fields, **change}))
        with pytest.raises(CheckpointError, match="with another config.json.*give your changes .* as keywords"):
            Model.from_pretrained(saved)
    labels = {str(i): f"kind {i}" for i in range(5)}
    edits = {"id2label": labels, "label2id": {label: int(i) for i, label in labels.items()}, "drop_path_rate": 0.2}
    (saved / "config.json").write_text(json.dumps({**fields, **edits}))
    assert same(Model.from_pretrained(saved).params, model.params)
    (saved / "config.json").write_text(json.dumps(fields))
    assert Model.from_pretrained(saved, hidden_act="relu").config.hidden_act == "relu"


def test_shards_of_two_checkpoints_are_refused(model, tmp_path):
    other = tiny_model()
    other.params = jax.tree.map(lambda leaf: leaf + 1, other.params)
    for name, source in (("a", model), ("b", other)):
        source.save_pretrained(tmp_path / name, max_shard_size="8KB")
    (first, *_) = sorted((tmp_path / "b").glob("model-*.safetensors"))
    shutil.copy(first, tmp_path / "a" / first.name)
    with pytest.raises(CheckpointError, match="belong to two checkpoints"):
        Model.from_pretrained(tmp_path / "a")


def test_weights_that_another_tool_wrote_again_are_not_passed_off_as_verified(saved, model):
    save_file(load_file(saved / "model.safetensors"), saved / "model.safetensors")
    loaded, report = Model.from_pretrained(saved, output_loading_info=True)
    assert same(loaded.params, model.params)
    assert report.verified_keys == []


def test_the_verb_verify(saved, model, capsys):
    assert main(["verify", str(saved), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verified_tensors"] == len(jax.tree.leaves(model.params))
    data = bytearray((saved / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (saved / "model.safetensors").write_bytes(data)
    assert main(["verify", str(saved)]) == 1
    assert "differs from what was saved: the file is damaged" in capsys.readouterr().err
    assert main(["verify", str(GOLDEN / "vit")]) == 1
    assert "transformers ViT weights without digests" in capsys.readouterr().err


def test_nan_is_refused_and_the_old_checkpoint_stays(saved, model):
    broken = jax.tree.map(lambda leaf: leaf.at[0].set(np.nan), model.params)
    with pytest.raises(CheckpointError, match="holds NaN or infinity, so nothing was saved"):
        model.save_pretrained(saved, params=broken)
    assert same(Model.from_pretrained(saved).params, model.params)
    model.save_pretrained(saved, params=broken, allow_nonfinite=True)
    assert np.isnan(Model.from_pretrained(saved).params["classifier"]["bias"][0])
