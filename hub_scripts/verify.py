"""`vit-cls verify CHECKPOINT`: is every tensor what was saved?"""

import argparse
import json
from pathlib import Path

from modeling_vit_cls import CheckpointError
from modeling_vit_cls.families.open import Source, checked_tensors, open_checkpoint
from modeling_vit_cls.files.file_digests import check_digests
from modeling_vit_cls.files.folder import read_undisturbed
from modeling_vit_cls.files.tensor import Tensor
from modeling_vit_cls.hub.download import checkpoint_path
from modeling_vit_cls.names import DIGESTS


def run(arguments: argparse.Namespace) -> None:
    """Read all of it. Raises CheckpointError at the first difference, and where there is nothing to compare with."""
    path = checkpoint_path(arguments.checkpoint)
    source, tensors, size = read_undisturbed(path, lambda: _read(path))
    if any(tensor.digest is None for tensor in tensors.values()):
        problem = f"{source.family.name} weights without digests: whole, but nothing tells if they are as saved"
        raise CheckpointError(f"{source.path}: {problem}; `vit-cls import` makes a checkpoint that has them")
    said = {"checkpoint": arguments.checkpoint, "verified_tensors": len(tensors), "bytes": size}
    in_words = f"{arguments.checkpoint}: {len(tensors)} tensors are as they were saved"
    print(json.dumps(said) if arguments.json else in_words)


def _read(path: Path) -> tuple[Source, dict[str, Tensor], int]:
    """A checkpoint, its tensors, and how many bytes they are, all of which are read; of a run, its other files too."""
    if (path / DIGESTS).is_file():
        check_digests(path)
    source = open_checkpoint(path)
    tensors, _ = checked_tensors(source, allow_missing=False)
    return source, tensors, sum(tensor.read().nbytes for tensor in tensors.values())
