"""`vit-cls verify CHECKPOINT`: is every tensor what was saved?"""

import argparse
import json
from typing import Any

from modeling_vit_cls import CheckpointError
from modeling_vit_cls.checkpoints.hub import checkpoint_path
from modeling_vit_cls.checkpoints.load import checked_tensors, open_checkpoint

from .verbs import add_verb


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        verbs,
        "verify",
        run,
        help="compare a checkpoint with the digests in its files",
        description="Read every tensor of a checkpoint and compare it with its digest; exit status 1 if one differs.",
        example="verify my-vit",
    )
    parser.add_argument("checkpoint", help="a folder or a Hub id")


def run(arguments: argparse.Namespace) -> None:
    """Read all of it. Raises CheckpointError at the first difference, and where there is nothing to compare with."""
    source = open_checkpoint(checkpoint_path(arguments.checkpoint))
    tensors, _ = checked_tensors(source, allow_missing=False)
    size = sum(tensor.read().nbytes for tensor in tensors.values())
    if any(tensor.digest is None for tensor in tensors.values()):
        problem = f"{source.family.name} weights without digests: whole, but nothing tells if they are as saved"
        raise CheckpointError(f"{source.path}: {problem}; `vit-cls import` makes a checkpoint that has them")
    said = {"checkpoint": arguments.checkpoint, "verified_tensors": len(tensors), "bytes": size}
    in_words = f"{arguments.checkpoint}: {len(tensors)} tensors are as they were saved"
    print(json.dumps(said) if arguments.json else in_words)
