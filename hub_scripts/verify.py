"""`vit-cls verify CHECKPOINT`: check that each tensor is as it was saved, by the digests in the files."""

import argparse
import json
from pathlib import Path

from modeling_vit_cls import CheckpointError
from modeling_vit_cls.families.open import Source, open_checkpoint
from modeling_vit_cls.families.strict import checked_tensors
from modeling_vit_cls.files.file_digests import check_digests
from modeling_vit_cls.files.folder import read_undisturbed
from modeling_vit_cls.files.tensor import Tensor
from modeling_vit_cls.hub.download import checkpoint_path
from modeling_vit_cls.names import DIGESTS


def run(arguments: argparse.Namespace) -> None:
    """Read and compare all tensors. Raises CheckpointError for the first difference, and for files without digests."""
    count, size = check_tensors(checkpoint_path(arguments.checkpoint, revision=arguments.revision))
    facts = {"checkpoint": arguments.checkpoint, "verified_tensors": count, "bytes": size}
    sentence = f"{arguments.checkpoint}: {count} tensors are as they were saved"
    print(json.dumps(facts) if arguments.json else sentence)


def check_tensors(path: Path) -> tuple[int, int]:
    """Compare each tensor of a checkpoint with its digest: number of tensors, and bytes.

    Raises CheckpointError for the first difference, and for files without digests.
    """
    source, tensors, size = read_undisturbed(path, lambda: _read(path))
    if any(tensor.digest is None for tensor in tensors.values()):
        problem = f"{source.family.name} weights without digests: complete, but they cannot be compared"
        raise CheckpointError(f"{source.path}: {problem}; `vit-cls import` makes a checkpoint that has them")
    return len(tensors), size


def _read(path: Path) -> tuple[Source, dict[str, Tensor], int]:
    """Read a checkpoint: the source, its tensors, and their size in bytes. Other files of a run are checked too."""
    if (path / DIGESTS).is_file():
        check_digests(path)
    source = open_checkpoint(path)
    tensors, _ = checked_tensors(source, allow_missing=False)
    return source, tensors, sum(tensor.read().nbytes for tensor in tensors.values())
