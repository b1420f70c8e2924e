"""ViTClsConfig: every field has a rule that bites, every contradiction is named, every round trip is whole."""

import inspect
import json
import re

import numpy as np
import pytest
from conftest import TINY, pixels, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix import bounded
from transformers import AutoConfig

from modeling_vit_cls import ConfigError, FlaxViTClsForImageClassification, ViTClsConfig
from modeling_vit_cls.config_rules import FIELD_NAMES, RULES

pytestmark = pytest.mark.world

WRONG = {
    "hidden_size": [0, -64, "64", 64.0, None, True, 10**9],
    "num_hidden_layers": [0, -3, "2", 10**9, 2.0],
    "num_attention_heads": [0, -4, None, "4"],
    "intermediate_size": [0, -1, 1.5],
    "image_size": [0, -8, "224", None, (8,), (8, 8, 8), [8, 0], 10**6, {}],
    "patch_size": [0, -8, (4, 4), None, 10**9],
    "num_channels": [0, "3", None],
    "hidden_act": ["nope", None, 3, ["gelu"]],
    "layer_norm_eps": [0, -1, float("nan"), float("inf"), "1e-6", None, True],
    "qkv_bias": ["false", 0, None],
    "key_bias": ["false", 1],
    "hidden_dropout_prob": [1.5, -0.5, 1, float("nan"), "0.1", None],
    "attention_probs_dropout_prob": [1.5, -0.5, None],
    "drop_path_rate": [1.0, -0.1],
    "initializer_range": [-0.02, 0, float("inf"), 10**400],
    "readout": ["avg", None, 1],
    "use_cls_token": ["true", 1],
    "num_cls_tokens": [0, -1, 2.0, None, True, 10**9],
    "num_register_tokens": [-1, 1.0, None, 10**9],
    "use_distillation_token": [1, "no"],
    "position_embedding": ["absolute", None],
    "position_embedding_tokens": ["cls", None],
    "position_interpolation": ["nearest", None],
    "rope_theta": [0, -1, float("nan")],
    "layer_scale_init_value": [0, -1, float("inf"), "1e-5", True],
    "mlp": ["geglu", None],
    "patch_bias": [1, None],
    "patch_padding": [-1, 1.0, None, True, 10**9],
    "ignore_border": [1, None],
    "dynamic_image_size": [1, None, "true"],
    "use_distillation_head": [1, "no"],
    "projection_size": [0, -1, 1.5],
    "classifier_input": ["embedding", None],
    "pre_norm": [1, None],
    "norm_position": ["before", None],
    "representation_size": [0, -1, 1.5, "8"],
    "num_labels": [0, -1, "10", 5 * 10**7, 2.0],
}

CONTRADICTIONS = [
    ("hidden_size", {"hidden_size": 37}, "multiple of num_attention_heads=2"),
    ("image_size", {"image_size": 33}, "multiple of patch_size=4"),
    ("image_size", {"image_size": (8, 6)}, "multiple of patch_size=4"),
    ("image_size", {"patch_size": 64}, "one patch of patch_size=64"),
    ("image_size", {"image_size": 65536, "patch_size": 1}, "patches"),
    ("patch_padding", {"patch_padding": 2}, "less than half of patch_size=4"),
    ("readout", {"use_cls_token": False}, "use_cls_token=True"),
    ("readout", {"use_cls_token": False, "readout": "cls_mean"}, "use_cls_token=True"),
    ("num_cls_tokens", {"use_cls_token": False, "readout": "mean", "num_cls_tokens": 8}, "use_cls_token=True"),
    ("use_distillation_token", {"use_cls_token": False, "readout": "mean", "use_distillation_token": True}, "use_cls"),
    ("use_distillation_head", {"use_distillation_head": True}, "use_distillation_token=True"),
    ("norm_position", {"use_distillation_token": True, "norm_position": "after_readout"}, "before_readout"),
    ("representation_size", {"use_distillation_token": True, "representation_size": 8}, "distillation"),
    ("norm_position", {"norm_position": "after_readout", "readout": "cls_mean"}, "cls_mean"),
    ("classifier_input", {"classifier_input": "unit_embedding", "use_distillation_token": True}, "distillation"),
    ("norm_position", {"norm_position": "after_readout", "readout": "cls_concat"}, "cls_concat"),
    ("position_embedding", {"position_embedding": "sincos2d", "hidden_size": 18}, "multiple of 4"),
    ("position_embedding", {"position_embedding": "rope", "hidden_size": 12}, "multiple of 4"),
    ("position_embedding", {"position_embedding": "relative", "use_cls_token": False, "readout": "map"}, "one .CLS."),
    ("position_embedding", {"position_embedding": "relative", "num_register_tokens": 1}, "no registers"),
    ("position_embedding", {"position_embedding": "relative", "num_cls_tokens": 2}, "num_cls_tokens=1"),
    ("hidden_size", {"hidden_size": 65536, "num_attention_heads": 1024, "num_hidden_layers": 1024}, "parameters"),
    ("num_labels", {"id2label": {0: "a", 1: "b"}}, "2 entries"),
]


def test_every_field_has_a_rule_and_every_rule_a_field():
    signature = list(inspect.signature(ViTClsConfig.__init__).parameters)
    assert tuple(signature[1:-1]) == FIELD_NAMES
    assert set(RULES) == set(WRONG)


def test_every_field_has_a_line_in_the_docstring():
    lines = re.findall(r"^    ([a-z]\w+(?:, \w+)*): ", inspect.getdoc(ViTClsConfig), re.MULTILINE)
    documented = [name for line in lines for name in line.split(", ")]
    assert [name for name in documented if name in RULES] == list(RULES)


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in WRONG for value in WRONG[field]])
def test_wrong_value_names_field_value_and_rule(field, value):
    with bounded(), pytest.raises(ConfigError) as error:
        ViTClsConfig(**{**TINY, field: value})
    assert error.value.field == field
    assert str(error.value).startswith(f"{field}=")
    assert error.value.rule in str(error.value)


@pytest.mark.parametrize(("field", "overrides", "words"), CONTRADICTIONS)
def test_contradiction_is_named(field, overrides, words):
    with pytest.raises(ConfigError, match=words) as error:
        ViTClsConfig(**{**TINY, **overrides})
    assert error.value.field == field


def test_half_a_million_labels_are_the_limit_and_fast():
    with bounded(48):
        assert len(ViTClsConfig(num_labels=500_000).id2label) == 500_000
        with pytest.raises(ConfigError, match="num_labels"):
            ViTClsConfig(num_labels=500_001)


@pytest.mark.parametrize(
    "labels",
    [
        {"id2label": {0: "a", 2: "b"}},
        {"id2label": {0: "a", 1: 1}},
        {"id2label": ["a", "b"]},
        {"id2label": {}},
        {"label2id": {"a": "x"}},
        {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 1, "b": 0}},
    ],
)
def test_labels_that_do_not_fit_are_refused(labels):
    with pytest.raises(ConfigError, match="label"):
        ViTClsConfig(**labels)


def test_either_label_map_gives_the_other():
    forward, backward = ViTClsConfig(id2label={0: "cat", 1: "dog"}), ViTClsConfig(label2id={"cat": 0, "dog": 1})
    for config in (forward, backward):
        assert (config.id2label, config.label2id) == ({0: "cat", 1: "dog"}, {"cat": 0, "dog": 1})
        assert config.num_labels == 2


@pytest.mark.parametrize("name", ["hiddensize", "to_dict", "__class__", "from_pretrained"])
def test_unknown_keyword_is_an_error(name):
    with pytest.raises(ConfigError, match=name):
        ViTClsConfig(**{name: 1})


def test_unknown_keyword_gets_a_suggestion():
    with pytest.raises(ConfigError, match="did you mean 'num_attention_heads'"):
        ViTClsConfig(num_attention_head=3)
    with pytest.raises(ConfigError, match="did you mean 'vit_cls_base_patch16_224'"):
        ViTClsConfig.from_variant("vit_cls_bas_patch16_224")


FULL = [
    {},
    {
        "image_size": (8, 12),
        "readout": "cls_mean",
        "num_register_tokens": 2,
        "id2label": {i: f"k{i}" for i in range(5)},
    },
    {"use_cls_token": False, "readout": "map", "position_embedding_tokens": "patches", "representation_size": 8},
    {"mlp": "swiglu", "hidden_act": "silu", "layer_scale_init_value": 1e-5, "position_embedding": "rope"},
]


@pytest.mark.parametrize("overrides", FULL)
def test_round_trips_are_whole(overrides, tmp_path):
    config = tiny_config(**overrides)
    fields = {name: getattr(config, name) for name in (*FIELD_NAMES, "id2label", "label2id", "num_labels")}
    config.save_pretrained(tmp_path)
    again = [
        AutoConfig.from_pretrained(tmp_path),
        ViTClsConfig.from_pretrained(tmp_path),
        ViTClsConfig.from_dict(json.loads(config.to_json_string())),
        ViTClsConfig(**config.to_dict()),
        AutoConfig.for_model(**config.to_dict()),
    ]
    for other in again:
        assert isinstance(other, ViTClsConfig)
        assert {name: getattr(other, name) for name in fields} == fields
        assert other.to_json_string() == again[0].to_json_string()


def test_numbers_of_numpy_are_numbers():
    config = tiny_config(hidden_size=np.int64(32), layer_norm_eps=np.float32(1e-6), num_labels=np.int64(3))
    assert (config.hidden_size, type(config.hidden_size), config.num_labels) == (32, int, 3)
    names = ("a", "b", "b")  # label2id as of np.unique, with a name that two classes have and without
    for labels in (names, names[:2]):
        indices = dict(zip(labels, np.arange(3)))
        config = ViTClsConfig(id2label=dict(zip(np.arange(3), labels)), label2id=indices)
        assert ViTClsConfig.from_dict(json.loads(config.to_json_string())).label2id == indices


def test_overrides_on_load_are_checked_too(tmp_path):
    tiny_config().save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path, id2label={0: "q", 1: "r"})
    assert (config.num_labels, config.label2id) == (2, {"q": 0, "r": 1})
    with pytest.raises(ConfigError, match="num_labels=5: the label map has 2 entries"):
        ViTClsConfig.from_pretrained(tmp_path, num_labels=5, id2label={0: "q", 1: "r"})
    assert ViTClsConfig.from_pretrained(tmp_path, num_labels=3).num_labels == 3
    assert ViTClsConfig.from_pretrained(tmp_path, readout="mean").readout == "mean"
    assert AutoConfig.from_pretrained(tmp_path, image_size=16).image_hw == (16, 16)
    with pytest.raises(ConfigError, match="hidden_size=37"):
        ViTClsConfig.from_pretrained(tmp_path, hidden_size=37)
    with pytest.raises(ConfigError, match="did you mean 'readout'"):
        ViTClsConfig.from_pretrained(tmp_path, readuot="mean")
    config, unused = ViTClsConfig.from_pretrained(tmp_path, image_size=16, foo=1, return_unused_kwargs=True)
    assert (config.image_size, unused) == (16, {"foo": 1})


def test_a_field_set_later_is_checked_when_a_model_is_built():
    config = tiny_config()
    config.hidden_size = 37
    with pytest.raises(ConfigError, match="hidden_size=37"):
        FlaxViTClsForImageClassification(config)


_JUNK = st.one_of(st.integers(-2, 70), st.floats(), st.text(max_size=3), st.none(), st.booleans(), st.just(10**12))


@settings(max_examples=300, deadline=1000, derandomize=True)
@given(st.dictionaries(st.one_of(st.sampled_from(sorted(RULES)), st.text(max_size=8)), _JUNK, max_size=3))
def test_any_keywords_give_a_config_or_a_config_error(overrides):
    try:
        config = tiny_config(**overrides)
    except ConfigError as error:
        assert error.rule  # noqa: PT017 (either outcome is right, and this is what one must look like)
    else:
        config.check()


def test_every_accepted_choice_gives_finite_logits():
    choices = [
        {"readout": r, "position_embedding": p, "mlp": m, "norm_position": n}
        for r, p, m, n in [
            ("cls", "learned", "swiglu", "after_readout"),
            ("mean", "sincos2d", "mlp", "after_readout"),
            ("cls_mean", "rope", "swiglu", "before_readout"),
            ("map", "none", "mlp", "before_readout"),
            ("cls", "relative", "mlp", "none"),
        ]
    ]
    for choice in choices:
        logits = FlaxViTClsForImageClassification(tiny_config(**choice, layer_norm_eps=1e-12))(pixels()).logits
        assert abs(logits).max() < 1e6
