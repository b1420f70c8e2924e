"""The verbs that concern checkpoints: what there is, from one library to another, whether it loads, to the Hub."""

import os
from typing import Any

from .parser import add_model, add_revision, add_verb


def _variants(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "variants",
        "variants:run",
        help="list the named architectures",
        description="List the named architectures: parameters and GFLOPs per image, with a 1,000-class head. GFLOPs "
        "count a multiply-add as two operations; GMACs count it as one, which papers often call GFLOPs.",
        example="variants '*_base_*'",
    )
    parser.add_argument(
        "pattern", nargs="?", default="*", help="a shell wildcard, in quotes, or a part of the name (default: all)"
    )


def _models(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "models",
        "models:run",
        help="list checkpoints of the Hub that load",
        description="List the catalogue: checkpoints of the Hub in the families that load, with parameters, image "
        "size, pretraining data, licence, and published top-1 on ImageNet-1k in percent. With --json also where each "
        "fact comes from. The facts are published ones, not measured here.",
        example="models '*dinov3*'",
    )
    parser.add_argument(
        "pattern", nargs="?", default="*", help="a shell wildcard, in quotes, or a part of the Hub id (default: all)"
    )


def _import(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "import",
        "exchange:run_import",
        help="convert another library's checkpoint",
        description="Convert a checkpoint of transformers, timm, torchvision, Meta or big_vision into one of this "
        "package.",
        example="import google/vit-base-patch16-224 my-vit",
    )
    add_model(parser, "source", "a folder, a weight file (.safetensors, .npz, .msgpack) or a Hub id")
    parser.add_argument(
        "folder",
        type=os.path.expanduser,
        help="where to write config.json, model.safetensors and preprocessor_config.json",
    )


def _export(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "export",
        "exchange:run_export",
        help="export a model for another library, or as a program",
        description="Export a model for transformers (PyTorch), timm, ONNX Runtime, or as StableHLO.",
        example="export my-vit my-vit-timm --to timm",
    )
    add_model(parser)
    parser.add_argument(
        "folder", type=os.path.expanduser, help="where to write: a folder without a checkpoint or program"
    )
    parser.add_argument("--to", required=True, choices=["transformers", "timm", "onnx", "stablehlo"])


def _check(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "check",
        "check:run",
        help="would a checkpoint load, and as what, without downloading its weights",
        description="Read config.json and the headers of the weight files, and show what the checkpoint is: family, "
        "variant, parameters, size of the download, image processor, readout, classes, licence. The exit status is 1 "
        "if it does not load; the error names the tensor or the field.",
        example="check google/vit-base-patch16-224",
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("checkpoint", type=os.path.expanduser, nargs="?", help="a folder, a weight file or a Hub id")
    which.add_argument(
        "--catalogue", action="store_true", help="check all of `vit-cls models`, and print a table in Markdown"
    )
    add_revision(parser)
    parser.add_argument("--subfolder", default="", help="folder of the checkpoint inside the repository")


def _verify(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "verify",
        "verify:run",
        help="compare a checkpoint with the digests in its files",
        description="Read each tensor of a checkpoint and compare it with its digest. The exit status is 1 if one "
        "differs.",
        example="verify my-vit",
    )
    add_model(parser, "checkpoint")


def _push(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "push",
        "push:run",
        help="push a folder to the Hub",
        description="Push checkpoint, card, results and recipe in one commit. There is no commit if the Hub has all of "
        "them already.",
        example="push my-vit user/my-vit --dry_run",
    )
    parser.add_argument(
        "folder", type=os.path.expanduser, help="a folder that was trained into, or saved with save_pretrained"
    )
    parser.add_argument("repo_id", help="user/name on the Hub; created if necessary")
    parser.add_argument("--private", action="store_true", help="create a private repository; refuse a public one")
    parser.add_argument("--revision", help="branch to push to (default: main); created if necessary")
    parser.add_argument(
        "--dry_run", action="store_true", help="only show the changes and the card; works without a network"
    )
    parser.add_argument("--message", default="Upload model", help="message of the commit (default: %(default)s)")


def _publish(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "publish",
        "publish:run",
        help="push every model of a list, and a collection of them",
        description="Push every model of a list to an organisation, each in one commit, and a collection that lists "
        "them. All models are checked before the first push. The same command goes on after a failure, and changes "
        "nothing that is up to date.",
        example="publish zoo.yaml --dry_run",
    )
    parser.add_argument(
        "list",
        metavar="LIST",
        help="a YAML file: organisation, title and description of the collection, private, and models, each with "
        "folder and name",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="only check the models and show what would change on the Hub"
    )


CHECKPOINT_VERBS = (_variants, _models, _import, _export, _check, _verify, _push, _publish)
