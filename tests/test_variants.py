"""The table of architectures: sizes as published, found by wildcard, counted without allocating."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modeling_vit_cls import FlaxViTClsForImageClassification, ViTClsConfig, list_variants
from modeling_vit_cls.config_rules import FIELD_NAMES, estimate_parameters
from modeling_vit_cls.nn.flops import gflops_per_image
from modeling_vit_cls.nn.vit import FlaxViTClsForImageClassificationModule
from modeling_vit_cls.variants import VARIANTS

# Counted by the sources themselves: Steiner et al. 2022, table 2; torchvision's vit_b_16, vit_l_16, vit_h_14.
PUBLISHED = {
    "vit_cls_tiny_patch16_224": 5_717_416,
    "vit_cls_small_patch16_224": 22_050_664,
    "vit_cls_base_patch16_224": 86_567_656,
    "vit_cls_base_patch32_224": 88_224_232,
    "vit_cls_large_patch16_224": 304_326_632,
    "vit_cls_huge_patch14_224": 632_045_800,
}


@pytest.mark.parametrize("name", list_variants())
def test_parameter_count_is_the_tables(name):
    config = ViTClsConfig.from_variant(name, num_labels=1000)
    images = jax.ShapeDtypeStruct((1, *config.image_hw, 3), jnp.float32)
    tree = jax.eval_shape(FlaxViTClsForImageClassificationModule(config).init, jax.random.key(0), images)
    counted = sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert counted == VARIANTS[name].parameters == PUBLISHED.get(name, counted)
    assert FlaxViTClsForImageClassification(config, _do_init=False).num_parameters() == counted
    assert VARIANTS[name].source
    fields = {field: getattr(config, field) for field in (*FIELD_NAMES, "num_labels")}
    assert abs(estimate_parameters(fields) / counted - 1) < 0.01


def test_wildcards_and_order():
    assert list_variants() == list(VARIANTS)
    assert list_variants("*_base_*_384") == ["vit_cls_base_patch32_384", "vit_cls_base_patch16_384"]
    assert list_variants("vit_cls_huge_patch14_???") == [name for name in VARIANTS if "huge_patch14" in name]
    assert list_variants("resnet*") == []


def test_from_variant_takes_overrides():
    config = ViTClsConfig.from_variant("vit_cls_tiny_patch16_224", readout="mean", image_size=32, patch_size=8)
    assert (config.hidden_size, config.num_attention_heads, config.readout) == (192, 3, "mean")
    assert config.grid == (4, 4)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"readout": "map"},
        {"mlp": "swiglu", "representation_size": 96},
        {"use_distillation_token": True, "num_labels": 500_000},  # so many that each head counts
    ],
)
def test_gflops_are_those_that_xla_counts(overrides):
    fields = {"num_hidden_layers": 2, "num_labels": 1000, **overrides}
    config = ViTClsConfig.from_variant("vit_cls_tiny_patch16_224", **fields)
    module = FlaxViTClsForImageClassificationModule(config)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    cost = jax.jit(lambda v, x: module.apply(v, x).logits).lower(variables, images).cost_analysis()
    np.testing.assert_allclose(gflops_per_image(config), cost["flops"] / 1e9, rtol=0.05)


def test_published_gflops():
    assert gflops_per_image(ViTClsConfig.from_variant("vit_cls_base_patch16_224", num_labels=1000)) == pytest.approx(
        35.2, rel=0.01
    )
