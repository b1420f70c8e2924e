"""Our model with FlaxViT's weights gives FlaxViT's numbers (transformers 4.57, the last that has it)."""

import jax
import numpy as np
import pytest
import transformers
from conftest import assert_same, pixels, spread
from flax.serialization import to_bytes
from flax.traverse_util import flatten_dict, unflatten_dict

from modeling_vit_cls import FlaxViTClsForImageClassification, ViTClsConfig

pytestmark = pytest.mark.world

if not hasattr(transformers, "FlaxViTForImageClassification"):
    pytest.skip("transformers 5 has no FlaxViT to compare with", allow_module_level=True)

NAMES = [
    ("vit.embeddings.cls_token", "vit_cls.embeddings.cls_token"),
    ("vit.embeddings.position_embeddings", "vit_cls.embeddings.position_embedding.embedding"),
    ("vit.embeddings.patch_embeddings.", "vit_cls.embeddings.patch_embedding."),
    ("attention.attention.", "attention."),
    ("attention.output.dense.", "attention.out."),
    ("intermediate.dense.", "mlp.fc1."),
    ("output.dense.", "mlp.fc2."),
    ("layernorm_before.", "norm1."),
    ("layernorm_after.", "norm2."),
    ("vit.layernorm.", "vit_cls.norm."),
    ("vit.encoder.layer.", "vit_cls.encoder.layer_0"),
]


def ours_from(theirs: dict) -> dict:
    """FlaxViT's parameters under our names; a leading axis of one is theirs alone."""
    renamed = {}
    for name, leaf in flatten_dict(theirs, sep=".").items():
        for old, new in NAMES:
            name = name.replace(old, new)
        renamed[name] = leaf[0] if leaf.ndim == 3 else leaf
    return unflatten_dict(renamed, sep=".")


@pytest.mark.parametrize("act", ["gelu", "relu", "quick_gelu"])
@pytest.mark.parametrize("image_size", [32, 48])
def test_hidden_states_attentions_and_logits_are_flaxvits(act, image_size):
    fields = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 96}
    fields |= {"image_size": image_size, "patch_size": 8, "layer_norm_eps": 1e-12, "hidden_act": act, "num_labels": 7}
    theirs = transformers.FlaxViTForImageClassification(transformers.ViTConfig(**fields))
    theirs.params = spread(theirs.params, 0.1)
    ours = FlaxViTClsForImageClassification(ViTClsConfig(**fields), _do_init=False)
    params = ours_from(theirs.params)
    assert set(flatten_dict(params)) == ours.required_params

    images = pixels(3, (image_size, image_size))
    want = theirs(images, output_hidden_states=True, output_attentions=True)
    got = ours(images, params=params, output_hidden_states=True, output_attentions=True)
    np.testing.assert_allclose(got.logits, want.logits, atol=1e-5)
    for mine, other in zip(got.hidden_states + got.attentions, want.hidden_states + want.attentions, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


def test_gradients_are_flaxvits():
    fields = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    fields |= {"image_size": 8, "patch_size": 4, "layer_norm_eps": 1e-6, "num_labels": 5}
    theirs = transformers.FlaxViTForImageClassification(transformers.ViTConfig(**fields))
    theirs.params = spread(theirs.params, 0.1)
    ours = FlaxViTClsForImageClassification(ViTClsConfig(**fields), _do_init=False)

    def slope(model, params):
        return jax.grad(lambda p: (model(pixels(), params=p).logits ** 2).sum())(params)

    want, got = ours_from(slope(theirs, theirs.params)), slope(ours, ours_from(theirs.params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4), got, want)


def test_a_tree_of_flaxvit_goes_through_a_file(tmp_path):
    theirs = transformers.FlaxViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=8, patch_size=4
        )
    )
    theirs.config.to_json_file(tmp_path / "config.json")
    (tmp_path / "flax_model.msgpack").write_bytes(to_bytes(theirs.params))
    assert_same(FlaxViTClsForImageClassification.from_pretrained(tmp_path).params, ours_from(theirs.params))
