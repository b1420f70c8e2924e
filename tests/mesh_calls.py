"""Calls of a model on meshes beside those on one device, in a process with 8 devices: python mesh_calls.py MESH..."""

import json
import sys

import jax
import numpy as np
from conftest import tiny_config, tiny_model

from modeling_vit_cls import ConfigError, FlaxViTClsForImageClassification, ImageClassificationPipeline
from modeling_vit_cls.nn.mesh import checked_mesh, local_mesh, make_mesh, mesh_of, place

random = np.random.default_rng(0)
IMAGES = [random.integers(0, 256, (8, 8, 3), np.uint8) for _ in range(11)]
PIXELS = random.normal(size=(8, 3, 8, 8)).astype(np.float32)


def gradient(model):
    """The gradient of a function of the logits."""
    return jax.grad(lambda params: (model(PIXELS, params=params).logits ** 2).sum())(model.params)


def scores(model):
    """The scores of all labels of each image, in the order of the labels."""
    rows = ImageClassificationPipeline(model, batch_size=4)(IMAGES)
    return [[each["score"] for each in sorted(row, key=lambda each: each["label"])] for row in rows]


CALLS = {
    "whole": lambda model: model(PIXELS, output_attentions=True, output_hidden_states=True),
    "three images, which do not divide": lambda model: model(PIXELS[:3]).logits,
    "compiled by the user": lambda model: jax.jit(lambda p, x: model(x, params=p).logits)(model.params, PIXELS),
    "gradient": gradient,
    "readout": lambda model: model.with_readout("cls_mean")(PIXELS).logits,
    "intermediates": lambda model: model.forward_intermediates(PIXELS, 1),
    "pipeline": scores,
}


def difference(a, b) -> float:
    """The largest difference of two trees of arrays, relative to the largest number of `a` if that is above 1."""
    pairs = [(np.asarray(x), np.asarray(y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]
    return max(float(abs(x - y).max()) for x, y in pairs) / max(1.0, *(float(abs(x).max()) for x, _ in pairs))


def differences(text: str) -> dict[str, float]:
    """The largest difference of each call on a mesh from that on one device."""
    one, model = tiny_model(), tiny_model()
    one.params = jax.device_put(one.params, jax.devices()[0])
    model.params = place(one.params, make_mesh(text))
    assert mesh_of(one.params) is None
    assert not model(PIXELS).logits.sharding.is_fully_replicated
    return {name: difference(call(one), call(model)) for name, call in CALLS.items()}


def refused(text: str, config) -> str:
    """The message about a mesh that does not fit a model."""
    try:
        checked_mesh(make_mesh(text), config)
    except ConfigError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    new = FlaxViTClsForImageClassification(tiny_config())
    assert mesh_of(new.params) == local_mesh() == make_mesh("data=8")
    assert refused("data=2,tensor=4", new.config) == "mesh='tensor=4': must divide num_attention_heads=2"
    print(json.dumps({text: differences(text) for text in sys.argv[1:]}))
