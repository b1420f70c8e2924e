"""Known kinds of checkpoints that are not supported: adapters, OpenCLIP's files, quantised weights, other families."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, shorten
from ..files.json_file import read_json

ADAPTER, OPEN_CLIP = "adapter_config.json", "open_clip_config.json"
# {model_type: the name that people know}. The first ones have the same blocks as our model.
FAMILIES_NOT_READ = {
    "vit_mae": "ViT-MAE",
    "vit_msn": "ViT-MSN",
    "ijepa": "I-JEPA",
    "metaclip_2": "MetaCLIP 2",
    "tipsv2": "TIPSv2",
    "tipsv2_vision_model": "TIPSv2",
    "vitpose_backbone": "ViTPose",
    "radio": "C-RADIO",
    "pixio": "Pixio",
    "beit": "BEiT",
    "data2vec-vision": "Data2Vec",
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
    """Raise CheckpointError for a folder, or a file in it, of OpenCLIP or with an adapter of PEFT.

    `has_weights` is whether the folder also has weights of transformers: then these are the model.
    """
    folder = path if path.is_dir() else path.parent
    if path.name.startswith("open_clip_") or (not has_weights and (folder / OPEN_CLIP).is_file()):
        remedy = "most are on the Hub in the layout of transformers or timm too: give one of these"
        raise CheckpointError(f"{path}: is a checkpoint in OpenCLIP's layout, which is not supported; {remedy}")
    if path.name.startswith("adapter_model") or (not has_weights and (folder / ADAPTER).is_file()):
        fields = read_json(folder / ADAPTER)
        kind, base = fields.get("peft_type"), fields.get("base_model_name_or_path")
        what = f"a {kind} adapter of PEFT" if isinstance(kind, str) else "an adapter of PEFT"
        of = f" for {shorten(base, 200)[1:-1]}" if isinstance(base, str) else ""
        remedy = "merge it with PEFT first: PeftModel.from_pretrained(...).merge_and_unload().save_pretrained(...)"
        raise CheckpointError(f"{path}: is {what}{of}, not a whole model; {remedy}")


def refuse_unread_config(fields: Mapping[str, Any], file: object) -> None:
    """Raise CheckpointError for a config.json of quantised weights, or of a family in `FAMILIES_NOT_READ`."""
    if fields.get("quantization_config") is not None:
        remedy = "give the original checkpoint; dtype='bfloat16' computes in half precision"
        raise CheckpointError(f"{file}: quantization_config: quantised weights are not supported; {remedy}")
    kind = fields.get("model_type")
    if isinstance(kind, str) and kind in FAMILIES_NOT_READ:
        problem = f"is {FAMILIES_NOT_READ[kind]}, a family that is not supported"
        raise CheckpointError(f"{file}: model_type={kind!r} {problem}")
