"""The arguments that timm builds a model with: from its name, its config.json, and those that a user gives."""

from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError
from ..files.tensor import Tensor
from .sizes import PATCH_KERNEL, fields_shown, shape_of
from .timm_architectures import ARCHITECTURES, present_name
from .timm_processor import image_size

# Arguments of create_model that are used here, are visible in the shape of a tensor, or matter only in training.
_ACCEPTED = {"img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "num_heads", "mlp_ratio"}
_ACCEPTED |= {"qkv_bias", "init_values", "class_token", "no_embed_class", "reg_tokens", "num_reg_tokens", "pre_norm"}
_ACCEPTED |= {"fc_norm", "use_fc_norm", "final_norm", "global_pool", "pool_include_prefix", "act_layer", "swiglu_mlp"}
_ACCEPTED |= {"swiglu_align_to", "weight_init", "dynamic_img_size", "strict_img_size", "drop_rate", "pos_drop_rate"}
_ACCEPTED |= {"patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"}
_ACCEPTED |= {"fix_init", "head_init_scale"}
# The only values with which these arguments build our block; each architecture of the table has them. Any other
# argument, or other value, may change what the model computes, so it is refused.
_HARMLESS = {
    "qk_norm": False,
    "scale_attn_norm": False,
    "scale_mlp_norm": False,
    "scale_attn_inner": False,
    "scale_mlp": False,
    "attn_only_layer_scale": False,
    "use_post_norm": False,
    "proj_bias": True,
    "pos_embed": "learn",
    "dynamic_img_pad": False,
    "embed_norm_layer": None,
}
_EVA_NAMES = {"num_reg_tokens": "reg_tokens", "use_fc_norm": "fc_norm"}
# Our fields that describe a checkpoint, and what timm calls them.
_NAMES = {
    "num_hidden_layers": "depth",
    "num_attention_heads": "num_heads",
    "num_register_tokens": "reg_tokens",
    "layer_scale_init_value": "init_values",
    "use_cls_token": "class_token",
    "qkv_bias": "qkv_bias",
    "pre_norm": "pre_norm",
}


def arguments(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a config.json: those of its architecture, replaced by its `model_args`.

    Raises CheckpointError for an argument that may change what the model computes.
    """
    given: dict[str, Any] = dict(fields.get("model_args") or {})
    for argument in [name for name in given if name in _HARMLESS and given[name] == _HARMLESS[name]]:
        del given[argument]
    for argument in sorted(set(given) - _ACCEPTED):
        problem = f"{argument}={given[argument]!r} is not supported, because it may change what the model computes"
        raise CheckpointError(f"config.json: model_args: {problem}")
    built = ARCHITECTURES[present_name(fields["architecture"])]
    return built | {_EVA_NAMES.get(argument, argument): value for argument, value in given.items()}


def overridden(
    fields: Mapping[str, Any], overrides: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Any], list[str]]:
    """A config.json with the fields of ours in `overrides`, as if they were keywords of timm's create_model.

    Some checkpoints have their arguments in the text of a card alone. Once a user gives one, the name no longer
    describes the model, and the others are read from the tensors where they show them. Returns the fields, and a note
    for each argument that the tensors show and nobody gave.
    """
    ours = {name: value for name, value in overrides.items() if name in _NAMES}
    if not ours:
        return dict(fields), []
    built, notes, told = arguments(fields), [], {_NAMES[name]: value for name, value in ours.items()}
    for name, (value, _) in fields_shown(tensors).items():
        argument = _NAMES.get(name)
        if argument is None or argument in told or (built[argument] or None) == (value or None):
            continue
        if name == "layer_scale_init_value" and value and built[argument]:
            continue  # the tensors show only whether there is one
        told[argument] = value
        notes.append(f"{name}={value!r} by its tensors, where {fields['architecture']} has {built[argument]!r}")
    told |= _positions(fields, built | told, overrides.get("image_size"), tensors)
    return {**fields, "model_args": {**(fields.get("model_args") or {}), **told}}, notes


def _positions(
    fields: Mapping[str, Any], built: Mapping[str, Any], size: Any, tensors: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Which tokens a table of positions belongs to, by its length at the image size of config.json, or else at `size`.

    Empty if it fits neither: the strict check then names the table.
    """
    table, side = tensors.get("embeddings.position_embedding.embedding"), shape_of(tensors, PATCH_KERNEL, 4)[0]
    prefix = bool(built["class_token"]) + built["distilled"] + built["reg_tokens"]
    for candidate in ((fields.get("model_args") or {}).get("img_size"), size):
        height, width = image_size(fields, {"img_size": candidate})
        patches = (height // side) * (width // side)
        if table is not None and table.shape[0] in (patches, patches + prefix):
            return {"img_size": (height, width), "no_embed_class": table.shape[0] == patches}
    return {}
