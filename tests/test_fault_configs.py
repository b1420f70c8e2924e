"""Wrong configs: a ConfigError that names the field, at once; what is accepted is a model that gives finite numbers."""

import json
import random
import resource

import numpy as np
import pytest
from conftest import TINY, pixels
from matrix import SOAK

from modeling_vit_cls import CheckpointError, ConfigError, FlaxViTClsForImageClassification, ViTClsConfig
from modeling_vit_cls.config_rules import FIELD_NAMES

FIELDS = [*FIELD_NAMES, "num_labels", "id2label"]
CHOICES = [
    "cls",
    "mean",
    "cls_mean",
    "cls_concat",
    "map",
    "learned",
    "relative",
    "rope",
    "sincos2d",
    "none",
    "gelu",
    "relu",
    "silu",
    "swiglu",
    "mlp",
]
NUMBERS = [0, 1, 2, 3, 4, 8, 16, 32, -1, -16, 10**9, 2**63, 10**400, 0.0, 0.1, 0.5, 1.0, 1.5, -0.5, 1e-6, 1e300]
ODD = [
    float("nan"),
    float("inf"),
    True,
    False,
    None,
    "",
    "64",
    "x" * 9999,
    "\0",
    b"8",
    [],
    [8],
    [8, 8],
    [8, 4],
    [8, 8, 8],
]
ODD += [
    {},
    {"0": "a"},
    {0: "a", 1: "b"},
    object,
    [[]],
    {"height": 8, "width": 8},
    (8, 8),
    1j,
    np.float32(2),
    np.int64(2),
]
UNKNOWN = ["to_dict", "hiddensize", "check", "__class__", "from_dict", "hidden_sizes", "save_pretrained", "grid", ""]
MEMORY = 200_000_000


@pytest.fixture(autouse=True)
def little_memory(request):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    if "finite" not in request.node.name:  # compiling takes what it takes
        assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < MEMORY


def generated(case: int) -> dict:
    """A small config with one to three fields changed for anything, or with a key that is none of ours."""
    chance = random.Random(case)
    fields = dict(TINY)
    for _ in range(chance.randrange(1, 4)):
        name = chance.choice(FIELDS) if chance.random() < 0.95 else chance.choice(UNKNOWN)
        fields[name] = chance.choice(chance.choice([CHOICES, NUMBERS, NUMBERS, ODD]))
    return fields


@pytest.mark.world
def test_generated_configs(tally):
    for case in range(3000 * SOAK):
        fields = generated(case)
        made = tally.attempt(lambda fields=fields: ViTClsConfig.from_dict(fields))
        if isinstance(made, Exception):
            assert isinstance(made, ConfigError)
            assert made.field in str(made)
            assert len(str(made)) < 1000
            tally.note("refused by field")
        else:
            assert ViTClsConfig.from_dict(json.loads(made.to_json_string())).to_dict() == made.to_dict()
            tally.note("accepted")
    assert min(tally.outcomes.values()) > 50 * SOAK


def test_what_is_accepted_gives_finite_logits(tally):
    case, seen = 10**6, set()
    while len(seen) < 10 * SOAK:
        case += 1
        try:
            config = ViTClsConfig.from_dict(generated(case))
        except ConfigError:
            continue
        text = config.to_json_string()
        small = config.num_hidden_layers <= 4 and config.hidden_size <= 64 and config.num_classes <= 100
        if text in seen or not small or max(config.image_hw) > 32 or (config.intermediate_size or 0) > 256:
            continue
        seen.add(text)
        images = pixels(1, config.image_hw, config.num_channels)
        assert np.isfinite(FlaxViTClsForImageClassification(config)(images).logits).all(), text
        tally.note("finite")


@pytest.mark.world
def test_mutated_json(model, tmp_path, tally):
    model.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    whole = file.read_bytes()
    contents = [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"7",
        b"\xef\xbb\xbf" + whole,
        b"[" * 100_000,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
    ]
    contents += [
        whole[:-2] + b', "hidden_size": ' + b"9" * 5000 + b"}",
        whole[:-2] + b', "to_dict": 1}',
        b"\xff\xfe" + whole,
    ]
    for case in range(500 * SOAK):
        chance, data = random.Random(case), bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.choice(b'0123456789-e."{}[]:, \n\x00\xffatn')
        contents.append(bytes(data))
    for content in contents:
        file.write_bytes(content)
        made = tally.attempt(lambda: FlaxViTClsForImageClassification.from_pretrained(tmp_path))
        if isinstance(made, Exception):
            assert isinstance(made, CheckpointError | ConfigError)
            tally.note("refused")
        else:
            tally.note("loaded")
