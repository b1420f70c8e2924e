"""The keywords of `ViTClsConfig(...)`: unknown ones are refused, label maps are completed."""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from transformers import PretrainedConfig

from .config_rules import MAX_LABELS, PROBLEM_TYPE, RULES, check_config
from .errors import ConfigError, did_you_mean
from .label_maps import class_index

# Keys that a version of transformers writes to config.json, or passes to a config class when it loads one.
_WRITTEN_BY_TRANSFORMERS = set(
    """
    architectures attn_implementation auto_map dtype id2label label2id model_type name_or_path num_labels
    output_attentions problem_type pruned_heads quantization_config tf_legacy_loss torch_dtype torchscript
    transformers_version use_bfloat16 _attn_implementation _attn_implementation_autoset
    _attn_implementation_internal _commit_hash _experts_implementation _from_auto _from_pipeline _name_or_path
    add_cross_attention bos_token_id cross_attention_hidden_size decoder_start_token_id eos_token_id finetuning_task
    is_decoder is_encoder_decoder pad_token_id prefix sep_token_id task_specific_params tie_encoder_decoder
    tie_word_embeddings tokenizer_class
    """.split()  # noqa: SIM905 (a list with one name per line would fill a screen)
)


def check_call(fields: Mapping[str, Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Check our fields and the keywords for transformers' base class; returns the keywords with complete label maps.

    Raises ConfigError for a wrong value and an unknown keyword. With no `fields` only the keywords are checked.
    """
    known = inherited_names()
    for name in kwargs:
        if name not in known:
            hint = did_you_mean(name, [*RULES, *sorted(known)])
            raise ConfigError(str(name), kwargs[name], f"is not a field of ViTClsConfig{hint}")
    if isinstance(kwargs.get("num_labels"), np.integer):
        kwargs = {**kwargs, "num_labels": int(kwargs["num_labels"])}
    if not PROBLEM_TYPE[0](kwargs.get("problem_type")):
        raise ConfigError("problem_type", kwargs["problem_type"], PROBLEM_TYPE[1])
    kwargs = _complete_labels(kwargs)
    if fields:
        labels = kwargs.get("id2label")
        check_config({**fields, "num_labels": len(labels) if labels is not None else kwargs.get("num_labels", 2)})
    return kwargs


def _complete_labels(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Complete id2label from label2id or the other way round. Raises ConfigError if they or num_labels disagree."""
    labels, inverse, count = kwargs.get("id2label"), kwargs.get("label2id"), kwargs.get("num_labels")
    if count is None:
        kwargs = {name: value for name, value in kwargs.items() if name != "num_labels"}
    elif not RULES["num_labels"][0](count):
        raise ConfigError("num_labels", count, RULES["num_labels"][1])
    id2label = _label_map("id2label", labels, flip=False)
    if id2label is not None and isinstance(inverse, dict) and len(inverse) < len(id2label):
        # two classes may have one name, as ImageNet's crane: label2id has one of them
        complete = set(inverse) == set(id2label.values())
        if not complete or any(id2label.get(class_index(i)) != text for text, i in inverse.items()):
            raise ConfigError("label2id", inverse, "must map each name in id2label to an index with this name")
        inverse, from_inverse = {text: class_index(i) for text, i in inverse.items()}, None
    else:
        from_inverse = _label_map("label2id", inverse, flip=True)
    if id2label is None and from_inverse is None:
        return kwargs
    if id2label is not None and from_inverse is not None and id2label != from_inverse:
        raise ConfigError("label2id", inverse, "must be the inverse of id2label")
    id2label = id2label or from_inverse or {}
    if count is not None and count != len(id2label):
        raise ConfigError("num_labels", count, f"the label map has {len(id2label)} entries: give one of the two")
    if inverse is None:
        inverse = {label: index for index, label in id2label.items()}
    label2id = {text: int(i) if isinstance(i, np.integer) else i for text, i in inverse.items()}
    return {**kwargs, "id2label": id2label, "label2id": label2id}


def _label_map(field: str, value: Any, flip: bool) -> dict[int, str] | None:
    """{index: label} from id2label, or from label2id with `flip`. Raises ConfigError if indices are not 0 .. K-1."""
    if value is None:
        return None
    rule = "must map the indices 0 .. K-1, each once, to text" if not flip else "must map each text to an index"
    if not isinstance(value, dict) or not 1 <= len(value) <= MAX_LABELS:
        raise ConfigError(field, value, rule)
    try:
        pairs = {int(i): label for i, label in (((v, k) for k, v in value.items()) if flip else value.items())}
    except (TypeError, ValueError) as error:
        raise ConfigError(field, value, rule) from error
    if sorted(pairs) != list(range(len(value))) or not all(isinstance(label, str) for label in pairs.values()):
        raise ConfigError(field, value, rule)
    return pairs


@cache
def inherited_names() -> frozenset[str]:
    """The keywords of transformers' config class in the installed version, and those in files of other versions."""
    plain = PretrainedConfig()
    signature = inspect.signature(PretrainedConfig.__init__).parameters
    names = {*signature, *vars(plain), *plain.to_dict()} - {"self", "kwargs"}
    if hasattr(plain, "_get_global_generation_defaults"):  # 4.57 has generation settings too
        names |= set(plain._get_global_generation_defaults())
    return frozenset(names | _WRITTEN_BY_TRANSFORMERS)
