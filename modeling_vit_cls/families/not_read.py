"""Known kinds of checkpoints that are not supported: adapters, other families."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, shorten
from ..files.json_file import read_json

ADAPTER = "adapter_config.json"
# {model_type: the name that people know}. The first ones have the same blocks as our model.
FAMILIES_NOT_READ = {
    "swin": "Swin Transformer",
    "swinv2": "Swin Transformer V2",
    "convnext": "ConvNeXT",
    "convnextv2": "ConvNeXT V2",
    "dinov3_convnext": "DINOv3's ConvNeXT",
    "vit_hybrid": "hybrid ViT",
    "dpt": "DPT",
    "yolos": "YOLOS",
    "sam": "SAM",
    "resnet": "ResNet",
    "mobilevit": "MobileViT",
    "levit": "LeViT",
    "cvt": "CvT",
    "pvt": "PVT",
    "hiera": "Hiera",
    "aimv2": "AIMv2",
}


def refuse_unread_folder(path: Path, has_weights: bool) -> None:
    """Raise CheckpointError for a folder, or a file in it, with an adapter of PEFT.

    `has_weights` is whether the folder also has weights of transformers: then these are the model.
    """
    folder = path if path.is_dir() else path.parent
    if path.name.startswith("adapter_model") or (not has_weights and (folder / ADAPTER).is_file()):
        fields = read_json(folder / ADAPTER)
        kind, base = fields.get("peft_type"), fields.get("base_model_name_or_path")
        what = f"a {kind} adapter of PEFT" if isinstance(kind, str) else "an adapter of PEFT"
        of = f" for {shorten(base, 200)[1:-1]}" if isinstance(base, str) else ""
        remedy = "load it with from_pretrained, which merges it with its base, and save the model"
        raise CheckpointError(f"{path}: is {what}{of}, not a whole model; {remedy}")


def refuse_unread_config(fields: Mapping[str, Any], file: object) -> None:
    """Raise CheckpointError for a config.json of a family in `FAMILIES_NOT_READ`."""
    kind = fields.get("model_type")
    if isinstance(kind, str) and kind in FAMILIES_NOT_READ:
        problem = f"is {FAMILIES_NOT_READ[kind]}, a family that is not supported"
        raise CheckpointError(f"{file}: model_type={kind!r} {problem}")
