"""The verbs that use a model: arguments, help texts, and the names of the functions that run them.

The functions are named, not imported, so that `--help` imports neither JAX nor transformers.
"""

import argparse
import os
import platform
from importlib.metadata import version
from typing import Any

from .checkpoint_verbs import CHECKPOINT_VERBS
from .dataset import KINDS, add_dataset_options
from .parser import Parser, add_model, add_verb
from .training_verbs import TRAINING_VERBS

_READOUTS = ["cls", "cls_concat", "mean", "cls_mean", "map"]


def command_line() -> Parser:
    """The parser of `vit-cls`. In the parsed arguments, `runs` is the function of the verb as "module:function"."""
    parser = Parser(
        prog="vit-cls",
        description="Vision Transformers with a [CLS] token, for JAX users of Hugging Face.",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # keeps the output of --version in one line
    )
    parser.add_argument("--version", action="version", version=_versions(), help="show the versions and exit")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(required=True, metavar="VERB", parser_class=Parser)
    for add in (*TRAINING_VERBS, _benchmark, _predict, _embed, _explain, _demo, *CHECKPOINT_VERBS):
        add(verbs)
    return parser


def _versions() -> str:
    others = ", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "transformers", "huggingface-hub"))
    return f"vit-cls {version('vit-cls')} ({others}, Python {platform.python_version()})"


def _benchmark(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "benchmark",
        "benchmark:run",
        help="measure a classifier, or the features of a model, on a dataset",
        description="Measure a classifier on a labelled dataset: accuracy, top-5 accuracy, macro F1, negative "
        "log-likelihood, expected calibration error, images per second. Or measure the features of a model without "
        "training it, for each of its readouts: by the nearest neighbours, by retrieval, or by a linear probe.",
        example="benchmark my-vit --dataset_name digits --output my-vit/results.json; benchmark my-vit --method probe "
        "--dataset_name digits --output_dir my-probe",
    )
    add_model(parser)
    parser.add_argument("--dataset_name", required=True, help=KINDS)
    add_dataset_options(parser, split="test")
    parser.add_argument(
        "--method",
        choices=["classify", "knn", "retrieval", "probe"],
        default="classify",
        help="classify: the model's own classifier; knn: a vote of the 10, 20, 100, 200 nearest training images; "
        "retrieval: recall at 1, 5, 10 and mAP@R; probe: logistic regression (default: %(default)s)",
    )
    parser.add_argument(
        "--train_split",
        help="for features: the split to search in or to fit to; for retrieval it may be the measured split (default: "
        "train)",
    )
    parser.add_argument("--label_column_name", help="default: the only column of classes")
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="METRIC",
        help="accuracy, top_5_accuracy, macro_f1, nll, ece, or a folder or Space for evaluate.load, whose code is then "
        "run (default: all five)",
    )
    parser.add_argument("--batch_size", type=int, default=32, help="images in a batch (default: %(default)s)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument(
        "--on_bad_image",
        choices=["raise", "skip"],
        default="raise",
        help="for a broken image: stop, or leave it out and count it (default: %(default)s)",
    )
    parser.add_argument("--output", type=os.path.expanduser, metavar="FILE", help="file for the results, as JSON")
    parser.add_argument(
        "--output_dir",
        type=os.path.expanduser,
        metavar="FOLDER",
        help="for probe: save the model with the probe as its classifier, and a card",
    )


def _add_images(parser: Any) -> None:
    help_text = "an image file, or a folder with its subfolders"
    parser.add_argument("images", type=os.path.expanduser, nargs="+", metavar="IMAGE", help=help_text)


def _predict(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "predict",
        "predict:run",
        help="classify images",
        description="Classify images: print the most probable classes of each image and their probabilities. The exit "
        "status is 1 if a path does not exist or no image can be read.",
        example="predict my-vit cat.jpg photos/ --top_k 3",
    )
    add_model(parser)
    _add_images(parser)
    parser.add_argument("--top_k", type=int, default=5, help="number of classes per image (default: %(default)s)")
    parser.add_argument(
        "--on_bad_image",
        choices=["skip", "raise"],
        default="skip",
        help="for a broken image: leave it out and name it, or stop (default: %(default)s)",
    )


def _embed(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "embed",
        "embed:run",
        help="one vector for each image of a dataset, for search",
        description="Embed the images of a dataset, with or without labels: write numbered parquet files with its "
        "columns and the column 'embedding', for datasets.load_dataset('parquet', data_dir=FOLDER). The same command "
        "continues a run that was killed.",
        example="embed facebook/dinov2-small photos --output photos-embedded --normalize",
    )
    add_model(parser, help="a folder or a Hub id; of a classifier the backbone is used")
    parser.add_argument("dataset", type=os.path.expanduser, help=KINDS)
    parser.add_argument(
        "--output",
        type=os.path.expanduser,
        required=True,
        metavar="FOLDER",
        help="a new folder, or that of an earlier run",
    )
    add_dataset_options(parser, split="train")
    parser.add_argument("--readout", choices=_READOUTS, help="default: the model's own")
    parser.add_argument("--normalize", action="store_true", help="give each vector length 1")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        default="float32",
        help="type to compute in; embeddings of the last two are stored as float16 (default: %(default)s)",
    )
    parser.add_argument("--batch_size", type=int, default=32, help="images in a batch (default: %(default)s)")
    parser.add_argument("--shards", type=int, help="number of files (default: one for each 1,000 images, up to 1,000)")
    parser.add_argument("--worker", metavar="K/N", help="do the shards K, K + N, ... only (default: by Slurm, or all)")
    parser.add_argument(
        "--max_bad_images",
        type=int,
        default=100,
        help="broken images are left out and listed; stop at more than this number (default: %(default)s)",
    )


def _explain(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "explain",
        "explain:run",
        help="draw what a model sees in images",
        description="Draw what a model sees in images, as PNG: attention of the last four blocks by head, attention "
        "rollout, the features of the patches as colours, and their similarity to one patch. The exit status is 1 if a "
        "path does not exist or no image can be read.",
        example="explain my-vit cat.jpg photos/ --output pictures",
    )
    add_model(parser)
    _add_images(parser)
    parser.add_argument(
        "--output", type=os.path.expanduser, required=True, metavar="FOLDER", help="folder for the pictures"
    )
    parser.add_argument(
        "--patch",
        nargs=2,
        type=int,
        metavar=("ROW", "COLUMN"),
        help="the patch that others are compared with, from 0 (default: in the middle)",
    )


def _demo(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "demo",
        "page:run",
        help="a page in the browser: classes, attention and neighbours of your images",
        description="Serve a page on this machine: drop an image, see classes and scores, attention over the image, "
        "and what changes with another readout, for several models side by side. It needs no network, sends nothing, "
        "and deletes images after some minutes. Ctrl-C ends it.",
        example="demo my-vit facebook/dinov2-small --neighbours photos-embedded",
    )
    add_model(parser, "models", "folders or Hub ids; a revision needs a single one", nargs="+", metavar="MODEL")
    parser.add_argument(
        "--neighbours",
        type=os.path.expanduser,
        nargs="+",
        metavar="FOLDER",
        help="folders of `vit-cls embed` with one of the models: their nearest images are shown too",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 lets other machines in, without a password (default: %(default)s)",
    )
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
