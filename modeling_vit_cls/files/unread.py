"""Weight files that are not read: pickled ones, which can run code, and those of other formats."""

import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import CheckpointError
from ..names import CONFIG, INDEX, WEIGHTS

PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".pkl", ".pth.tar", ".pt.tar")
_NO_WEIGHTS = ("training_args.", "optimizer.", "scheduler.", "scaler.", "rng_state")  # that a Trainer pickles
_OWN_NAMES = ("open_clip", "adapter_model")  # beginnings of names by which safetensors are found too
_OTHER_FORMATS = {  # by the end of a file's name
    ".onnx": "ONNX",
    ".h5": "HDF5 of Keras or TensorFlow",
    ".keras": "Keras's format",
    ".pb": "a program of TensorFlow",
    ".tflite": "a program of TensorFlow Lite",
    ".pt2": "a program of PyTorch",
    ".gguf": "GGUF",
    ".ot": "the format of Rust's tch",
    ".bin.index.json": "an index of pickled shards, which are missing and would not be read",
}
_SHARD = re.compile(r"([\w.-]+-)\d{5}-of-(\d{5})(\.\w+)")
# A training's file holds the weights in one of these parts, and its arguments beside them. Each line is a statement, so
# that the lines can be pasted into a console.
_REMEDY = """pickled weights are never read: they can run code. Convert them once, with PyTorch, in their folder:
    import argparse, functools, torch, safetensors.torch as st
    torch.serialization.add_safe_globals([argparse.Namespace])
    files = [torch.load(file, map_location="cpu", weights_only=True) for file in {files}]
    parts, saved = "model state_dict module teacher model_ema".split(), dict(kv for f in files for kv in f.items())
    saved = functools.reduce(lambda d, part: d[part] if isinstance(d.get(part), dict) else d, parts, saved)
    tensors = {{k: v.contiguous().clone() for k, v in saved.items() if isinstance(v, torch.Tensor)}}
    st.save_file(tensors, {output!r})"""


def pickled_weights(names: Iterable[str]) -> list[str]:
    """The names of pickled weights among those of a folder's files: first those that belong to its config.json.

    What else a Trainer pickles is left out.
    """
    names = set(names)
    pickled = [name for name in names if name.endswith(PICKLES) and not name.startswith(_NO_WEIGHTS)]
    of_config = "pytorch_model" if CONFIG in names else ""
    return sorted(pickled, key=lambda name: (not name.startswith(of_config), name))


def pickle_refused(file: str | Path) -> CheckpointError:
    """The error for a file of pickled weights, or a shard of them, with the lines that convert it or all shards."""
    name = Path(file).name
    output = Path(name).with_suffix(".safetensors").name if name.startswith(_OWN_NAMES) else WEIGHTS
    files = repr([name])
    if shard := _SHARD.fullmatch(name):
        before, count, after = shard.groups()
        files = f'[f"{before}{{i:05}}-of-{count}{after}" for i in range(1, {int(count) + 1})]'
    return CheckpointError(f"{file}: {_REMEDY.format(files=files, output=output)}")


def unread_weights(names: Iterable[str], folder: str | Path) -> CheckpointError | None:
    """The error for weights that are not read, among the files of a folder that has no others; None without any."""
    names = sorted(names)
    if pickled := pickled_weights(names):
        return pickle_refused(f"{folder}/{pickled[0]}")
    for name in names:
        for end, kind in _OTHER_FORMATS.items():
            if name.endswith(end):
                return CheckpointError(f"{folder}/{name}: is {kind}; expected {WEIGHTS}, or {INDEX} and its shards")
    return None
