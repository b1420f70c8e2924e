"""Other libraries' checkpoints give their own library's numbers: golden folders written by tests/golden/make.py."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from modeling_vit_cls import CheckpointError, ConfigError, FlaxViTClsForImageClassification, FlaxViTClsModel

# `make parity` points this at folders that the real libraries have just written.
GOLDEN = Path(os.environ.get("VIT_CLS_GOLDEN", Path(__file__).parent / "golden"))
FOLDERS = sorted(file.parent for file in GOLDEN.glob("*/expected.npz"))


def load(folder: Path):
    expected = np.load(folder / "expected.npz")
    kind = FlaxViTClsForImageClassification if "native.logits" in expected else FlaxViTClsModel
    model, report = kind.from_pretrained(folder, output_loading_info=True)
    assert report.missing_keys + report.new_keys + report.mismatched_keys == []
    return model, expected


def compare(got, want, tolerance: float, what: str) -> None:
    difference = abs(np.asarray(got) - want).max() / abs(want).max()
    assert difference < tolerance, f"{what}: {difference:.1e} of the output's scale"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_numbers_are_those_of_the_source(folder):
    model, expected = load(folder)
    for kind, tolerance in (("native", 1e-5), ("other", 1e-4)):
        pixels = expected[f"{kind}.pixels"]
        outputs = model(pixels, output_hidden_states=True, interpolate_pos_encoding=kind == "other")
        compare(outputs.hidden_states[0], expected[f"{kind}.embeddings"], tolerance, f"{kind} embeddings")
        compare(outputs.hidden_states[1], expected[f"{kind}.block"], tolerance, f"{kind} first block")
        for name in (
            "last_hidden_state",
            "pooler_output",
            "logits",
            "cls_logits",
            "distillation_logits",
            "image_embeds",
        ):
            key = f"{kind}.{name}"
            if key in expected and name in outputs:
                compare(outputs[name], expected[key], tolerance, key)
    assert ("native.logits" in expected) == ("logits" in outputs)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_each_tensor_removed_renamed_or_reshaped_is_named_and_each_square_one_turned_is_seen(folder, tmp_path):
    model, expected = load(folder)
    pixels = expected["native.pixels"]
    last = "logits" if "native.logits" in expected else "pooler_output"
    right = model(pixels)[last]
    file = tmp_path / "model.safetensors"
    shutil.copy(folder / "config.json", tmp_path)
    whole = load_file(folder / "model.safetensors")
    for name, tensor in whole.items():
        if name.endswith(("mask_token", "position_ids")) or (folder.name == "siglip_classifier" and ".head." in name):
            continue  # no part of the model
        rest = {key: value for key, value in whole.items() if key != name}
        faults = {
            "removed": (rest, None),
            "renamed": ({**rest, name + "s": tensor}, name + "s"),
            "reshaped": ({**rest, name: np.append(tensor, tensor.dtype.type(0))}, name),
            "recast": ({**rest, name: tensor.astype(np.int32)}, name),
        }
        for fault, (tensors, words) in faults.items():
            save_file(tensors, file, metadata={"format": "pt"})
            with pytest.raises((CheckpointError, ConfigError), match=words and re.escape(f"'{words}'")) as error:
                type(model).from_pretrained(tmp_path)
            assert str(file) in str(error.value) or "config.json" in str(error.value), fault
        if tensor.ndim == 2 and tensor.shape[0] == tensor.shape[1]:
            save_file({**rest, name: np.ascontiguousarray(tensor.T)}, file, metadata={"format": "pt"})
            _, params = type(model).from_pretrained(tmp_path, _do_init=False)
            assert abs(model(pixels, params=params)[last] - right).max() > 1e-3, f"{name} transposed goes unseen"
