"""Checkpoints that are known by name and not read: adapters, OpenCLIP's files, quantised weights, other families."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, shorten
from ..files.json_file import read_json

ADAPTER, OPEN_CLIP = "adapter_config.json", "open_clip_config.json"
# What their model_type is called where people know it by name. The first ones have blocks that are ours.
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
    """Raise CheckpointError for a folder, or a file in it, that is no whole model of a library that is read here.

    `has_weights` is whether transformers' weights lie there too: then these are the model.
    """
    folder = path if path.is_dir() else path.parent
    if path.name.startswith("open_clip_") or (not has_weights and (folder / OPEN_CLIP).is_file()):
        remedy = "give the same model in transformers' or timm's layout, as most are on the Hub"
        raise CheckpointError(f"{path}: is a checkpoint of OpenCLIP, whose layout is not read; {remedy}")
    if path.name.startswith("adapter_model") or (not has_weights and (folder / ADAPTER).is_file()):
        said = read_json(folder / ADAPTER)
        kind, base = said.get("peft_type"), said.get("base_model_name_or_path")
        what = f"a {kind} adapter of PEFT" if isinstance(kind, str) else "an adapter of PEFT"
        of = f" for {shorten(base, 200)[1:-1]}" if isinstance(base, str) else ""
        remedy = "merge it with PEFT first: PeftModel.from_pretrained(...).merge_and_unload().save_pretrained(...)"
        raise CheckpointError(f"{path}: is {what}{of}, not a whole model; {remedy}")


def refuse_unread_config(fields: Mapping[str, Any], file: object) -> None:
    """Raise CheckpointError for a config.json of quantised weights, or of a family that is known and not read."""
    if fields.get("quantization_config") is not None:
        remedy = "give the checkpoint that they were made of; dtype='bfloat16' computes in half precision"
        raise CheckpointError(f"{file}: quantization_config: quantised weights are not read; {remedy}")
    kind, name = fields.get("model_type"), fields.get("architecture")
    if kind == "timm_wrapper":
        remedy = f"give timm's own checkpoint, in whose config.json there is architecture={shorten(name)} alone"
        raise CheckpointError(f"{file}: model_type='timm_wrapper' (timm inside transformers) is not read; {remedy}")
    if isinstance(kind, str) and kind in FAMILIES_NOT_READ:
        raise CheckpointError(f"{file}: model_type={kind!r} is {FAMILIES_NOT_READ[kind]}, a family that is not read")
