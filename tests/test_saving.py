"""A save replaces what is ours in a folder, keeps the rest, and refuses what could not be loaded again."""

import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import assert_same, tiny_model
from transformers import AutoImageProcessor

from modeling_vit_cls import (
    CheckpointError,
    ConfigError,
    FlaxViTClsForImageClassification,
    ViTClsConfig,
    ViTClsImageProcessor,
    export_pretrained,
)

pytestmark = pytest.mark.world


def test_saving_again_replaces_the_weights_and_keeps_the_rest(folder, model):
    (folder / "notes.md").write_text("mine")
    (folder / "modeling_mine.py").write_text("mine")
    (folder / "runs").mkdir()
    (folder / "runs" / "log").write_text("mine")
    model.save_pretrained(folder, max_shard_size="4KB")
    assert not (folder / "model.safetensors").exists()
    model.save_pretrained(folder)
    names = {path.name for path in folder.iterdir()}
    ours = {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert names == ours | {"notes.md", "modeling_mine.py", "runs"}
    assert (folder / "runs" / "log").read_text() == "mine"
    assert {path.name for path in folder.parent.iterdir()} == {"checkpoint"}, "nothing is left beside it"


def test_programs_of_the_old_weights_go_with_them(folder, model):
    export_pretrained(model, folder.parent / "program", "stablehlo")
    (folder.parent / "program" / "model.onnx").write_bytes(b"")
    (folder.parent / "program" / "mine.onnx").write_bytes(b"")
    tiny_model(num_labels=3).save_pretrained(folder.parent / "program")
    names = {path.name for path in (folder.parent / "program").iterdir()}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json", "mine.onnx"}


def test_an_image_processor_of_ones_own_is_kept(folder, model):
    ViTClsImageProcessor(size={"height": 8, "width": 8}, image_mean=[0.1, 0.2, 0.3]).save_pretrained(folder)
    model.save_pretrained(folder)
    loaded = FlaxViTClsForImageClassification.from_pretrained(folder)
    assert loaded.image_processor.image_mean == [0.1, 0.2, 0.3]
    loaded.image_processor = ViTClsImageProcessor(size={"height": 8, "width": 8}, image_mean=[0.3, 0.2, 0.1])
    loaded.save_pretrained(folder)
    assert AutoImageProcessor.from_pretrained(folder).image_mean == [0.3, 0.2, 0.1]


def test_a_model_saved_at_another_size_has_a_processor_of_that_size(folder):
    FlaxViTClsForImageClassification.from_pretrained(folder, image_size=16).save_pretrained(folder)
    assert AutoImageProcessor.from_pretrained(folder).size == {"height": 16, "width": 16}
    tiny_model(image_size=12).save_pretrained(folder)
    assert AutoImageProcessor.from_pretrained(folder).size == {"height": 12, "width": 12}
    tiny_model(num_channels=4).save_pretrained(folder)
    assert not (folder / "preprocessor_config.json").exists()


def test_a_save_that_fails_leaves_the_old_checkpoint(folder, model, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("modeling_vit_cls.files.writing.to_host", full)
    with pytest.raises(CheckpointError, match="its old files are unchanged"):
        model.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert {path.name for path in folder.parent.iterdir()} == {"checkpoint"}


def test_through_a_symbolic_link_the_link_stays(folder, model):
    link = folder.parent / "link"
    link.symlink_to(folder)
    model.save_pretrained(link)
    assert link.is_symlink()
    assert_same(FlaxViTClsForImageClassification.from_pretrained(link).params, model.params)


def test_parameters_that_are_not_the_models_are_not_saved(model, tmp_path):
    with pytest.raises(ValueError, match="'classifier.bias': is missing"):
        model.save_pretrained(tmp_path, params={**model.params, "classifier": {"kernel": np.zeros((16, 5))}})
    with pytest.raises(ValueError, match=r"has shape \(16, 6\)"):
        model.save_pretrained(tmp_path, params={**model.params, "classifier": {"kernel": np.zeros((16, 6))}})
    with pytest.raises(ValueError, match="is not a parameter"):
        model.save_pretrained(tmp_path, params={**model.params, "more": np.zeros(3)})
    assert not list(tmp_path.iterdir())


def test_a_tree_of_flaxvit_is_told_what_to_do_with_it(model):
    pixels = np.zeros((1, 3, *model.config.image_hw), np.float32)
    old = {"vit": {"layernorm": {"scale": np.ones(4)}}, "classifier": model.params["classifier"]}
    message = "is not a parameter of this model, and neither are the others; if they are FlaxViT's, write flax"

    def assign(params):
        model.params = params

    calls = [
        assign,
        lambda params: model(pixels, params=params),
        jax.jit(lambda params: model(pixels, params=params).logits),
        lambda params: model.forward_intermediates(pixels, params=params),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match=message):
            call(old)
    short = {**model.params, "classifier": {}}
    with pytest.raises(ConfigError, match="is missing, 2 in all"):
        model(pixels, params=short)
    with pytest.raises(ConfigError, match="is not a parameter of this model$"):
        model(pixels, params={**short, "head": {"kernel": np.ones(4)}})


def test_a_config_changed_behind_the_model_is_not_saved(tmp_path):
    model = tiny_model()
    model.config.layer_norm_eps = 1e-5
    with pytest.raises(ConfigError, match="when the model was built"):
        model.save_pretrained(tmp_path)


def test_unknown_arguments_are_errors(model, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'repo_id'"):
        model.save_pretrained(tmp_path, repo="x")
    with pytest.raises(ConfigError, match="safe_serialization"):
        model.save_pretrained(tmp_path, safe_serialization=False)


@pytest.mark.parametrize("why", ["working directory", "no exchange", "parent cannot be written"])
def test_where_folders_cannot_be_exchanged_files_are(folder, model, monkeypatch, why):
    (folder / "notes.md").write_text("mine")
    model.save_pretrained(folder, max_shard_size="4KB")
    inode = folder.stat().st_ino
    if why == "working directory":
        monkeypatch.chdir(folder)
        model.save_pretrained(".")
    elif why == "parent cannot be written":
        make = tempfile.mkdtemp

        def refuse(prefix="", dir=None):
            if Path(dir) == folder.parent:
                raise PermissionError(13, "Permission denied")
            return make(prefix=prefix, dir=dir)

        monkeypatch.setattr("tempfile.mkdtemp", refuse)
        model.save_pretrained(folder)
    else:
        monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
        model.save_pretrained(folder)
    assert folder.stat().st_ino == inode
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json", "notes.md"}
    assert_same(FlaxViTClsForImageClassification.from_pretrained(folder).params, model.params)
    assert {path.name for path in folder.parent.iterdir()} == {"checkpoint"}


WITHOUT_LOCKS = """
import logging, os, sys
sys.modules["fcntl"] = None  # as if Python had none
folder, system = sys.argv[1:]

import jax, numpy
from modeling_vit_cls import FlaxViTClsForImageClassification
from modeling_vit_cls.training.run_folder import RunFolder
logging.basicConfig(stream=sys.stdout, format="%(message)s")

open_anything = os.open
def open_no_folder(path, *arguments, dir_fd=None):  # with dir_fd it is shutil, which has no such calls on Windows
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return open_anything(path, *arguments, dir_fd=dir_fd)
if system == "win32":
    os.open, sys.platform = open_no_folder, system

model = FlaxViTClsForImageClassification.from_pretrained(folder)
with RunFolder(folder):
    for scale in (2, 3):
        model.params = jax.tree.map(lambda leaf: leaf * scale, model.params)
        model.save_pretrained(folder)
        again = FlaxViTClsForImageClassification.from_pretrained(folder)
        jax.tree.map(numpy.testing.assert_array_equal, model.params, again.params)
"""


@pytest.mark.parametrize("system", ["linux", "win32"])
def test_without_file_locks_all_works_and_the_log_warns_once(folder, system):
    """Hides `fcntl`; for Windows also refuses to open folders, as its `os.open` does."""
    before = sorted(entry.name for entry in folder.iterdir())
    command = [sys.executable, "-c", WITHOUT_LOCKS, folder, system]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    warning = "this system has no file locks: let no two processes save or train into one folder at the same time"
    assert done.stdout.splitlines() == [warning]
    assert sorted(entry.name for entry in folder.iterdir()) == before


def test_what_no_load_would_accept_is_refused_before_the_checkpoint_is_replaced(model, folder):
    before = {entry.name: entry.read_bytes() for entry in folder.iterdir()}
    other = FlaxViTClsForImageClassification.from_pretrained(folder)
    whole = jax.tree.map(lambda leaf: (leaf * 100).astype("int8"), other.params)
    with pytest.raises(ConfigError, match=r"params='.*': is int8, expected floating-point numbers"):
        other.save_pretrained(folder, params=whole)
    other.config.training_note = "x"
    with pytest.raises(ConfigError, match=r"training_note='x': is not a field of ViTClsConfig: `del model.config.tr"):
        other.save_pretrained(folder)
    assert {entry.name: entry.read_bytes() for entry in folder.iterdir()} == before


def test_fields_that_another_version_of_transformers_has_are_saved_and_loaded(folder):
    config = FlaxViTClsForImageClassification.from_pretrained(folder).config
    fields = {"finetuning_task": "beans", "tie_word_embeddings": False, "bos_token_id": 1}
    again = ViTClsConfig.from_dict({**config.to_dict(), **fields})
    assert again.finetuning_task == "beans"
    FlaxViTClsForImageClassification(again).save_pretrained(folder)
    assert FlaxViTClsForImageClassification.from_pretrained(folder).config.finetuning_task == "beans"
