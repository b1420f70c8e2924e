"""OpenCLIP's own files: what is read of their config, what is refused by name, which file of a folder is read."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_model
from local_hub import Repository
from safetensors.numpy import load_file, save_file
from test_families import golden, load

from modeling_vit_cls import CheckpointError, FlaxViTClsModel, export_pretrained
from modeling_vit_cls.families.open import Source, open_checkpoint
from modeling_vit_cls.families.strict import checked_tensors
from modeling_vit_cls.variants import variant_fields

WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"


def changed(
    folder: Path, model: dict[str, Any] | None = None, preprocess: dict[str, Any] | None = None, **vision
) -> Path:
    """The golden OpenCLIP folder with other fields in its config."""
    fields = json.loads((golden("open_clip") / CONFIG).read_text())
    fields["model_cfg"] |= model or {}
    fields["model_cfg"]["vision_cfg"] |= vision
    fields["preprocess_cfg"] |= preprocess or {}
    (folder / CONFIG).write_text(json.dumps(fields))
    shutil.copy(golden("open_clip") / WEIGHTS, folder)
    return folder


REFUSED = [
    {"attentional_pool": True},
    {"attentional_pool": "parallel"},
    {"qk_norm": True},
    {"scaled_cosine_attn": True},
    {"scale_heads": True},
    {"scale_attn_inner": True},
    {"scale_attn": True},
    {"scale_fc": True},
    {"block_type": "custom"},
    {"layers": [3, 4, 6, 3]},
    {"pool_type": "none"},
    {"norm_kwargs": {"elementwise_affine": False}},
    {"act_kwargs": {"approximate": "tanh"}},  # the golden config has quick_gelu, which takes none
    {"input_patchnorm": True},
    {"timm_model_name": "resnet50"},
    {"timm_model_name": "vit_base_patch16_rope_224"},
    {"timm_proj": "mlp", "timm_model_name": "vit_tiny_patch16_224"},
    {"timm_proj": None, "timm_model_name": "vit_tiny_patch16_224"},
    {"timm_proj_bias": True, "timm_model_name": "vit_tiny_patch16_224"},
    {"timm_pool": "", "timm_proj": "none", "timm_model_name": "vit_tiny_patch16_224"},
]


@pytest.mark.parametrize("fields", REFUSED, ids=lambda fields: "-".join(fields))
def test_what_our_model_does_not_compute_is_refused_by_its_name(fields, tmp_path):
    with pytest.raises(CheckpointError, match=f"open_clip_config.json.*{next(iter(fields))}="):
        open_checkpoint(changed(tmp_path, **fields))


def test_a_config_without_a_vision_tower_is_refused(tmp_path):
    folder = changed(tmp_path)
    for content in ({"model_cfg": {}}, {"model_cfg": {"vision_cfg": 3}}, {"model_cfg": []}):
        (folder / CONFIG).write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match="open_clip_config.json: has no model_cfg with a vision_cfg"):
            FlaxViTClsModel.from_pretrained(folder)


def test_activation_epsilon_and_heads_are_those_of_the_config(tmp_path):
    config = open_checkpoint(changed(tmp_path)).config
    assert (config.hidden_act, config.layer_norm_eps, config.num_attention_heads) == ("quick_gelu", 1e-5, 3)
    for fields, act in (({}, "gelu"), ({"act_kwargs": {"approximate": "tanh"}}, "gelu_pytorch_tanh")):
        fields |= {"norm_kwargs": {"eps": 1e-6}, "head_width": 12}
        config = open_checkpoint(changed(tmp_path, {"quick_gelu": False}, **fields)).config
        assert (config.hidden_act, config.layer_norm_eps, config.num_attention_heads) == (act, 1e-6, 2)


def test_the_image_processor_is_that_of_the_config(tmp_path, caplog):
    squashed = load(golden("open_clip"))[0].image_processor
    assert (squashed.size, squashed.do_center_crop) == ({"height": 16, "width": 16}, False)
    assert (squashed.image_mean, squashed.resample) == ([0.4, 0.5, 0.6], 3)
    given = {"resize_mode": None, "interpolation": "bilinear", "mean": 0.5, "std": None}
    cropped = FlaxViTClsModel.from_pretrained(changed(tmp_path, preprocess=given)).image_processor
    assert (cropped.size, cropped.crop_size) == ({"shortest_edge": 16}, {"height": 16, "width": 16})
    assert (cropped.resample, cropped.crop_rounding) == (2, "torchvision")
    assert (cropped.image_mean, cropped.image_std[0]) == ([0.5] * 3, 0.26862954)
    assert caplog.messages == []
    FlaxViTClsModel.from_pretrained(changed(tmp_path, preprocess={"resize_mode": "longest"}))
    assert "resize_mode='longest' is not supported" in caplog.text


def test_of_a_tower_that_is_not_read_the_tower_is_the_reason(tmp_path):
    folder = changed(tmp_path, timm_model_name="eva02_base_patch16_clip_224", timm_pool="token", timm_proj=None)
    with pytest.raises(CheckpointError, match="timm_model_name='eva02_base_patch16_clip_224' is not one of timm's"):
        FlaxViTClsModel.from_pretrained(folder)


def test_beside_a_checkpoint_of_another_library_only_the_named_file_is_openclips(tmp_path):
    folder = changed(tmp_path)
    for file in ("config.json", "model.safetensors"):
        shutil.copy(golden("clip_projection") / file, folder)
    assert open_checkpoint(folder).family.name == "transformers CLIP"
    assert open_checkpoint(folder / "model.safetensors").family.name == "transformers CLIP"
    assert open_checkpoint(folder / WEIGHTS).family.name == "OpenCLIP"
    (folder / "model.safetensors").unlink()  # as where transformers has pickled weights alone
    assert open_checkpoint(folder).family.name == "OpenCLIP"
    (folder / CONFIG).unlink()
    with pytest.raises(CheckpointError, match=f"{WEIGHTS}: needs the checkpoint's {CONFIG}"):
        open_checkpoint(folder / WEIGHTS)


def test_a_repository_of_openclip_loads_by_its_id(hub):
    files = {name: (golden("open_clip") / name).read_bytes() for name in (WEIGHTS, CONFIG)}
    hub.repositories["laion/tiny"] = Repository()
    hub.repositories["laion/tiny"].commit({**files, "open_clip_pytorch_model.bin": b"pickled"}, "theirs", "main")
    model, pixels = FlaxViTClsModel.from_pretrained("laion/tiny"), load(golden("open_clip"))[1]["native.pixels"]
    np.testing.assert_array_equal(model(pixels).image_embeds, load(golden("open_clip"))[0](pixels).image_embeds)


def test_a_tower_of_timm_has_timms_names_in_its_trunk(tmp_path):
    model = tiny_model(FlaxViTClsModel, **variant_fields("vit_cls_tiny_patch16_224"))
    export_pretrained(model, tmp_path / "timm", "timm")
    tensors = load_file(tmp_path / "timm" / "model.safetensors")
    tensors = {f"visual.trunk.{name}": tensor for name, tensor in tensors.items()}
    tensors |= {"visual.head.proj.weight": np.ones((32, 192), np.float32), "transformer.0": np.zeros(1, np.float32)}
    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 224}
    (tmp_path / CONFIG).write_text(json.dumps({"model_cfg": {"embed_dim": 32, "vision_cfg": vision}}))

    def loaded(tensors: dict[str, np.ndarray]) -> tuple[Source, set[str]]:
        save_file(tensors, tmp_path / WEIGHTS)
        source = open_checkpoint(tmp_path)
        return source, set(checked_tensors(source, allow_missing=False)[0])

    source, names = loaded(tensors)
    assert source.family.name == "OpenCLIP with timm ViT"
    assert (source.config.num_attention_heads, source.config.readout, source.config.projection_size) == (3, "cls", 32)
    assert "projection.kernel" in names
    for name in ("visual.trunk.cls_token", "visual.head.proj.weight"):
        rest = {key: tensor for key, tensor in tensors.items() if key != name}
        with pytest.raises(CheckpointError, match="missing"):
            loaded(rest)
        with pytest.raises(CheckpointError, match=f"'{name}s'"):
            loaded({**rest, f"{name}s": tensors[name]})
    vision |= {"timm_proj": "none", "timm_pool": "avg"}
    (tmp_path / CONFIG).write_text(json.dumps({"model_cfg": {"embed_dim": 192, "vision_cfg": vision}}))
    with pytest.raises(CheckpointError, match="has tensor 'norm.(weight|bias)', but timm builds fc_norm"):
        loaded(tensors)
