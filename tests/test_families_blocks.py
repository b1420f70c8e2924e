"""BEiT and C-RADIO: the names, configs and image processors that their golden folders do not have."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import read_npz
from safetensors.numpy import load_file, save_file
from test_families import golden

from modeling_vit_cls import CheckpointError, FlaxViTClsModel
from modeling_vit_cls.families.open import open_checkpoint
from modeling_vit_cls.images.processor_classes import CLIP

pytestmark = pytest.mark.world


def changed(name: str, folder: Path, rename=str, tensors: dict | None = None, **fields) -> Path:
    """A golden folder with other names of tensors, further tensors, and other fields in its config.json."""
    theirs = {rename(key): tensor for key, tensor in load_file(golden(name) / "model.safetensors").items()}
    save_file(theirs | (tensors or {}), folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((golden(name) / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))
    return folder


IN_MEMORY = [  # names of transformers 4, which both versions write, and those of transformers 5 in memory
    ("encoder.relative_position_bias", "shared_position_bias"),
    ("attention.attention.relative_position_bias", "relative_position_bias"),
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
    ("encoder.layer", "layers"),
]


def in_memory(name: str) -> str:
    for old, new in IN_MEMORY:
        name = name.replace(old, new)
    return name


@pytest.mark.parametrize("name", ["beit", "beit_pretrained"])
def test_beit_in_the_names_of_transformers_5_is_the_same(name, tmp_path):
    again = FlaxViTClsModel.from_pretrained(changed(name, tmp_path, in_memory))
    jax.tree.map(np.testing.assert_array_equal, again.params, FlaxViTClsModel.from_pretrained(golden(name)).params)


def test_a_table_that_blocks_share_is_in_each_and_may_not_stand_beside_others(tmp_path):
    params = FlaxViTClsModel.from_pretrained(golden("beit_pretrained")).params["encoder"]
    tables = [params[block]["relative_positions"]["embedding"] for block in ("layer_00", "layer_01")]
    np.testing.assert_array_equal(*tables)
    own = {"beit.encoder.layer.0.attention.attention.relative_position_bias.relative_position_bias_table": tables[0]}
    with pytest.raises(CheckpointError, match="both relative positions of a block"):
        open_checkpoint(changed("beit_pretrained", tmp_path, tensors={k: np.asarray(v) for k, v in own.items()}))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"use_absolute_position_embeddings": True}, "only one of use_relative_position_bias"),
        ({"image_size": [16, 32]}, "image_size=.* must be square"),
        ({"use_mean_pooling": False}, "tensor 'beit.pooler.layernorm.* does not belong to the model"),
        ({"architectures": ["BeitForMaskedImageModeling"]}, "tensor 'beit.pooler.layernorm.* does not belong"),
    ],
)
def test_what_beits_config_cannot_mean_is_named(fields, words, tmp_path):
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(changed("beit", tmp_path, **fields))


def test_another_image_size_resizes_the_tables_once_and_for_all():
    expected = read_npz(golden("beit") / "expected.npz")
    model, report = FlaxViTClsModel.from_pretrained(golden("beit"), image_size=(12, 24), output_loading_info=True)
    name = "encoder.layer_{}.relative_positions.embedding"
    assert report.interpolated_keys == [name.format("00"), name.format("01")]
    block = model(expected["other.pixels"], output_hidden_states=True).hidden_states[1]
    np.testing.assert_allclose(block, expected["other.block"], atol=1e-4 * abs(expected["other.block"]).max())


@pytest.mark.parametrize(
    ("version", "method"),
    [("c-radio_v3-h", "cpe_align_corners"), ("c-radio_v3-l", "cpe"), ("c-radio_v4-so400m", "cpe"), (None, "cpe")],
)
def test_the_version_of_c_radio_says_how_positions_are_resampled(version, method, tmp_path):
    config = open_checkpoint(changed("nvidia_radio", tmp_path, version=version)).config
    assert config.position_interpolation == method
    assert (config.num_cls_tokens, config.num_register_tokens, config.readout_size) == (2, 3, 128)


def test_a_summary_of_other_than_the_first_tokens_is_refused_by_name(tmp_path):
    name = "radio_model.summary_idxs"
    with pytest.raises(CheckpointError, match=rf"tensor '{name}': \[0, 2\] is not supported"):
        FlaxViTClsModel.from_pretrained(changed("nvidia_radio", tmp_path, tensors={name: np.array([0, 2])}))
    with pytest.raises(CheckpointError, match=rf"tensor '{name}' has 3 int64 for 5 tokens, config.json has .*\[0, 1\]"):
        open_checkpoint(changed("radio", tmp_path, tensors={name: np.arange(3)}))


@pytest.mark.parametrize(
    "own", [{"do_normalize": False}, {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.1]}]
)
def test_c_radio_normalises_after_its_image_processor_and_ours_does_both(own, tmp_path):
    folder = changed("nvidia_radio", tmp_path)
    size = {"size": {"height": 16, "width": 16}, "do_center_crop": False}
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "CLIPImageProcessor"} | size | own)
    )
    processor = FlaxViTClsModel.from_pretrained(folder).image_processor
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    pixels = image.transpose(2, 0, 1) / 255
    mean, std, own_mean, own_std = (
        np.reshape(numbers, (3, 1, 1))
        for numbers in (
            CLIP["image_mean"],
            CLIP["image_std"],
            own.get("image_mean", [0] * 3),
            own.get("image_std", [1] * 3),
        )
    )
    expected = ((pixels - own_mean) / own_std - mean) / std
    np.testing.assert_allclose(processor(image)["pixel_values"][0], expected, atol=1e-5)


def test_without_a_processor_c_radio_has_its_preferred_resolution():
    processor = FlaxViTClsModel.from_pretrained(golden("nvidia_radio")).image_processor
    assert (processor.size, processor.image_mean) == ({"height": 16, "width": 16}, CLIP["image_mean"])
    assert FlaxViTClsModel.from_pretrained(golden("radio")).image_processor.size == {"height": 512, "width": 512}


def test_without_its_config_c_radio_is_known_by_its_names(tmp_path):
    shutil.copy(golden("nvidia_radio") / "model.safetensors", tmp_path)
    source = open_checkpoint(tmp_path / "model.safetensors")
    assert (source.family.name, source.config.image_size) == ("transformers C-RADIO", 32)
    assert re.match("cpe", source.config.position_interpolation)


def test_tables_that_each_call_resizes_for_the_processor_are_reported(tmp_path):
    fields = {"image_processor_type": "BeitImageProcessor", "size": {"height": 12, "width": 12}}
    (changed("beit", tmp_path) / "preprocessor_config.json").write_text(json.dumps(fields))
    model, report = FlaxViTClsModel.from_pretrained(tmp_path, output_loading_info=True)
    assert report.interpolated_keys == ["encoder.layer_*.relative_positions.embedding"]
    assert model(np.zeros((1, 3, 12, 12), np.float32)).pooler_output.shape == (1, 24)
