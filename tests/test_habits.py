"""What users of transformers pass by habit: taken where it means nothing, or refused."""

import ast
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from conftest import assert_same, pixels, rewrite, tiny_config, tiny_model
from local_hub import Repository
from ml_dtypes import bfloat16
from safetensors.numpy import save_file

from modeling_vit_cls import (
    BadImageError,
    CheckpointError,
    ConfigError,
    FlaxAutoModel,
    FlaxAutoModelForImageClassification,
    FlaxViTClsForImageClassification,
    FlaxViTClsModel,
)
from modeling_vit_cls.families.open import open_checkpoint
from modeling_vit_cls.files.finite import is_finite

pytestmark = pytest.mark.world

NOTHING = {
    "device_map": ["auto", None, "cpu", {"": "cpu"}, "balanced"],
    "device": [None, "cpu"],
    "low_cpu_mem_usage": [True, False],
    "use_safetensors": [True, False, None],
    "attn_implementation": ["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", None],
    "trust_remote_code": [True, False, None],
    "add_pooling_layer": [True, False],
    "use_auth_token": [None, False],
    "token": [None],
    "subfolder": [None, ""],
    "variant": [None],
    "proxies": [None, {}],
    "weights_only": [True],
    "state_dict": [None],
    "quantization_config": [None],
    "load_in_8bit": [False],
    "max_memory": [{0: "10GB"}],
    "offload_folder": ["offload"],
    "tp_plan": [None],
    "generation_config": [None],
    "resume_download": [True],
    "mirror": ["tuna"],
    "from_pt": [True],
    "from_tf": [False],
    "_fast_init": [False],
    "output_attentions": [False],
    "torch_dtype": [None, "float32", "torch.float32"],
    "dtype": ["float32", "torch.float32", "float", "auto", None],
}


def test_what_means_nothing_changes_nothing(folder, model):
    plain = FlaxViTClsForImageClassification.from_pretrained(folder).config.to_diff_dict()
    for name, values in NOTHING.items():
        for value in values:
            loaded = FlaxViTClsForImageClassification.from_pretrained(folder, **{name: value})
            assert_same(loaded.params, model.params)
            assert loaded.dtype == jnp.float32
            assert loaded.config.to_diff_dict() == plain, name


def test_the_auto_classes_take_the_same(folder, model):
    together = {name: values[0] for name, values in NOTHING.items() if name != "torch_dtype"}
    assert_same(FlaxAutoModelForImageClassification.from_pretrained(folder, **together).params, model.params)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("device_map", {"": 3}, "JAX places arrays itself"),
        ("device_map", {"encoder": 0, "classifier": 1}, "jax.default_device"),
        ("device", "tpu", "jax.default_device"),
        ("load_in_8bit", True, "dtype='bfloat16'"),
        ("load_in_4bit", True, "dtype='bfloat16'"),
        ("quantization_config", {"load_in_8bit": True}, "dtype='bfloat16'"),
        ("state_dict", {"a": 1}, "model.params = "),
        ("tp_plan", "auto", "jax.device_put"),
        ("gguf_file", "model.gguf", "safetensors"),
        ("from_tf", True, "safetensors"),
        ("proxies", {"https": "proxy:80"}, "HTTPS_PROXY"),
        ("variant", "fp16", "there is no model.fp16.safetensors in .*only model.safetensors"),
        ("variant", "../x", "must be a word"),
        ("dtype", "int8", "must be float32, bfloat16 or float16"),
        ("dtype", "float64", "must be float32"),
        ("dtype", "nonsense", 'also takes "auto"'),
        ("attn_implementatoin", "sdpa", "did you mean 'attn_implementation'"),
    ],
)
def test_what_would_change_something_is_refused_with_what_to_do_instead(folder, name, value, words):
    for kind in (FlaxViTClsForImageClassification, FlaxAutoModelForImageClassification):
        with pytest.raises(ConfigError, match=words) as error:
            kind.from_pretrained(folder, **{name: value})
        assert error.value.field == name


def test_use_auth_token_is_the_token(hub, model):
    model.push_to_hub("user/habits")
    loaded = FlaxViTClsForImageClassification.from_pretrained("user/habits", use_auth_token=True)
    assert_same(loaded.params, model.params)


@pytest.mark.parametrize(("stored", "auto"), [(np.float16, "float16"), (bfloat16, "bfloat16"), (np.float64, "float32")])
def test_auto_is_the_type_of_the_file(stored, auto, folder):
    rewrite(folder, lambda tensors: tensors.update({name: t.astype(stored) for name, t in tensors.items()}))
    for asked in ({"dtype": "auto"}, {"torch_dtype": "auto"}):
        assert FlaxViTClsModel.from_pretrained(folder, **asked).dtype == jnp.dtype(auto)


def test_pytorchs_types_are_known_by_name():
    class dtype:
        __module__ = "torch"

        def __str__(self):
            return "torch.bfloat16"

    for given, right in (
        ("torch.float16", "float16"),
        ("half", "float16"),
        ("bf16", "bfloat16"),
        (dtype(), "bfloat16"),
    ):
        assert FlaxViTClsModel(tiny_config(), dtype=given, _do_init=False).dtype == jnp.dtype(right)


@pytest.mark.parametrize("shards", [False, True])
def test_a_variant_is_read_where_there_is_one(shards, folder, model, hub):
    other = tiny_model()
    other.params = jax.tree.map(lambda leaf: leaf + 1, other.params)
    extra = folder.parent / "extra"
    other.save_pretrained(extra, max_shard_size="8KB" if shards else "5GB")
    for file in extra.glob("model*"):
        name = file.name
        if name.endswith(".json"):
            text = file.read_text().replace('"model-', '"model.fp16-')
            (folder / "model.safetensors.index.fp16.json").write_text(text)
        else:
            shutil.copy(file, folder / name.replace("model", "model.fp16", 1))
    assert_same(FlaxViTClsForImageClassification.from_pretrained(folder, variant="fp16").params, other.params)
    assert_same(FlaxViTClsForImageClassification.from_pretrained(folder).params, model.params)
    repo_id = f"user/variant-{shards}"
    hub.repositories[repo_id] = Repository()
    hub.repositories[repo_id].commit({file.name: file.read_bytes() for file in folder.iterdir()}, "theirs", "main")
    pulled = FlaxAutoModelForImageClassification.from_pretrained(repo_id, variant="fp16")
    assert_same(pulled.params, other.params)
    with pytest.raises(ConfigError, match="variant='fp32'"):
        FlaxViTClsModel.from_pretrained(repo_id, variant="fp32")


def test_a_model_says_what_it_is(model):
    assert repr(model) == (
        "FlaxViTClsForImageClassification(8 x 8 pixels in patches of 4, 2 x 16, readout='cls', 5 classes, "
        f"{model.num_parameters():,} parameters, float32)"
    )
    assert "classes" not in repr(FlaxViTClsModel(tiny_config(), _do_init=False))


@pytest.mark.parametrize("wrong", [pixels().tolist(), list(pixels()), tuple(pixels())])
def test_a_list_of_pixels_is_to_be_stacked(model, wrong):
    with pytest.raises(BadImageError, match="np.stack them") as error:
        model(wrong)
    assert "\n" not in str(error.value)


def test_nan_in_a_file_without_digests_is_said_and_reported(folder, caplog):
    for value in (np.nan, np.inf, -np.inf):
        caplog.clear()
        whole = FlaxViTClsForImageClassification.from_pretrained(folder).params["vit_cls"]["norm"]["bias"]

        def spoil(tensors, value=value):
            for name in ("vit_cls.norm.bias", "vit_cls.embeddings.position_embedding.embedding"):
                tensors[name].reshape(-1)[-1] = value

        rewrite(folder, spoil)
        _, report = FlaxViTClsForImageClassification.from_pretrained(folder, output_loading_info=True)
        names = ["embeddings.position_embedding.embedding", "norm.bias"]
        assert sorted(report.nonfinite_keys) == names
        assert str(folder / "model.safetensors") in caplog.text
        assert names[0] in caplog.text
        assert "NaN or infinite" in caplog.text
        _, report = FlaxViTClsModel.from_pretrained(folder, image_size=16, output_loading_info=True)
        assert len(report.nonfinite_keys) == 2, "interpolated ones too"
        rewrite(folder, lambda tensors, whole=whole: tensors.update({"vit_cls.norm.bias": np.asarray(whole)}))
        tensors = "vit_cls.embeddings.position_embedding.embedding"
        rewrite(folder, lambda t, name=tensors: t.update({name: np.zeros_like(t[name])}))
        _, report = FlaxViTClsModel.from_pretrained(folder, output_loading_info=True)
        assert report.nonfinite_keys == []


def test_nan_that_was_saved_on_purpose_is_not_said_again(model, tmp_path):
    broken = {**model.params, "classifier": jax.tree.map(lambda leaf: leaf * np.nan, model.params["classifier"])}
    model.save_pretrained(tmp_path, params=broken, allow_nonfinite=True)
    _, report = FlaxViTClsForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert report.nonfinite_keys == []


@pytest.mark.parametrize("dtype", [np.float16, bfloat16, np.float32, np.float64])
def test_every_bit_pattern_is_finite_or_not_as_numpy_says(dtype):
    width = np.dtype(dtype).itemsize
    high = np.arange(2**16, dtype=np.uint64) << np.uint64(8 * width - 16)
    values = high.astype(f"u{width}").view(dtype)
    with np.errstate(all="ignore"):
        finite = np.isfinite(values.astype(np.float64))
    assert is_finite(values[finite])
    assert not any(is_finite(values[i : i + 1]) for i in np.flatnonzero(~finite)[::97])
    table = np.zeros((300, 700), dtype)
    assert is_finite(table.T)
    assert is_finite(table[::2, ::3])
    table[298, 699] = np.nan
    for turned in (table, table.T, table[::2, ::3], table.reshape(3, 100, 700).transpose(2, 0, 1)):
        assert not is_finite(turned)


def parameters_upstream(file: str, class_name: str, method: str) -> dict[str, object]:
    """The keywords of a method of transformers with their defaults, from its text: some classes need PyTorch."""
    tree = ast.parse((Path(transformers.__file__).parent / file).read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name]
    (function,) = (node for node in classes[0].body if isinstance(node, ast.FunctionDef) and node.name == method)
    arguments, given = function.args.args[2:], function.args.defaults  # after self and the folder or the repository
    pairs = [
        *zip(arguments[-len(given) :] if given else (), given),
        *zip(function.args.kwonlyargs, function.args.kw_defaults),
    ]
    return {
        one.arg: getattr(default, "value", None) for one, default in pairs if not isinstance(default, ast.Attribute)
    }


def test_a_push_takes_what_transformers_own_takes(hub, model):
    keywords = parameters_upstream("utils/hub.py", "PushToHubMixin", "push_to_hub")
    assert {"commit_message", "create_pr", "tags", "max_shard_size"} <= set(keywords)
    model.push_to_hub("user/pushed", **keywords)
    model.push_to_hub("user/pushed", revision="v2", use_temp_dir=True, safe_serialization=True, use_auth_token=True)
    assert_same(FlaxViTClsForImageClassification.from_pretrained("user/pushed", revision="v2").params, model.params)


def test_a_save_takes_what_transformers_own_takes(hub, model, tmp_path):
    keywords = parameters_upstream("modeling_utils.py", "PreTrainedModel", "save_pretrained")
    assert {"is_main_process", "state_dict", "token"} <= set(keywords)
    model.save_pretrained(tmp_path / "a", **keywords, save_function=print, commit_message=None)
    model.save_pretrained(tmp_path / "b", token="hf_x")
    model.save_pretrained(tmp_path / "c", push_to_hub=True, repo_id="user/c", commit_message="Mine", tags=None)
    assert hub.repositories["user/c"].history
    assert {folder.name for folder in tmp_path.iterdir()} == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("safe_serialization", False, "only safetensors are written"),
        ("tags", ["vision"], "huggingface_hub.metadata_update"),
        ("state_dict", {"a": 1}, "params="),
        ("is_main_process", False, "the main process alone"),
        ("variant", "fp16", "a folder or a revision for each variant"),
        ("distributed_checkpoint", True, "leave it out"),
        ("organization", "us", "'owner/name'"),
        ("commit_mesage", "Mine", "did you mean 'commit_message'"),
        ("with_results", True, "is not a keyword of saving or pushing"),
    ],
)
def test_what_a_save_or_a_push_cannot_do_is_refused_before_anything_is_written(hub, tmp_path, name, value, words):
    model, folder = tiny_model(), tmp_path / "new"
    pushes = (
        lambda: model.push_to_hub("user/refused", **{name: value}),
        lambda: model.save_pretrained(folder, push_to_hub=True, repo_id="user/refused", **{name: value}),
        lambda: model.save_pretrained(folder, **{name: value}),
    )
    for call in pushes:
        with pytest.raises(ConfigError, match=words) as error:
            call()
        assert error.value.field == name
    assert not folder.exists()
    assert "user/refused" not in hub.repositories


def test_what_is_for_a_push_needs_one(model, tmp_path):
    with pytest.raises(ConfigError, match="revision='v1': is for a push: add push_to_hub=True"):
        model.save_pretrained(tmp_path / "new", revision="v1")
    assert not (tmp_path / "new").exists()


def test_a_folder_of_peft_is_called_what_it_is(tmp_path):
    lora = {
        "base_model.model.vit.encoder.layer.0.attention.attention.query.lora_A.weight": np.zeros((2, 16), np.float32)
    }
    peft = tmp_path / "peft"
    peft.mkdir()
    save_file(lora, peft / "adapter_model.safetensors")
    (peft / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "google/vit-base"}')
    for path in (peft, peft / "adapter_model.safetensors"):
        with pytest.raises(CheckpointError, match=r"lora_B.weight' missing"):
            FlaxViTClsForImageClassification.from_pretrained(path)
        with pytest.raises(CheckpointError, match="is a LORA adapter of PEFT for google/vit-base, not a whole model"):
            open_checkpoint(path)
    (peft / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="peft_type=None: only plain LoRA can be merged"):
        FlaxAutoModelForImageClassification.from_pretrained(peft)


def test_a_folder_that_holds_a_model_and_an_adapter_is_the_model(folder, model):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert_same(FlaxViTClsForImageClassification.from_pretrained(folder).params, model.params)


@pytest.mark.skipif(not hasattr(transformers, "FlaxAutoModel"), reason="transformers 5 has no Flax classes of its own")
def test_what_transformers_serves_is_given_every_keyword(tmp_path, monkeypatch):
    """Our models alone ignore some: BERT's class on 4.57 needs from_pt=True. No code is run there either."""
    given = {}
    monkeypatch.setattr(
        transformers.FlaxAutoModel,
        "from_pretrained",
        classmethod(lambda cls, path, *args, **kwargs: given.update(kwargs)),
    )
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    asked = {"from_pt": True, "use_safetensors": False, "adapter_kwargs": {}, "proxies": {"https": "x"}, "seed": 3}
    FlaxAutoModel.from_pretrained(tmp_path, **asked, trust_remote_code=True)
    assert given == {**asked, "trust_remote_code": False}


def test_the_auto_class_takes_the_keywords_of_a_config_and_tells_what_to_do_with_another_s(tmp_path):
    model = FlaxAutoModelForImageClassification.from_config(tiny_config(), seed=1, trust_remote_code=False)
    model.save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path, num_labels=5, use_auth_token=None)
    assert_same(FlaxAutoModelForImageClassification.from_pretrained(tmp_path, config=config).params, model.params)
    for kind in (FlaxAutoModelForImageClassification, FlaxAutoModel):  # on 4.57 too, which has a model for it
        for call in (kind.from_config, lambda config, kind=kind: kind.from_pretrained(tmp_path, config=config)):
            with pytest.raises(ValueError, match="no Flax model for a ViTConfig.*num_labels=.*, or a ViTClsConfig"):
                call(transformers.ViTConfig())
