"""Compiled functions belong to a config: what is equal to a model that was called compiles nothing new."""

import copy
import gc
import pickle
import weakref

import jax
import numpy as np
import pytest
from conftest import TINY, pixels, tiny_config, tiny_model
from transformers import AutoConfig

from modeling_vit_cls import (
    ConfigError,
    FlaxAutoModelForImageClassification,
    FlaxViTClsForImageClassification,
    FlaxViTClsModel,
    ViTClsConfig,
)
from modeling_vit_cls.nn.vit import FlaxViTClsForImageClassificationModule
from modeling_vit_cls.pretrained.check import read_config

LOWERED = []  # an event for each function that was compiled, or taken from a cache on disk
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: LOWERED.append(event) if "jaxpr_to_mlir" in event else None
)


@pytest.mark.parametrize("model_class", [FlaxViTClsModel, FlaxViTClsForImageClassification])
def test_models_of_one_config_share_their_programs(model_class, tmp_path):
    model = tiny_model(model_class, hidden_size=24)
    images = pixels()
    expected = jax.tree.leaves(model(images))
    model.with_readout("mean")(images)
    model.forward_intermediates(images, 1)
    model.save_pretrained(tmp_path)
    twin = model_class(tiny_config(hidden_size=24), params=model.params)
    copies = [twin, copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model_class.from_pretrained(tmp_path)]
    copies.append(model.with_readout("mean").with_readout("cls"))
    jax.block_until_ready([other.params for other in copies])
    LOWERED.clear()
    for other in copies:
        for leaf, value in zip(jax.tree.leaves(other(images)), expected, strict=True):
            np.testing.assert_array_equal(leaf, value)
        other.with_readout("mean")(images)
        other.forward_intermediates(images, 1)
    assert not LOWERED


def test_what_computes_otherwise_has_a_program_of_its_own():
    images, model = pixels(), tiny_model(hidden_size=40)
    logits = np.asarray(model(images).logits)
    for change in ({"hidden_act": "relu"}, {"layer_norm_eps": 0.1}, {"readout": "mean"}):
        LOWERED.clear()
        other = FlaxViTClsForImageClassification(tiny_config(hidden_size=40, **change), params=model.params)
        assert not np.array_equal(other(images).logits, logits)
        assert LOWERED
    half = FlaxViTClsForImageClassification(tiny_config(hidden_size=40), dtype="bfloat16", params=model.params)
    assert not np.array_equal(half(images).logits, logits)


def test_a_compiled_function_keeps_no_model():
    model = tiny_model(hidden_size=40)
    model(pixels())
    kernel = weakref.ref(model.params["classifier"]["kernel"])
    model = weakref.ref(model)
    gc.collect()
    assert model() is kernel() is None


class Divided(ViTClsConfig):
    model_type = "vit_divided"

    def __init__(self, divisor: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.divisor = divisor


class DividedModule(FlaxViTClsForImageClassificationModule):
    def __call__(self, *args, **kwargs):
        outputs = super().__call__(*args, **kwargs)
        return outputs.replace(logits=outputs.logits / self.config.divisor)


class DividedModel(FlaxViTClsForImageClassification):
    config_class = Divided
    module_class = DividedModule


def test_a_subclass_of_the_config_has_programs_for_each_value_of_its_fields():
    whole, tenth = (DividedModel(Divided(number, **TINY)) for number in (1, 10))
    expected = whole(pixels()).logits
    np.testing.assert_allclose(tenth(pixels(), params=whole.params).logits * 10, expected, rtol=1e-6)


def test_a_registered_subclass_of_the_config_is_saved_and_loaded_with_its_fields(tmp_path):
    AutoConfig.register("vit_divided", Divided)
    FlaxAutoModelForImageClassification.register(Divided, DividedModel)
    model = DividedModel(Divided(10, **TINY))
    model.save_pretrained(tmp_path)
    for loader in (DividedModel, FlaxAutoModelForImageClassification):
        again = loader.from_pretrained(tmp_path)
        assert (type(again), type(again.config), again.config.divisor) == (DividedModel, Divided, 10)
        np.testing.assert_array_equal(again(pixels()).logits, model(pixels()).logits)
    assert read_config(tmp_path).divisor == 10
    other = DividedModel.from_pretrained(tmp_path, config=Divided(5, **TINY)).with_readout("mean")
    assert (type(other.config), other.config.divisor) == (Divided, 5)


def test_a_subclass_of_the_config_needs_no_constructor():
    class Named(ViTClsConfig):
        model_type = "vit_named"
        remark: str = ""

    class Again(Divided):
        pass

    assert Named(**TINY).to_dict() == ViTClsConfig(**TINY).to_dict() | {"model_type": "vit_named"}
    assert (Again(7, **TINY).divisor, Again(7, **TINY).hidden_size) == (7, 16)
    assert FlaxViTClsForImageClassification(Named(**TINY))(pixels()).logits.shape == (2, 5)


def test_fields_of_a_subclass_that_no_load_would_take_are_not_saved(tmp_path):
    class Extra(ViTClsConfig):
        def __init__(self, extra: int = 1, **kwargs):
            super().__init__(**kwargs)
            self.extra = extra

    with pytest.raises(ConfigError, match=r"extra=1: .* give Extra a model_type of its own, and call AutoC"):
        FlaxViTClsForImageClassification(Extra(**TINY)).save_pretrained(tmp_path)
