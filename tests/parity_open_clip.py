"""OpenCLIP with towers of timm, and its image preparation, against OpenCLIP: `make parity`, which has PyTorch."""

import json

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import image_transform
from parity import prepare_alike
from safetensors.torch import save_file
from test_families import distance

from modeling_vit_cls import FlaxViTClsModel, ViTClsConfig
from modeling_vit_cls.families import open_clip as families

TEXT = {"context_length": 8, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1}
TOWERS = [
    ("vit_tiny_patch16_224", "token", "linear"),
    ("vit_tiny_patch16_224", "avg", "linear"),  # timm's norm stays before the pooling
    ("vit_tiny_patch16_224", "avg", "none"),  # timm's norm is after it
    ("vit_medium_patch16_gap_256", "", "linear"),
    ("vit_base_patch32_siglip_256", "map", "none"),
]


@pytest.mark.parametrize(("name", "pool", "projection"), TOWERS)
def test_a_tower_of_timm_gives_what_it_gives_in_openclip(name, pool, projection, tmp_path):
    torch.manual_seed(0)
    size = int(name[-3:])
    vision = {"image_size": size, "timm_model_name": name, "timm_pool": pool, "timm_proj": projection}
    cfg = {"embed_dim": 32, "vision_cfg": vision}
    theirs = open_clip.CLIP(**cfg, text_cfg=TEXT).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    save_file(theirs.state_dict(), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg}))
    pixels = np.random.default_rng(0).normal(size=(2, 3, size, size)).astype(np.float32)
    outputs = FlaxViTClsModel.from_pretrained(tmp_path)(pixels)
    with torch.no_grad():
        want = theirs.encode_image(torch.from_numpy(pixels)).numpy()
    assert distance(outputs["pooler_output" if projection == "none" else "image_embeds"], want) < 1e-5


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("size", [(32, 32), (33, 33), (32, 48), (47, 20)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_openclip_prepares_images_as_its_checkpoints_do_here(size, mode, interpolation):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    given = {"mean": mean, "std": std, "resize_mode": mode, "interpolation": interpolation}
    transform = image_transform(size, is_train=False, **given)
    fields = families.FAMILIES[0].processor({"preprocess_cfg": given}, ViTClsConfig(image_size=size, patch_size=1))
    prepare_alike(fields, transform, given)
