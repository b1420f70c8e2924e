"""Every file name of a model folder, grouped by what writes it; names on the Hub. Imports nothing of the package."""

import re

# Written by `save_pretrained`, read by `from_pretrained`.
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
NESTED_PROCESSOR = "processor_config.json"  # written by transformers only; may contain the image processor
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = "model{suffix}.safetensors"
_WEIGHT_FILE = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")

# Read only: OpenCLIP's own files.
OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")

# Written by `export_pretrained`: programs, which contain the weights or need the weights in their folder.
PROGRAMS = {"onnx": "model.onnx", "stablehlo": "model.stablehlo"}
ONNX_WEIGHTS = f"{PROGRAMS['onnx']}.data"

# Written by `FlaxTrainer`: `trainer_state.json` with every model that it saves, all three in folders checkpoint-N.
TRAINER_STATE, TRAINING_STATE, DIGESTS = "trainer_state.json", "training_state.safetensors", "training_digests.json"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
RUN_LOCK = ".training.lock"  # in a run's folder during training

# Written by `run_recipe` and `vit-cls benchmark`: how the weights were trained, and what was measured.
RECIPE, RESULTS = "recipe.yaml", "results.json"

# Written by `embed` beside its shards. It is hidden, because `datasets` reads every other file of a folder as a shard.
EMBED = ".embed.json"

# Written by `write_card`. The name of the Hub's result file is ours; other files in that folder belong to others.
CARD, EVAL_RESULTS = "README.md", ".eval_results/vit-cls.yaml"
TRAINING_CURVE, CONFUSION_MATRIX, ATTENTION = "training_curve.png", "confusion_matrix.png", "attention.png"
PICTURES = (TRAINING_CURVE, CONFUSION_MATRIX, ATTENTION)

_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def is_repo_id(text: object) -> bool:
    """Whether a text has the form of the name of a repository on the Hub, owner/name."""
    return _REPO_ID.fullmatch(str(text)) is not None


def is_weight_file(name: str) -> bool:
    """Whether a file name is one of our weight files: whole, a shard, or the index."""
    return _WEIGHT_FILE.fullmatch(name) is not None


def is_checkpoint_file(name: str) -> bool:
    """Whether a file name is one of our checkpoint files: config, image processor or weights."""
    return name in (CONFIG, PROCESSOR) or is_weight_file(name)


def is_program_file(name: str) -> bool:
    """Whether a file name is one of an exported program, its weights or its manual."""
    return name in (*PROGRAMS.values(), *map(manual_of, PROGRAMS), ONNX_WEIGHTS)


def manual_of(kind: str) -> str:
    """The name of the file that explains how to call a program of this kind."""
    return f"{PROGRAMS[kind]}.md"


def is_training_file(name: str) -> bool:
    """Whether a file name is one of a trainer's state files."""
    return name in (TRAINER_STATE, TRAINING_STATE, DIGESTS)


def is_measured_file(name: str) -> bool:
    """Whether a path relative to the model's folder is a file about its weights: results, recipe, card or picture.

    The files of `FlaxTrainer.save_metrics` are not: they do not tell which weights were measured.
    """
    return name in (RECIPE, RESULTS, CARD, EVAL_RESULTS, *PICTURES)
