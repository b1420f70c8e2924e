"""Checkpoints are read onto any mesh and saved from it, by one process or several: the same numbers, the same bytes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from children import finished, start
from conftest import tiny_model
from safetensors.numpy import load_file, save_file

TESTS = Path(__file__).parent


@pytest.mark.world
def test_on_eight_devices():
    finished(start("-m", "pytest", "-q", "-p", "no:cacheprovider", "placed_files.py", devices=8))


def test_in_two_processes(tmp_path):
    tiny_model(num_hidden_layers=4, num_labels=8).save_pretrained(tmp_path / "model")
    file = shutil.copytree(tmp_path / "model", tmp_path / "damaged") / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    file = shutil.copytree(TESTS / "golden" / "vit", tmp_path / "foreign") / "model.safetensors"
    tensors = load_file(file)
    tensors["vit.encoder.layer.0.intermediate.dense.weight"][1, 1] = np.nan
    save_file(tensors, file)
    finished(start("files_of_processes.py", tmp_path, devices=2, processes=2))
