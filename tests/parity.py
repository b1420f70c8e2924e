"""What is exported gives the same numbers in the libraries themselves: `make parity`, which has PyTorch.

Not part of `make test`; there the same files are held to bit-equality on their way back.
"""

import argparse
import json
import math
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import others
import pytest
import timm
import torch
import torchvision
import transformers
from conftest import pixels as random_pixels
from conftest import read_npz, tiny_model
from PIL import Image
from test_export import BORDERS, REFUSED
from test_families import FOLDERS, differences, load
from test_processor import CROP_STARTS
from test_refusals import remedy

from modeling_vit_cls import (
    CheckpointError,
    FlaxViTClsForImageClassification,
    FlaxViTClsModel,
    ViTClsConfig,
    ViTClsImageProcessor,
    export_pretrained,
)
from modeling_vit_cls.families import family_of, timm_export
from modeling_vit_cls.families import timm as timm_families
from modeling_vit_cls.families import torchvision as torchvision_families
from modeling_vit_cls.families.open import Source, parameter_shapes
from modeling_vit_cls.families.strict import checked_tensors
from modeling_vit_cls.families.timm_architectures import ARCHITECTURES, present_name
from modeling_vit_cls.files.tensor import Tensor
from modeling_vit_cls.images.processor_classes import CLASSES
from modeling_vit_cls.nn.vit import FlaxViTClsForImageClassificationModule, FlaxViTClsModule

OURS = {"logits", "cls_logits", "distillation_logits", "last_hidden_state", "pooler_output", "image_embeds"}


def exported(to: str) -> list[Path]:
    return [folder for folder in FOLDERS if (to, folder.name) not in REFUSED]


def pixels_of(expected, model) -> np.ndarray:
    pixels = expected["native.pixels"]
    if pixels.shape[2:] != model.config.image_hw:  # Meta's DINOv3, whose file does not say for which size
        height, width = model.config.image_hw
        pixels = np.random.default_rng(0).normal(size=(1, 3, height, width)).astype(np.float32)
    return pixels


def compare(got: torch.Tensor, want, what: str) -> None:
    want = np.asarray(want)
    difference = abs(got.numpy() - want).max() / abs(want).max()
    assert difference < 1e-5, f"{what}: {difference:.1e} of the output's scale"


@pytest.mark.world
@pytest.mark.parametrize("folder", exported("transformers"), ids=lambda folder: folder.name)
def test_transformers_loads_what_is_exported(folder, tmp_path):
    model, expected = load(folder)
    export_pretrained(model, tmp_path, "transformers")
    kind = transformers.AutoModel
    if "native.logits" in expected:
        kind = transformers.AutoModelForImageClassification
        if model.config.has_distillation_head:
            kind = transformers.DeiTForImageClassificationWithTeacher
    if model.config.projection_size:
        kind = transformers.CLIPVisionModelWithProjection
    theirs, info = kind.from_pretrained(tmp_path, output_loading_info=True)
    unused = {"missing_keys": [name for name in info["missing_keys"] if not name.startswith("pooler.")]}
    assert not any((unused | {k: v for k, v in info.items() if k != "missing_keys"}).values()), info
    pixels = pixels_of(expected, model)
    with torch.no_grad():
        got = theirs.eval()(torch.from_numpy(pixels))
    ours = model(pixels)
    names = OURS & set(ours) & {name for name in got if got[name] is not None}
    if model.config.representation_size is None and model.config.use_cls_token and not model.config.pre_norm:
        names -= {"pooler_output"} if any(name.startswith("pooler.") for name in info["missing_keys"]) else set()
    assert names
    for name in names:
        compare(got[name], ours[name], name)


@pytest.mark.parametrize("folder", exported("timm"), ids=lambda folder: folder.name)
def test_timm_loads_what_is_exported(folder, tmp_path):
    model, expected = load(folder)
    export_pretrained(model, tmp_path, "timm")
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    pixels = pixels_of(expected, model)
    with torch.no_grad():
        got = theirs(torch.from_numpy(pixels))
    compare(got, model(pixels)["logits" if "native.logits" in expected else "pooler_output"], "result")


@pytest.mark.parametrize("fields", BORDERS.values(), ids=BORDERS)
def test_timm_takes_an_image_that_is_no_multiple_of_the_patch(fields, tmp_path):
    model = tiny_model(**fields)
    export_pretrained(model, tmp_path, "timm")
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = random_pixels(size=(9, 11))
    with torch.no_grad():
        compare(theirs(torch.from_numpy(images)), model(images).logits, "logits")
    again = FlaxViTClsForImageClassification.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again(images).logits, model(images).logits)


@pytest.mark.world
@pytest.mark.parametrize("kind", ["exact", "shortest_edge", "exact_crop"])
def test_transformers_prepares_images_as_we_do(kind, tmp_path):
    crop = {"do_center_crop": True, "crop_size": {"height": 16, "width": 16}, "resample": 3}
    fields = {
        "exact": {"size": {"height": 16, "width": 16}, "resample": 2},
        "shortest_edge": {"size": {"shortest_edge": 20}, **crop},
        "exact_crop": {"size": {"height": 20, "width": 24}, **crop},
    }[kind]
    model, _ = load(next(folder for folder in FOLDERS if folder.name == "vit"))
    model.image_processor = ViTClsImageProcessor(**fields, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4])
    export_pretrained(model, tmp_path, "transformers")
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path, use_fast=False)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    got = np.asarray(theirs(image, return_tensors="np")["pixel_values"])
    np.testing.assert_allclose(got, model.image_processor(image)["pixel_values"], atol=1 / 255 / 0.2)


@pytest.mark.world
@pytest.mark.parametrize("name", sorted(set(CLASSES) - {"ViTHybridImageProcessor", "Siglip2ImageProcessor"}))
def test_processors_on_torchvision_differ_by_two_of_255(name):
    """Those that transformers 5 takes by default where torchvision is: another rounding of the same filter."""
    is_4 = transformers.__version__.startswith("4.")
    if is_4 and name == "Tipsv2ImageProcessor":
        pytest.skip("4.57 does not have it")
    theirs = getattr(transformers, f"{name}Fast" if is_4 else name)()
    if is_4 and name == "BeitImageProcessor":
        pytest.skip("4.57 has other defaults in the fast class than in the slow one, which ours are")
    ours = ViTClsImageProcessor.from_fields({"image_processor_type": name})
    noise = np.random.default_rng(0).integers(0, 256, (211, 317, 3), dtype=np.uint8)
    for image in (Image.fromarray(noise), Image.fromarray(noise).resize((640, 480), 3)):
        got = theirs(image, return_tensors="pt")["pixel_values"].numpy()
        scale = min(ours.image_std) if ours.do_normalize else 1
        difference = abs(got - ours(image)["pixel_values"]) * scale * 255
        assert difference.max() < 2.01
        assert difference.mean() < (0.5 if name == "DINOv3ViTImageProcessor" else 0.05)


def test_timm_prepares_images_as_we_do(tmp_path):
    model, _ = load(next(folder for folder in FOLDERS if folder.name == "timm_vit"))
    export_pretrained(model, tmp_path, "timm")
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(theirs), is_training=False)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    got = transform(image).numpy()[None]
    np.testing.assert_allclose(got, model.image_processor(image)["pixel_values"], atol=1e-5)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_onnxruntime_gives_what_the_source_gives(folder, tmp_path):
    model, expected = load(folder)
    if model.image_processor.output_hw != model.config.image_hw:  # a program takes images of one size
        model.image_processor = model.image_processor.at_size(model.config.image_hw)
    export_pretrained(model, tmp_path, "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    pixels = pixels_of(expected, model)
    found = dict(zip((output.name for output in session.get_outputs()), session.run(None, {"pixel_values": pixels})))
    for name, array in found.items():
        known = expected.get(f"native.{name}") if pixels.shape == expected["native.pixels"].shape else None
        compare(torch.from_numpy(array), model(pixels)[name] if known is None else known, name)


ACTIVATIONS = {
    "GELU": "gelu",
    "GELUnone": "gelu",
    "GELUtanh": "gelu_pytorch_tanh",
    "QuickGELU": "quick_gelu",
    "GELUTanh": "gelu_pytorch_tanh",
    "SiLU": "silu",
}


BUILT_OTHERWISE = [
    ("vit_base_patch16_224", {"init_values": 1e-5, "qkv_bias": False, "global_pool": "avg", "depth": 3}),
    ("vit_base_patch16_224", {"class_token": False, "global_pool": "avg", "fc_norm": False, "pre_norm": True}),
    ("vit_base_patch16_224", {"class_token": False, "global_pool": "map", "num_classes": 7}),
    ("vit_medium_patch16_gap_240", {"qkv_bias": True, "init_values": 0.0, "fc_norm": True, "num_classes": 0}),
    ("vit_base_patch32_clip_quickgelu_224", {"act_layer": "gelu", "pre_norm": False, "embed_dim": 384}),
    ("vit_small_patch14_reg4_dinov2", {"reg_tokens": 2, "num_classes": 3}),
    ("vit_small_patch16_dinov3_qkvb", {"num_reg_tokens": 2, "global_pool": "token", "init_values": 1.0}),
    ("vit_small_patch16_dinov3", {"use_fc_norm": True, "swiglu_mlp": True, "swiglu_align_to": 8, "qkv_bias": True}),
]


# timm leaves the registers out of its attention pooling, ours pools all tokens.
POOLED_OTHERWISE = "vit_so150m_patch16_reg4_map_256"


def tensors_of(model: torch.nn.Module) -> dict[str, Tensor]:
    """The tensors of a model as those of a file, without numbers."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return {name: Tensor(name, Path("f"), shape, "float32", lambda: None, shape) for name, shape in shapes.items()}


def norm_position(model: torch.nn.Module) -> str:
    """Where the final norm of timm's is, as our field."""
    norms = {"before_readout": model.norm, "after_readout": model.fc_norm}
    return next((place for place, norm in norms.items() if not isinstance(norm, torch.nn.Identity)), "none")


@pytest.mark.parametrize(
    ("name", "arguments"), [(name, {}) for name in ARCHITECTURES if name != POOLED_OTHERWISE] + BUILT_OTHERWISE
)
def test_every_architecture_of_timm_that_is_taken_has_the_facts_that_we_give_it(name, arguments):
    with torch.device("meta"):  # shapes alone: some have billions of parameters
        model = timm.create_model(name, **arguments)
    fields = {"architecture": name, "num_classes": model.num_classes, "pretrained_cfg": model.pretrained_cfg}
    fields["model_args"] = arguments
    family, tensors = family_of(fields, name), tensors_of(model)
    tensors = family.convert(tensors)
    ours = {"position_embedding": "learned"} | family.fields(fields, tensors)
    tensors = family.merge(fields, tensors)
    block, nothing = model.blocks[0], torch.nn.Identity
    act = block.mlp.act
    registers, positions = getattr(model, "reg_token", None), getattr(model, "pos_embed", None)
    is_beit, patches_only = isinstance(model, timm.models.Beit), getattr(model, "no_embed_class", False)
    scales = [getattr(block, name, None) for name in ("gamma_1", "gamma_2", "ls1", "ls2")]
    scales = [scale for scale in scales if scale is not None and not isinstance(scale, nothing)]
    theirs = {
        "num_hidden_layers": len(model.blocks),
        "num_attention_heads": block.attn.num_heads,
        "hidden_act": ACTIVATIONS[type(act).__name__ + getattr(act, "approximate", "")],
        "layer_norm_eps": block.norm1.eps,
        "image_size": model.patch_embed.img_size,
        "readout": {"token": "cls", "avg": "mean", "map": "map"}[model.global_pool],
        "pre_norm": not isinstance(getattr(model, "norm_pre", nothing()), nothing),
        "norm_position": norm_position(model),
        "use_cls_token": model.cls_token is not None,
        "num_register_tokens": 0 if registers is None else registers.shape[1],
        "qkv_bias": block.attn.qkv.bias is not None or getattr(block.attn, "q_bias", None) is not None,
        "position_embedding": "relative" if is_beit else "rope" if positions is None else "learned",
        "position_embedding_tokens": "patches" if patches_only and model.cls_token is not None else "all",
        "use_distillation_token": hasattr(model, "dist_token"),
        "mlp": "mlp" if type(block.mlp).__name__ == "Mlp" else "swiglu",
        "dynamic_image_size": getattr(model, "dynamic_img_size", False),
        "architectures": ["ViTClsForImageClassification" if model.num_classes else "ViTClsModel"],
        "patch_bias": model.patch_embed.proj.bias is not None,
    }
    assert {key: tuple(ours[key]) if key == "image_size" else ours[key] for key in theirs} == theirs
    assert (ours["layer_scale_init_value"] is not None) == (len(scales) == 2)
    assert all(isinstance(getattr(block.attn, name, None) or nothing(), nothing) for name in ("q_norm", "k_norm"))
    config = ViTClsConfig.from_dict(ours | {"ignore_border": True})
    config.architectures = ours["architectures"]
    checked_tensors(Source(Path(name), family, config, tensors, {}), allow_missing=False)  # every name and shape
    merged = 0 if patches_only or positions is None or registers is None else registers.numel()
    module = FlaxViTClsForImageClassificationModule if model.num_classes else FlaxViTClsModule
    counts = [math.prod(shape.shape) for shape in parameter_shapes(module, config).values()]
    assert sum(counts) == sum(parameter.numel() for parameter in model.parameters()) - merged
    processor = ViTClsImageProcessor.from_fields(family.processor(fields, config))
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    image = noise(config.image_hw[0] + 36, config.image_hw[1] + 101)
    np.testing.assert_allclose(processor(image)["pixel_values"][0], transform(image).numpy(), atol=1e-6)


def test_every_other_architecture_of_timm_is_refused_by_name():
    """Those of the same classes too, which have another block."""
    names = {
        name for module in ("vision_transformer", "eva", "deit", "beit") for name in timm.list_models(module=module)
    }
    assert set(ARCHITECTURES) <= names
    for name in names - set(ARCHITECTURES):
        with pytest.raises(CheckpointError, match=f"architecture='{name}' is not one of timm's plain"):
            family_of({"architecture": name}, name)
    with torch.device("meta"):
        model = timm.create_model(POOLED_OTHERWISE)
    fields = {"architecture": POOLED_OTHERWISE, "pretrained_cfg": model.pretrained_cfg}
    family = family_of(fields, "file")
    with pytest.raises(CheckpointError, match="global_pool='map' with .CLS. or registers is not supported"):
        family.fields(fields, family.convert(tensors_of(model)))


def test_names_with_a_tag_and_old_names_are_those_that_timm_takes():
    for name in timm.list_pretrained():
        assert present_name(name) == name.partition(".")[0]
    old = {
        name: new
        for name, new in timm.models._registry._deprecated_models.items()
        if present_name(new) in ARCHITECTURES
    }
    assert len(old) == 28
    assert {name: present_name(name) for name in old} == {name: present_name(new) for name, new in old.items()}


SMALL = {
    "tipsv2": {"model_name": "vit_base_patch14_reg1_tipsv2", "num_classes": 0},
    "tipsv2_giant": {"model_name": "vit_giant_patch14_reg1_tipsv2", "num_classes": 0},
    "lingbot": {"model_name": "vit_small_patch16_lingbot", "num_classes": 0},
    "lingbot_giant": {"model_name": "vit_giant_patch16_lingbot"},
    "so150m2": {"model_name": "vit_so150m2_patch16_reg1_gap_256"},
    "eva_large": {"model_name": "eva_large_patch14_196"},
    "eva_giant_clip": {"model_name": "eva_giant_patch14_clip_224", "num_classes": 0},
    "eva_registers": {"model_name": "eva_giant_patch14_224", "num_reg_tokens": 2},
    "map_of_registers": {"model_name": "test_vit3"},
    "flexivit_dynamic": {"model_name": "flexivit_base"},
    "miil": {"model_name": "vit_base_patch16_224_miil"},
    "36x1": {"model_name": "vit_small_patch16_36x1_224"},
    "plus_clip": {"model_name": "vit_base_patch16_plus_clip_240", "num_classes": 0},
    "giant_gap": {"model_name": "vit_giant_patch16_gap_224", "num_classes": 0},
}


@pytest.mark.parametrize("kind", SMALL)
def test_each_rule_of_an_architecture_gives_timms_numbers(kind, tmp_path):
    others.write_timm(tmp_path, SMALL[kind])
    found = differences(tmp_path)
    assert {f"{kind}.{name}" for kind in ("native", "other") for name in ("embeddings", "block")} < set(found)
    for name, difference in found.items():
        assert difference < (1e-5 if name.startswith("native") else 1e-4), name


# As their cards build them, at a small size: the name, the arguments, and the keywords that a user gives here.
PATHOLOGY = {
    "UNI": ("vit_large_patch16_224", {"init_values": 1e-5}, {"layer_scale_init_value": 1e-5}),
    "UNI2-h": (
        "vit_giant_patch14_224",
        {"init_values": 1e-5, "no_embed_class": True, "reg_tokens": 8, **others.CLASSES},
        {},
    ),
    "Virchow": ("vit_huge_patch14_224", {"init_values": 1e-5, **others.CLASSES}, {"readout": "cls_mean"}),
    "Virchow2": ("vit_huge_patch14_224", {"init_values": 1e-5, "reg_tokens": 4, **others.CLASSES}, {}),
    "H-optimus-0": ("vit_giant_patch14_reg4_dinov2", {"init_values": 1e-5, "dynamic_img_size": False}, {}),
    "H0-mini": ("vit_base_patch14_reg4_dinov2", {"init_values": 1e-5, **others.CLASSES}, {}),
    "GigaPath": ("vit_giant_patch14_dinov2", {"patch_size": 2}, {}),
    "mSTAR": ("vit_large_patch16_224", {"init_values": 1e-5}, {"layer_scale_init_value": 1.0}),
    "Prost40M": ("vit_small_patch14_dinov2", {"img_size": 24}, {"image_size": 24}),
}


@pytest.mark.parametrize("kind", PATHOLOGY)
def test_pathologys_models_load_with_the_number_of_heads_alone(kind, tmp_path):
    name, arguments, keywords = PATHOLOGY[kind]
    others.write_timm(tmp_path, {**others.TIMM, "model_name": name, "num_classes": 0, **arguments})
    fields = json.loads((tmp_path / "config.json").read_text())
    fields["pretrained_cfg"]["input_size"] = [3, 16, 16]
    del fields["model_args"]  # as on the Hub: the arguments stand in the text of the card
    (tmp_path / "config.json").write_text(json.dumps(fields))
    model = FlaxViTClsModel.from_pretrained(tmp_path, num_attention_heads=3, **keywords)
    expected = read_npz(tmp_path / "expected.npz")
    resized = {"interpolate_pos_encoding": True}  # of Prost40M, whose positions are those of a larger image
    outputs = model(expected["native.pixels"], output_hidden_states=True, **resized)
    for result, want in (
        (outputs.hidden_states[0], expected["native.embeddings"]),
        (outputs.hidden_states[1], expected["native.block"]),
        (outputs.last_hidden_state, expected["native.last_hidden_state"]),
    ):
        compare(torch.from_numpy(np.array(result)), want, kind)


@pytest.mark.parametrize("side", [2, 6, 8, 16])
def test_flexivit_has_patches_of_any_size(side):
    folder = next(folder for folder in FOLDERS if folder.name == "timm_flexivit")
    sizes = {"patch_size": side, "img_size": (48, 96)}
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True, **sizes).eval()
    ours = FlaxViTClsForImageClassification.from_pretrained(folder, patch_size=side, image_size=(48, 96))
    pixels = np.random.default_rng(0).normal(size=(1, 3, 48, 96)).astype(np.float32)
    with torch.no_grad():
        want = theirs(torch.from_numpy(pixels)).numpy()
    assert abs(ours(pixels).logits - want).max() < 1e-4 * abs(want).max()


@pytest.mark.world
@pytest.mark.parametrize("head", [True, False])
def test_timm_inside_transformers_gives_the_same_numbers(head, tmp_path):
    folder = Path(__file__).parent / "golden" / "timm_vit"  # the committed one: on 4.57 others of timm are not made
    kind = transformers.TimmWrapperForImageClassification if head else transformers.TimmWrapperModel
    fields = json.loads((folder / "config.json").read_text())
    del fields["model_args"]["num_classes"]  # which transformers gives itself
    (tmp_path / "config.json").write_text(json.dumps(fields))
    shutil.copy(folder / "model.safetensors", tmp_path)
    theirs = kind.from_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path)
    pixels = read_npz(folder / "expected.npz")["native.pixels"]
    with torch.no_grad():
        want = theirs.eval()(torch.from_numpy(pixels))
    if head:
        model = FlaxViTClsForImageClassification.from_pretrained(tmp_path)
        compare(want.logits, model(pixels).logits, "logits")
        assert model.config.id2label == theirs.config.id2label
    else:
        outputs = FlaxViTClsModel.from_pretrained(tmp_path)(pixels)
        compare(want.last_hidden_state, outputs.last_hidden_state, "last_hidden_state")
        compare(want.pooler_output, outputs.pooler_output, "pooler_output")


def noise(width: int, height: int) -> Image.Image:
    """Smoothed noise, so that another pixel or another filter shows."""
    small = np.random.default_rng(0).integers(0, 256, (height // 3 + 2, width // 3 + 2, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


# Margins of every remainder by 4 on both sides, upright and across, larger and smaller than what is asked for.
IMAGE_SIZES = [(37, 37), (38, 53), (51, 40), (41, 90), (97, 43), (63, 64), (65, 63), (20, 31), (31, 9), (7, 5)]
PIXELS = {"do_rescale": False, "do_normalize": False}


def prepare_alike(fields: dict, transform, same: dict) -> None:
    """Our processor and a transform of theirs: the same bytes, and within rounding the same numbers."""
    processor = ViTClsImageProcessor.from_fields(fields)
    plain = ViTClsImageProcessor.from_fields({**fields, **PIXELS})
    for size in IMAGE_SIZES:
        image = noise(*size)
        want = transform(image).numpy()
        np.testing.assert_allclose(processor(image)["pixel_values"][0], want, atol=1e-6, err_msg=str(size))
        mean, std = (np.asarray(same[name], np.float64)[:, None, None] for name in ("mean", "std"))
        np.testing.assert_array_equal(plain(image)["pixel_values"][0], np.rint((want * std + mean) * 255))


@pytest.mark.parametrize("share", [0.875, 0.9, 0.95, 1.0, 1.2, None])
@pytest.mark.parametrize("mode", ["center", "squash", None])
@pytest.mark.parametrize("size", [(32, 32), (33, 33), (32, 48), (47, 20)])
def test_timm_prepares_images_as_its_checkpoints_do_here(size, mode, share):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    said = {"input_size": (3, *size), "crop_pct": share, "crop_mode": mode, "mean": mean, "std": std}
    said["interpolation"] = timm_export.INTERPOLATIONS[(sum(size) + len(mode or "") // 3 + int(10 * (share or 0))) % 6]
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(None, pretrained_cfg=said))
    fields = timm_families.FAMILIES[0].processor({"pretrained_cfg": said}, ViTClsConfig(image_size=size, patch_size=1))
    prepare_alike(fields, transform, said)
    processor = ViTClsImageProcessor.from_fields(fields)
    again = timm_export.transform(processor, ViTClsConfig(image_size=size, patch_size=1))
    config = timm.data.resolve_model_data_config(None, pretrained_cfg={**said, **again})
    prepare_alike(fields, timm.data.create_transform(**config), said)


VIT = torchvision.models.vision_transformer
PRESETS = {
    f"{kind.__name__}.{entry.name}": (entry, width)
    for kind, width in (
        (VIT.ViT_B_16_Weights, 768),
        (VIT.ViT_B_32_Weights, 768),
        (VIT.ViT_L_16_Weights, 1024),
        (VIT.ViT_L_32_Weights, 1024),
        (VIT.ViT_H_14_Weights, 1280),
    )
    for entry in kind
}
NOT_KNOWN_APART = {"ViT_B_16_Weights.IMAGENET1K_SWAG_LINEAR_V1", "ViT_L_16_Weights.IMAGENET1K_SWAG_LINEAR_V1"}


@pytest.mark.parametrize("name", PRESETS)
def test_torchvision_prepares_images_as_its_checkpoints_do_here(name):
    entry, width = PRESETS[name]
    preset, patch = entry.transforms(), int(name.split("_")[2])
    config = ViTClsConfig(image_size=preset.crop_size[0], patch_size=patch, hidden_size=width, num_attention_heads=16)
    fields = torchvision_families.FAMILIES[0].processor({}, config)
    known = fields["size"] == {"shortest_edge": preset.resize_size[0]}
    assert known == (name not in NOT_KNOWN_APART)
    if known:
        prepare_alike(fields, preset, {"mean": preset.mean, "std": preset.std})


def test_the_offsets_in_the_fast_tests_are_torchvisions():
    for margin, start in CROP_STARTS.items():
        row = torch.arange(1, 21 + margin)[None, None]
        cropped = torchvision.transforms.functional.center_crop(row, [1, 20])[0, 0]
        first = int((cropped > 0).nonzero()[0])
        assert int(cropped[first]) - 1 - first == start


QUERY, VALUE = "query|q_proj", "value|v_proj"  # transformers 4 | 5
LORAS = {
    "plain": ("vit", {"target_modules": rf".*\.({QUERY}|{VALUE})", "lora_alpha": 7}),
    "all": ("vit", {"target_modules": "all-linear", "use_rslora": True, "modules_to_save": ["classifier"]}),
    "patterns": (
        "dinov2",
        {
            "target_modules": rf".*\.({QUERY}|fc1)",
            "rank_pattern": {"fc1": 2},
            "alpha_pattern": {rf"[a-z]+\.0\..*({QUERY})": 9},
        },
    ),
    "a convolution": ("vit", {"target_modules": ["projection"]}),
    "fan_in_fan_out": ("deit", {"target_modules": rf".*\.({VALUE})", "fan_in_fan_out": True}),
    "another head": ("vit_pooler", {"target_modules": rf".*\.({QUERY})", "modules_to_save": ["classifier"]}),
}


@pytest.mark.world
@pytest.mark.filterwarnings("ignore")  # of PEFT, which is not ours to mend
@pytest.mark.parametrize("case", LORAS)
def test_an_adapter_of_peft_gives_the_numbers_of_peft(case, tmp_path):
    import peft

    base, options = LORAS[case]
    folder = next(folder for folder in FOLDERS if folder.name == base)
    torch.manual_seed(0)
    theirs = transformers.AutoModelForImageClassification.from_pretrained(folder, num_labels=5)
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(r=4, **options)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
        pixels = read_npz(folder / "expected.npz")["native.pixels"]
        expected = theirs(torch.from_numpy(pixels)).logits
    theirs.save_pretrained(tmp_path)
    compare(expected, FlaxViTClsForImageClassification.from_pretrained(tmp_path)(pixels).logits, case)


def pickled(kind: str, tensors: dict[str, torch.Tensor]) -> dict[str, dict]:
    """The pickled files of a checkpoint of timm, as trainers and libraries write them: {file name: content}."""
    shared = {**tensors, "norm.bias": tensors["pos_embed"][0, 0]}  # a view of another tensor's memory
    trained = {"epoch": 3, "optimizer": {"state": {}}, "args": argparse.Namespace(lr=1)}
    names = sorted(tensors)
    return {
        "plain": {"x.pth": shared},
        "DeiT": {"x.pth": {"model": tensors, "model_ema": {}, **trained}},
        "DINO": {"x.pth.tar": {"student": {}, "teacher": {f"backbone.{k}": v for k, v in tensors.items()}, **trained}},
        "Lightning": {"x.ckpt": {"state_dict": {f"model.{k}": v for k, v in tensors.items()}, "epoch": 1}},
        "shards": {
            f"pytorch_model-0000{i + 1}-of-00002.bin": {name: tensors[name] for name in names[i::2]} for i in range(2)
        },
    }[kind]


@pytest.mark.parametrize("kind", ["plain", "DeiT", "DINO", "Lightning", "shards"])
def test_the_lines_that_convert_pickled_weights_do(kind, tmp_path, monkeypatch):
    torch.manual_seed(0)
    theirs = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=0)
    for name, content in pickled(kind, theirs.state_dict()).items():
        torch.save(content, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    exec(remedy(tmp_path), {})
    images = random_pixels(size=(32, 32))
    ours = FlaxViTClsModel.from_pretrained(tmp_path / "model.safetensors")(images).pooler_output
    if kind == "plain":
        theirs.norm.bias.data = theirs.pos_embed.data[0, 0]
    with torch.no_grad():
        compare(theirs.eval()(torch.from_numpy(images)), ours, kind)
