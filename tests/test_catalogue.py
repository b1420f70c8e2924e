"""The catalogue: its rows are whole, and each architecture gives a config with as many parameters as its row says."""

import dataclasses
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from modeling_vit_cls import ViTClsConfig, list_pretrained
from modeling_vit_cls.catalogue import TABLE, CatalogueRow
from modeling_vit_cls.config_rules import FIELD_NAMES
from modeling_vit_cls.families import FAMILIES, family_of
from modeling_vit_cls.families.open import parameter_shapes
from modeling_vit_cls.files.tensor import Tensor
from modeling_vit_cls.nn.vit import FlaxViTClsModule

KEPT_BY_HAND = {
    row["hub_id"]: {name: group.get(name, {}) | row.get(name, {}) for name in ("config", "built")}
    for group in yaml.safe_load((Path(__file__).parent / "catalogue" / "others.yaml").read_text(encoding="utf-8"))
    for row in group["checkpoints"]
}
WITHOUT_PARAMETERS = {"hidden_act", "layer_norm_eps", "initializer_range", "position_interpolation", "rope_theta"}
WITHOUT_PARAMETERS |= {"hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "use_distillation_head"}
WITHOUT_PARAMETERS |= {"dynamic_image_size", "ignore_border", "patch_padding"}
SIZES = ("patch_size", "hidden_size", "num_hidden_layers", "intermediate_size")


def config_json(row: CatalogueRow) -> dict[str, Any]:
    """What the config.json of a row's repository tells of its model, and the arguments that its card tells instead."""
    if row.hub_id not in KEPT_BY_HAND:
        pretrained = {"input_size": [3, *row.image_size]}
        return {"architecture": row.variant, "num_classes": row.num_labels, "pretrained_cfg": pretrained}
    fields, built = (KEPT_BY_HAND[row.hub_id][name] for name in ("config", "built"))
    if "architecture" not in fields:
        return fields
    return fields | {"model_args": {name: value for name, value in built.items() if not name.endswith("_layer")}}


def tensors_of(row: CatalogueRow) -> dict[str, Tensor]:
    """The tensors that show a family the sizes of a row and the parts of its model, by our names."""
    built = KEPT_BY_HAND.get(row.hub_id, {}).get("built", {})
    width, hidden = row.hidden_size, row.intermediate_size
    kernel = (row.patch_size, row.patch_size, 3, width)
    shapes: dict[str, tuple[int, ...]] = {"embeddings.patch_embedding.projection.kernel": kernel}
    for block in range(row.num_hidden_layers):
        shapes[f"encoder.layer_{block:02d}.mlp.fc1.kernel"] = (width, hidden)
    if built.get("mlp_layer") == "SwiGLUPacked":
        shapes["encoder.layer_00.mlp.gate.kernel"] = (width, hidden)
    if config_json(row).get("architectures") == ["ViTModel"] and built.get("add_pooling_layer", True):
        shapes["representation.kernel"] = (width, width)
    if row.num_labels:
        shapes["classifier.kernel"] = (width, row.num_labels)
    return {name: Tensor(name, Path("f"), shape, "float32", lambda: None, shape) for name, shape in shapes.items()}


def number_of_parameters(config: ViTClsConfig, num_labels: int) -> int:
    """Counted on a backbone of one block and one head for one patch of one pixel, so that few models are traced.

    The table of relative positions alone depends on the grid and the number of heads.
    """
    small = {name: getattr(config, name) for name in FIELD_NAMES if name not in WITHOUT_PARAMETERS}
    small |= {"num_hidden_layers": 1, "patch_size": 1, "readout": "map" if config.readout == "map" else "mean"}
    if config.position_embedding == "relative":
        small["image_size"] = config.grid
    else:
        small |= {"image_size": 1, "num_attention_heads": 1}
    if config.norm_position == "after_readout":
        small["norm_position"] = "before_readout"
    if config.layer_scale_init_value is not None:
        small["layer_scale_init_value"] = 1.0
    count = 0
    for name, size in leaf_sizes(json.dumps(small, sort_keys=True)):
        if "layer_00" in name:
            size *= config.num_hidden_layers
        elif name.endswith("patch_embedding.projection.kernel"):
            size *= config.patch_size**2
        elif name.endswith("position_embedding.embedding"):
            size += (math.prod(config.grid) - 1) * config.hidden_size
        count += size
    heads = 2 if config.has_distillation_head else 1
    return count + heads * num_labels * (config.readout_size + 1)


@cache
def leaf_sizes(fields: str) -> list[tuple[str, int]]:
    shapes = parameter_shapes(FlaxViTClsModule, ViTClsConfig.from_dict(json.loads(fields)))
    return [(name, leaf.size) for name, leaf in shapes.items()]


def test_each_architecture_gives_a_config_with_the_parameters_of_its_row():
    different = {}
    for row in list_pretrained():
        fields = config_json(row)
        family = family_of(fields, row.hub_id)
        assert family is not None
        assert family.name == row.family
        ours = family.fields(fields, tensors_of(row))
        config = ViTClsConfig.from_dict({"ignore_border": True, **ours, "num_labels": 2, "id2label": None})
        sizes = (config.image_hw, *(getattr(config, name) for name in SIZES))
        counted = (number_of_parameters(config, row.num_labels), *sizes)
        listed = (row.parameters, row.image_size, *(getattr(row, name) for name in SIZES))
        if counted != listed:
            different[row.hub_id] = (counted, listed)
    assert different == {}


def test_rows_are_whole():
    rows = list_pretrained()
    assert len(rows) >= 250
    ids = [row.hub_id for row in rows]
    assert len({name.lower() for name in ids}) == len(ids)
    assert ids == sorted(ids, key=str.lower)
    families = {family.name for family in FAMILIES}
    for row in rows:
        assert row.family in families
        assert row.hub_id.count("/") == 1
        assert row.variant
        assert row.source
        assert min(row.image_size) >= row.patch_size
        assert (row.top1 is None) == (row.top1_source == "")
        assert row.top1 is None or (row.num_labels == 1000 and 70 < row.top1 < 91), row.hub_id
        assert set(row.keywords) <= {*ViTClsConfig().to_dict()}


def test_rows_are_found_by_a_wildcard_and_cannot_be_changed():
    (row,) = list_pretrained("timm/vit_large_patch14_clip_336.openai_ft_in12k_in1k")
    assert (row.family, row.variant, row.num_labels) == ("timm ViT", "vit_large_patch14_clip_336", 1000)
    assert (row.parameters, row.image_size, row.top1) == (304_532_456, (336, 336), 88.264)
    assert (row.data, row.licence) == ("WIT-400M, then ImageNet-12k, then ImageNet-1k", "apache-2.0")
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.parameters = 0
    assert [row.hub_id for row in list_pretrained("facebook/dinov2-*")] == [
        row.hub_id for row in list_pretrained() if row.hub_id.startswith("facebook/dinov2-")
    ]
    assert list_pretrained("dinov2") == []


def test_arguments_that_a_card_has_instead_of_config_json():
    (uni,) = list_pretrained("MahmoodLab/UNI2-h")
    assert uni.keywords == {"num_attention_heads": 24}
    (virchow,) = list_pretrained("paige-ai/Virchow")
    assert virchow.keywords == {"readout": "cls_mean"}


def test_the_table_is_plain_csv():
    text = TABLE.read_text(encoding="utf-8")
    assert text.isascii()
    assert text.splitlines()[0].split(",") == [field.name for field in dataclasses.fields(CatalogueRow)]
