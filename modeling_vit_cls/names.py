"""Every file name of a model folder, with who writes it. The ground floor: nothing is imported here."""

import re

# `save_pretrained`, in every folder of ours: what `from_pretrained` reads.
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
NESTED_PROCESSOR = "processor_config.json"  # transformers writes it; it may hold the image processor
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = "model{suffix}.safetensors"
_WEIGHT_FILE = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")

# `export_pretrained`: programs, which hold the weights or belong to those beside them.
PROGRAMS = {"onnx": "model.onnx", "stablehlo": "model.stablehlo"}
ONNX_WEIGHTS = f"{PROGRAMS['onnx']}.data"

# `FlaxTrainer`: `trainer_state.json` beside every model that it saves, all three in the folders checkpoint-N.
TRAINER_STATE, TRAINING_STATE, DIGESTS = "trainer_state.json", "training_state.safetensors", "training_digests.json"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
RUN_LOCK = ".training.lock"  # in the folder of a run while it trains

# `run_recipe` and `vit-cls benchmark`: how the weights were trained, what was measured of them.
RECIPE, RESULTS = "recipe.yaml", "results.json"

# `write_card`. The Hub's result file has a name of our own: files of other names there are other people's.
CARD, EVAL_RESULTS = "README.md", ".eval_results/vit-cls.yaml"
TRAINING_CURVE, CONFUSION_MATRIX, ATTENTION = "training_curve.png", "confusion_matrix.png", "attention.png"
PICTURES = (TRAINING_CURVE, CONFUSION_MATRIX, ATTENTION)


def is_weight_file(name: str) -> bool:
    """Whether a file name is one that our weights are written to."""
    return _WEIGHT_FILE.fullmatch(name) is not None


def is_checkpoint_file(name: str) -> bool:
    """Whether a file name is one of a checkpoint of ours: config, image processor or weights."""
    return name in (CONFIG, PROCESSOR) or is_weight_file(name)


def is_program_file(name: str) -> bool:
    """Whether a file name is one of an exported program."""
    return name in (*PROGRAMS.values(), *map(manual_of, PROGRAMS), ONNX_WEIGHTS)


def manual_of(kind: str) -> str:
    """The file beside a program of this kind that says how it is called."""
    return f"{PROGRAMS[kind]}.md"


def is_training_file(name: str) -> bool:
    """Whether a file name is one of a trainer's state."""
    return name in (TRAINER_STATE, TRAINING_STATE, DIGESTS)


def is_measured_file(name: str) -> bool:
    """Whether a file name, relative to the model's folder, is one of what was measured of its weights.

    The files of `FlaxTrainer.save_metrics` are not among them: nothing in them says which weights they are of.
    """
    return name in (RECIPE, RESULTS, CARD, EVAL_RESULTS, *PICTURES)
