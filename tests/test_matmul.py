"""Products in the compute type, and what is left out when only the readout is asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import pixels, tiny_config, tiny_model

from modeling_vit_cls import FlaxViTClsForImageClassification
from modeling_vit_cls.nn import matmul as products
from modeling_vit_cls.nn.matmul import patch_product, product
from modeling_vit_cls.nn.scan import stack_params

SPECS = {"bty,yz->btz": ((2, 5, 8), (8, 6)), "bhqd,bhkd->bhqk": ((2, 3, 4, 8), (2, 3, 5, 8))}
SPECS |= {"bhqk,bhkd->bhqd": ((2, 3, 4, 5), (2, 3, 5, 8)), "bhwpqc,pqcd->bhwd": ((2, 3, 3, 2, 2, 3), (2, 2, 3, 8))}


def draw(*shapes):
    generator = np.random.default_rng(0)
    return [jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("spec", SPECS)
def test_a_product_and_its_gradient_are_those_of_float32(spec, dtype):
    a, b = (leaf.astype(dtype) for leaf in draw(*SPECS[spec]))

    def squares(a, b):
        return (product(spec, a, b, jnp.float32) ** 2).sum()

    exact = [leaf.astype(jnp.float32) for leaf in (a, b)]
    expected = jnp.einsum(spec, *exact)
    np.testing.assert_allclose(product(spec, a, b, jnp.float32), expected, rtol=1e-5, atol=1e-5)
    slopes = jax.jit(jax.grad(squares, (0, 1)))(a, b)
    rights = jax.grad(lambda a, b: (jnp.einsum(spec, a, b) ** 2).sum(), (0, 1))(*exact)
    for slope, right in zip(slopes, rights):
        assert slope.dtype == dtype
        np.testing.assert_allclose(slope, right, rtol=0.02, atol=1e-4 if dtype == "float32" else 0.2)


@pytest.mark.parametrize("instructions", [True, False])
def test_gradients_in_half_precision_multiply_half_precision(instructions, monkeypatch):
    monkeypatch.setattr(products, "_multiplies_bfloat16", lambda: instructions)
    a, b = (leaf.astype(jnp.bfloat16) for leaf in draw((64, 32), (32, 16)))
    for dtype in (None, jnp.float32):
        slopes = jax.jit(jax.grad(lambda a, b: product("xy,yz->xz", a, b, dtype).sum(), (0, 1)))  # noqa: B023
        lines = [line for line in slopes.lower(a, b).as_text().splitlines() if "dot_general" in line]
        assert len(lines) == 2
        for line in lines:
            assert line.split("->")[0].count("xbf16>") == 2
            assert line.endswith("xf32>" if instructions or dtype else "xbf16>")


@pytest.mark.parametrize(
    ("cpuinfo", "fast"),
    [
        ("vendor_id : GenuineIntel\nflags : avx512f avx512_bf16 amx_tile amx_bf16\n", True),
        ("vendor_id : GenuineIntel\nflags : avx512f avx512_bf16\n", False),
        ("vendor_id : AuthenticAMD\nflags : avx512f avx512_bf16\n", True),
        ("vendor_id : AuthenticAMD\nflags : avx2\n", False),
        ("CPU implementer : 0x41\nFeatures : asimd bf16\n", True),
    ],
)
def test_the_type_of_a_product_in_bfloat16_is_chosen_by_the_processor(cpuinfo, fast, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(products, "_CPUINFO", tmp_path / "cpuinfo")
    products._multiplies_bfloat16.cache_clear()
    a = jnp.ones((2, 2), jnp.bfloat16)
    assert product("ab,bc->ac", a, a).dtype == (jnp.float32 if fast else jnp.bfloat16)
    products._multiplies_bfloat16.cache_clear()


@pytest.mark.parametrize("size", [(8, 12), (9, 15)])
def test_patches_are_a_convolution(size):
    images, kernel = draw((2, *size, 3), (4, 4, 3, 10))
    strided = jax.lax.conv_general_dilated(images, kernel, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(patch_product(images, kernel), strided, rtol=1e-5, atol=1e-5)


READOUTS = [{}, {"readout": "mean"}, {"readout": "cls_mean"}, {"readout": "map"}, {"norm_position": "after_readout"}]
READOUTS += [{"position_embedding": "relative"}, {"readout": "cls_concat", "num_cls_tokens": 2}]
READOUTS += [{"use_distillation_token": True}, {"num_register_tokens": 2, "position_embedding": "rope"}]
READOUTS += [{"image_size": 4, "position_embedding": "rope"}, {"num_hidden_layers": 1}]


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("overrides", READOUTS, ids=str)
def test_the_readout_alone_is_that_of_the_whole(overrides, scan):
    model = tiny_model(**overrides)
    images = pixels(2, model.config.image_hw).transpose(0, 2, 3, 1)

    def squares(params, readout_only):
        scans = readout_only and scan
        module, arranged = model.module.clone(scan=scans), stack_params(params) if scans else params
        logits = module.apply({"params": arranged}, images, True, readout_only).logits
        return (logits**2).sum(), logits

    step = jax.jit(jax.grad(squares, has_aux=True), static_argnums=1)
    (slopes, logits), (expected_slopes, expected) = (step(model.params, only) for only in (True, False))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(logits, model(pixels(2, model.config.image_hw)).logits, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), slopes, expected_slopes)


def test_the_readout_alone_costs_less():
    model = FlaxViTClsForImageClassification(tiny_config(image_size=32))
    images = pixels(2, (32, 32))

    def operations(**asked) -> float:
        return jax.jit(lambda x: model(x, **asked).logits).lower(images).compile().cost_analysis()["flops"]

    assert operations() < 0.8 * operations(output_hidden_states=True)
