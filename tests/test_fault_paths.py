"""Checkpoints that name files which are not theirs, or hold code: what a load opens and what it runs."""

import json
import os
import pickle
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hub_scripts.__main__ import main
from modeling_vit_cls import (
    BadImageError,
    CheckpointError,
    ConfigError,
    FlaxAutoModelForImageClassification,
    FlaxViTClsForImageClassification,
    ViTClsConfig,
    ViTClsImageProcessor,
)

pytestmark = pytest.mark.world

Model = FlaxViTClsForImageClassification
INDEX = "model.safetensors.index.json"
SHARD_NAMES = ["../outside.safetensors", "OUTSIDE", "a/../../outside.safetensors", "~/x.safetensors", "..", ".", ""]
SHARD_NAMES += ["/etc/passwd", "../../../../../../etc/passwd", "/dev/zero", "/dev/stdin", "/proc/self/environ", "a\0b"]
SHARD_NAMES += ["a\\..\\x.safetensors", "file:///etc/passwd", "https://127.0.0.1/x.safetensors", "x.bin", "config.json"]
SHARD_NAMES += [
    "x" * 300 + ".safetensors",
    "$HOME/x.safetensors",
    "\u202ex.safetensors",
    "x\n.safetensors",
    5,
    None,
    [],
]
LINKS = ["/dev/zero", "/dev/full", "/etc", "/proc/self/mem", "loop.safetensors", "nowhere", "fifo"]
SUBFOLDERS = ["..", "../..", "/", "/etc", "a/../..", "../outside", "~", "a\0b", "x" * 300, "config.json", "./.."]
REVISIONS = ["..", "../../x", "a\0b", "/etc", "refs/../../x", ""]
MEMBERS = ["../outside", "/etc/passwd", "a/../../x", "..", "C:\\x", "a\0b", ""]

_seen: list[tuple[str, tuple]] | None = None


def _hook(event: str, arguments: tuple) -> None:
    if _seen is not None:
        _seen.append((event, arguments))


sys.addaudithook(_hook)  # it can never be taken away, so it asks whether anyone watches


@contextmanager
def watched() -> Iterator[list[tuple[str, tuple]]]:
    """What the interpreter reports of the block: files that are opened, code that is run, processes, connections."""
    global _seen
    _seen = events = []
    try:
        yield events
    finally:
        _seen = None


def opened_outside(events: list[tuple[str, tuple]], folder: Path) -> list[str]:
    """Files that were opened and are neither the folder's nor Python's own."""
    own = (str(folder), sys.prefix, sys.base_prefix, str(Path(__file__).parents[1]))
    paths = [str(a[0]) for event, a in events if event == "open" and isinstance(a[0], str | bytes | os.PathLike)]
    return [path for path in paths if not os.path.realpath(path).startswith(own)]


@pytest.fixture
def shards(model, tmp_path) -> Path:
    """A checkpoint in shards; beside its folder lies a sound file of weights."""
    folder = tmp_path / "checkpoint"
    model.save_pretrained(folder, max_shard_size="8KB")
    shutil.copy(sorted(folder.glob("*.safetensors"))[0], tmp_path / "outside.safetensors")
    Model.from_pretrained(folder)  # what is opened the first time only is opened now
    return folder


def refused(folder: Path, tally, path: Path | str | None = None, **arguments) -> None:
    """One case: a load ends with an error of ours in a line, and no file outside of the folder is opened."""
    with watched() as events:
        error = tally.attempt(lambda: Model.from_pretrained(path or folder, **arguments))
    assert isinstance(error, CheckpointError | ConfigError)
    assert "\n" not in str(error)
    assert opened_outside(events, folder) == []
    tally.note("refused, nothing opened outside")


def test_the_watch_sees(tmp_path):
    with watched() as events:
        (tmp_path / "x").write_text("x")
        pickle.loads(pickle.dumps(Path))
    assert opened_outside(events, tmp_path / "y") == [str(tmp_path / "x")]
    assert "pickle.find_class" in [event for event, _ in events]


def test_names_of_shards(shards, tally):
    index = json.loads((shards / INDEX).read_text())
    for name in SHARD_NAMES:
        evil = str(shards.parent / "outside.safetensors") if name == "OUTSIDE" else name
        for whole in (False, True):
            names = (
                dict.fromkeys(index["weight_map"], evil) if whole else index["weight_map"] | {"classifier.bias": evil}
            )
            (shards / INDEX).write_text(json.dumps(index | {"weight_map": names}))
            refused(shards, tally)


# Links are followed, wherever they lead: the Hub's cache is made of them. What they lead to must be weights.
def test_shards_that_are_links_to_what_is_no_file(shards, tally):
    os.mkfifo(shards / "fifo")
    for name in LINKS:
        file = sorted(shards.glob("model-*.safetensors"))[1]
        whole = file.read_bytes()
        file.unlink()
        file.symlink_to(file.name if name == "loop.safetensors" else name)
        error = tally.attempt(lambda: Model.from_pretrained(shards))
        assert isinstance(error, CheckpointError)
        assert file.name in str(error)
        tally.note("refused by name")
        file.unlink()
        file.write_bytes(whole)


def test_subfolders_revisions_and_configs(shards, tally):
    for name in SUBFOLDERS:
        refused(shards, tally, subfolder=name)
    for name in REVISIONS:
        refused(shards, tally, "user/none", revision=name, local_files_only=True)
    for name in ("a\0b", "x" * 300, "../outside"):
        refused(shards, tally, config=shards / name)


def test_names_of_members_and_tensors(shards, model, tally, tmp_path):
    folder = tmp_path / "members"
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for name in MEMBERS:
        if "\0" not in name:
            np.savez(folder / "weights.npz", **{name: np.zeros(3)})
            refused(folder, tally)
            (folder / "weights.npz").unlink()
        save_file({**tensors, name: np.zeros(3, np.float32)}, folder / "model.safetensors")
        refused(folder, tally)
        (folder / "model.safetensors").unlink()


class Canary:
    """What sings when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (str(self.mark),))


def plant(folder: Path, mark: Path, what: str) -> None:
    """Put code into a checkpoint, at one of the places where loaders have run it."""
    code = f"import os\nos.mkdir({str(mark)!r})\nclass Evil:\n    pass\n"
    for name in ("evil.py", "modeling_vit_cls.py", "configuration_vit_cls.py", "__init__.py", "sitecustomize.py"):
        (folder / name).write_text(code)
    config, processor = folder / "config.json", folder / "preprocessor_config.json"
    auto = dict.fromkeys(("AutoConfig", "FlaxAutoModelForImageClassification", "AutoImageProcessor"), "evil.Evil")

    def change(file: Path, **fields) -> None:
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    if what == "auto_map":
        change(config, auto_map=auto)
        change(processor, auto_map=auto)
    elif what == "attention kernel":
        change(config, _attn_implementation_internal="evil/kernel", _attn_implementation="evil/kernel")
    elif what == "names of classes":
        change(config, architectures=["os.system", "evil.Evil"], _class_name="evil.Evil", model_class="evil.Evil")
        change(processor, image_processor_type="evil.Evil", processor_class="evil.Evil")
    elif what == "pipeline":
        change(config, custom_pipelines={"image-classification": {"impl": "evil.Evil", "pt": ["Evil"]}})
    elif what == "quantization":
        change(config, quantization_config={"quant_method": "evil", "modules": ["evil.Evil"]})
    elif what == "types":
        change(config, dtype="__import__('os').mkdir('x')", torch_dtype="evil.Evil")
    elif what == "pickle beside":
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(mark)))
    elif what == "pickle alone":
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(mark)))
    elif what == "pickle named safetensors":
        (folder / "model.safetensors").write_bytes(pickle.dumps(Canary(mark)))
    elif what == "npz of objects":
        (folder / "model.safetensors").unlink()
        np.savez(folder / "weights.npz", evil=np.array([Canary(mark)], dtype=object))
    elif what == "msgpack of another type":
        (folder / "model.safetensors").unlink()
        (folder / "flax_model.msgpack").write_bytes(b"\x81\xa1a\xc7\x04\x2a" + b"evil")
    elif what == "adapter":
        (folder / "adapter_config.json").write_text(
            json.dumps({"base_model_name_or_path": "evil/base", "auto_mapping": auto})
        )
    elif what == "tokenizer":
        (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}))
        (folder / "tokenizer.pkl").write_bytes(pickle.dumps(Canary(mark)))
    elif what == "template":
        (folder / "chat_template.jinja").write_text("{{ ''.__class__.__mro__ }}")
    elif what == "method":
        change(config, to_dict=1, __class__="evil.Evil", __reduce__="evil.Evil")


CANARIES = ["auto_map", "attention kernel", "names of classes", "pipeline", "quantization", "types", "pickle beside"]
CANARIES += ["pickle alone", "pickle named safetensors", "npz of objects", "msgpack of another type", "adapter"]
CANARIES += ["tokenizer", "template", "method"]
ENTRANCES = {
    "the class": Model.from_pretrained,
    "the Auto class": FlaxAutoModelForImageClassification.from_pretrained,
    "the config": ViTClsConfig.from_pretrained,
    "the processor": ViTClsImageProcessor.from_pretrained,
    "the command line": lambda folder: main(["verify", str(folder)]),
}


@pytest.mark.parametrize("what", CANARIES)
def test_code_in_a_checkpoint_never_runs(what, model, tmp_path, tally, monkeypatch, capsys):
    folder, mark = tmp_path / "checkpoint", tmp_path / "mark"
    model.save_pretrained(folder)
    for entrance in ENTRANCES.values():
        entrance(folder)  # what is imported the first time only is imported now
    plant(folder, mark, what)
    monkeypatch.chdir(folder)
    before = set(sys.modules)
    for entrance in ENTRANCES.values():
        with watched() as events:
            found = tally.attempt(partial(entrance, folder))
        tally.note(
            "refused" if isinstance(found, CheckpointError | ConfigError | BadImageError) else "loaded without it"
        )
        kinds = {event for event, _ in events}
        assert not kinds & {
            "pickle.find_class",
            "subprocess.Popen",
            "os.system",
            "os.exec",
            "socket.connect",
            "os.mkdir",
        }
        run = [a[0].co_filename for event, a in events if event == "exec" and hasattr(a[0], "co_filename")]
        assert not [file for file in run if str(tmp_path) in file]
        assert not mark.exists()
    assert not {"torch", "evil"} & (set(sys.modules) - before)
