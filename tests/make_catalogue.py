"""Write modeling_vit_cls/catalogue.csv: `make catalogue`, which has PyTorch, timm and transformers.

A row of timm comes from timm's registry, any other one from tests/catalogue/others.yaml, which is kept by hand. The
source's own library builds each model without numbers; the strict check of a load then accepts its tensors, and the
parameters are counted. Rows of families that do not load are left out.
"""

import csv
import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import fields as fields_of
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import cpu_torchvision  # noqa: F401 (before timm, which imports torchvision)
import timm
import torch
import transformers
import yaml
from timm.models import get_pretrained_cfg

from modeling_vit_cls.catalogue import TABLE, CatalogueRow
from modeling_vit_cls.errors import CheckpointError
from modeling_vit_cls.families import family_of
from modeling_vit_cls.families.open import has_head, open_checkpoint, parameter_shapes
from modeling_vit_cls.families.strict import checked_tensors
from modeling_vit_cls.nn.vit import FlaxViTClsForImageClassificationModule, FlaxViTClsModule

SOURCES = Path(__file__).with_name("catalogue")
COLUMNS = [field.name for field in fields_of(CatalogueRow)]
TIMM = f"registry of timm {timm.__version__}"

# What the parts of timm's tags tell of the images; "" for parts that tell nothing of them.
IMAGES = {
    "in1k": "ImageNet-1k",
    "in12k": "ImageNet-12k",
    "in21k": "ImageNet-21k",
    "in22k": "ImageNet-22k",
    "lvd142m": "LVD-142M",
    "lvd1689m": "LVD-1689M",
    "sat493m": "SAT-493M",
    "webli": "WebLI",
    "openai": "WIT-400M",
    "laion2b": "LAION-2B",
    "laion400m": "LAION-400M",
    "yfcc15m": "YFCC-15M",
    "datacompxl": "DataComp-1B",
    "dfn2b": "DFN-2B",
    "dfn5b": "DFN-5B",
    "dfndr2b": "DFNDR-2B",
    "merged2b": "Merged-2B (LAION-2B and COYO-700M)",
    "m30m": "Merged-30M",
    "bamboo": "Bamboo",
    "metaclip_2pt5b": "MetaCLIP-2.5B",
    "metaclip_400m": "MetaCLIP-400M",
    "metaclip_altogether": "MetaCLIP, recaptioned by Altogether",
    "metaclip2_worldwide": "MetaCLIP 2, worldwide",
    "webli_i18n": "WebLI, multilingual",
    "dino": "ImageNet-1k",
    "mae": "ImageNet-1k",
    "clip_ft_in1k": "LAION-400M, then ImageNet-1k",  # EVA-CLIP (Fang et al. 2022), section 3.4
    "pali_pt": "WebLI, then PaliGemma's mixture",
    "pali_mix": "WebLI, then PaliGemma's mixture and tasks",
    "pali_ocrvqa": "WebLI, then PaliGemma's mixture and OCR-VQA",
    "pali_refcoco_seg": "WebLI, then PaliGemma's mixture and RefCOCO",
    "pali2_3b_pt": "WebLI, then PaliGemma 2's mixture",
    "pali2_10b_pt": "WebLI, then PaliGemma 2's mixture",
    "pali2_3b_docci": "WebLI, then PaliGemma 2's mixture and DOCCI",
    "pali2_10b_docci": "WebLI, then PaliGemma 2's mixture and DOCCI",
    "robbyant": "",
    "c_radio": "",
    "ogvl_2pt5": "",
    "ogvl_dist": "",
}
NOT_IMAGES = {
    "augreg",
    "augreg2",
    "orig",
    "sam",
    "fb",
    "sw",
    "sbb",
    "sbb2",
    "e32",
    "e200",
    "e250",
    "s39b",
    "r160",
    "v2",
}
NOT_IMAGES |= {"300ep", "600ep", "1000ep", "1200ep", "patch16", "patch30", "tinyclip", "eupe", "apple", "mclip2"}


def images_of(tag: str) -> str:
    """What a tag of timm tells of the training images: "augreg_in21k_ft_in1k" -> "ImageNet-21k, then ImageNet-1k".

    Training without and then with labels on the same images counts once. Raises KeyError for a tag with a part that has
    no row in the tables above.
    """
    if tag in IMAGES:
        return IMAGES[tag]
    stages = [IMAGES[part] for part in tag.replace("_ft_", "_").split("_") if part not in NOT_IMAGES]
    return ", then ".join(images for images, _ in groupby(stages))


def timm_rows() -> Iterator[dict[str, Any]]:
    """The rows of timm's registry whose architectures load, one for each repository of the Hub."""
    with (SOURCES / "timm_top1.csv").open(encoding="utf-8") as file:
        published = {(row["model"], int(row["image_size"])): row["top1"] for row in csv.DictReader(file)}
    known: set[str] = set()
    for name in sorted(timm.list_pretrained(), key=len):  # of names for one repository, the one without "quickgelu"
        architecture, _, tag = name.partition(".")
        pretrained = get_pretrained_cfg(name)
        if not pretrained.hf_hub_id or pretrained.hf_hub_id in known or not loads({"architecture": architecture}):
            continue
        known.add(pretrained.hf_hub_id)
        yield {
            "hub_id": pretrained.hf_hub_id,
            "variant": architecture,
            "data": images_of(tag),
            "licence": pretrained.license or "",
            "top1": published.get((name, pretrained.input_size[1]), ""),
            "top1_source": "timm, results-imagenet.csv" if (name, pretrained.input_size[1]) in published else "",
            "keywords": {},
            "source": TIMM,
        } | counted(timm_config(architecture, pretrained.num_classes, pretrained.input_size), {})


def timm_config(architecture: str, num_classes: int, input_size: tuple[int, int, int]) -> dict[str, Any]:
    """What a config.json of timm tells: the architecture, the head, and the size of images."""
    return {
        "architecture": architecture,
        "num_classes": num_classes,
        "pretrained_cfg": {"input_size": list(input_size), "num_classes": num_classes},
    }


def other_rows() -> Iterator[dict[str, Any]]:
    """The rows of others.yaml whose families load."""
    for group in yaml.safe_load((SOURCES / "others.yaml").read_text(encoding="utf-8")):
        for row in group["checkpoints"]:
            row = {"top1": "", "top1_source": "", "keywords": {}} | group | row
            config = group.get("config", {}) | row.get("config", {})
            if loads(config):
                row["top1_source"] = row["top1_source"] if row["top1"] else ""
                facts = {name: row[name] for name in COLUMNS if name in row}
                yield facts | counted(config, row["keywords"], group.get("built", {}) | row.get("built", {}))


def loads(config: dict[str, Any]) -> bool:
    """Whether a family of this package is that of a config.json."""
    try:
        return family_of(config, "config.json") is not None
    except CheckpointError:
        return False


def counted(config: dict[str, Any], keywords: dict[str, Any], built: dict[str, Any] | None = None) -> dict[str, Any]:
    """The columns that a model itself tells; `built` are arguments that it was built with beside its config.json."""
    return dict(_counted(json.dumps(config), json.dumps(keywords), json.dumps(built or {})))


@cache
def _counted(config: str, keywords: str, built: str) -> tuple[tuple[str, Any], ...]:
    shapes = {name: list(tensor.shape) for name, tensor in empty_model(json.loads(config), json.loads(built)).items()}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(config)
        write_sparse(Path(folder) / "model.safetensors", shapes)
        source = open_checkpoint(Path(folder), json.loads(keywords))
        checked_tensors(source, allow_missing=False)
    ours, head = source.config, has_head(source)
    module = FlaxViTClsForImageClassificationModule if head else FlaxViTClsModule
    return tuple(
        {
            "family": source.family.name,
            "parameters": sum(leaf.size for leaf in parameter_shapes(module, ours).values()),
            "image_size": "x".join(map(str, ours.image_hw)),
            "patch_size": ours.patch_size,
            "hidden_size": ours.hidden_size,
            "num_hidden_layers": ours.num_hidden_layers,
            "intermediate_size": ours.intermediate_size,
            "num_labels": ours.num_labels if head else 0,
        }.items()
    )


def empty_model(config: dict[str, Any], built: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors, without numbers, of the model that the library of a config.json builds for it."""
    with torch.device("meta"):
        if "architecture" in config:
            given = {"num_classes": config["num_classes"], **built}
            if "mlp_layer" in built:
                given["mlp_layer"] = getattr(timm.layers, built["mlp_layer"])
            return timm.create_model(config["architecture"], **given).state_dict()
        kind = getattr(transformers, config["architectures"][0])
        return kind(kind.config_class(**config), **built).state_dict()


def write_sparse(path: Path, shapes: dict[str, list[int]]) -> None:
    """A safetensors file of zeros that takes no space on the disk."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def main() -> None:
    """Write the table."""
    rows = sorted([*timm_rows(), *other_rows()], key=lambda row: row["hub_id"].lower())
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            given = " ".join(f"{name}={json.dumps(value)}" for name, value in row["keywords"].items())
            writer.writerow(row | {"keywords": given})
    print(f"{TABLE}: {len(rows)} rows")


if __name__ == "__main__":
    logging.disable()  # notes of loads
    main()
