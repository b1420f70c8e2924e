"""transformers' own common tests, run on our two classes: of configs as in 4.57.6, of Flax models as last published.

They come with transformers' source releases and are fetched by `make test TRANSFORMERS=4` into the environment
(`python tests/fetch_upstream.py`); nothing of them is copied here. transformers 5 has no Flax tests to run.
"""

import importlib
import inspect
import sys
import types
import unittest

import pytest
import transformers
import transformers.testing_utils
from fetch_upstream import FOLDER

pytestmark = pytest.mark.world

if not hasattr(transformers, "FlaxPreTrainedModel"):
    pytest.skip("transformers 5 has no Flax classes, and so no tests of them", allow_module_level=True)
assert FOLDER.is_dir(), "transformers' tests are missing: run python tests/fetch_upstream.py"

# The package that upstream's files expect to lie in; its keywords for any config, those that 4.57 stores.
_package, _utils = types.ModuleType("upstream"), types.ModuleType("upstream.utils")
_package.__path__, _utils.__path__ = [str(FOLDER)], []
_keywords = types.ModuleType("upstream.utils.test_configuration_utils")
_keywords.config_common_kwargs = {
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "torchscript": True,
    "dtype": "float16",
    "pruned_heads": {"a": 1},
    "tie_word_embeddings": False,
    "chunk_size_feed_forward": 5,
    "max_length": 50,
    "temperature": 2.0,
    "architectures": ["ViTClsModel"],
    "finetuning_task": "translation",
    "id2label": {0: "label"},
    "label2id": {"label": "0"},
    "prefix": "prefix",
    "bos_token_id": 6,
    "task_specific_params": {"translation": "some_params"},
    "problem_type": "regression",
}
for _module in (_package, _utils, _keywords):
    sys.modules[_module.__name__] = _module

transformers.testing_utils.require_flax = lambda test: test  # gone in 4.57 with its own Flax tests

ConfigTester = importlib.import_module("upstream.test_configuration_common").ConfigTester
_flax_common = importlib.import_module("upstream.test_modeling_flax_common")

import jax
from conftest import pixels, tiny_config

from modeling_vit_cls import FlaxViTClsForImageClassification, FlaxViTClsModel, ViTClsConfig


class _Inputs:
    """What upstream's tests ask a model for: a config, a batch, and the sizes that they expect."""

    num_hidden_layers, num_attention_heads, hidden_size, seq_length = 2, 2, 16, 5

    def prepare_config_and_inputs_for_common(self):
        config = tiny_config(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
        return config, {"pixel_values": pixels(3)}


class TestFlaxCommon(_flax_common.FlaxModelTesterMixin, unittest.TestCase):
    all_model_classes = (FlaxViTClsModel, FlaxViTClsForImageClassification)
    model_tester = _Inputs()

    # Of these, two load a BERT from the Hub, and are no tests of a class of ours; the other two are for text inputs,
    # and upstream's ViT replaces them in the same way as below.
    test_checkpoint_sharding_from_hub = test_checkpoint_sharding_local = None

    def test_forward_signature(self):
        for model_class in self.all_model_classes:
            assert [*inspect.signature(model_class.__call__).parameters][1] == "pixel_values"

    def test_jit_compilation(self):
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            model = model_class(config)
            call = jax.jit(lambda pixel_values, **kwargs: model(pixel_values=pixel_values, **kwargs))  # noqa: B023
            with jax.disable_jit():
                expected = call(**inputs).to_tuple()
            assert [output.shape for output in call(**inputs).to_tuple()] == [output.shape for output in expected]


class TestConfigCommon(unittest.TestCase):
    def test_config(self):
        # Upstream sets the n-th named property to n. ViT's default, hidden_size=0, is what we refuse; these are legal.
        properties = ["num_register_tokens", "num_attention_heads", "num_hidden_layers"]
        ConfigTester(
            self, ViTClsConfig, has_text_modality=False, common_properties=properties, hidden_size=36
        ).run_common_tests()
