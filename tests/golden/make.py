"""Write the golden checkpoints with the real libraries: python tests/golden/make.py [FOLDER]; needs torch.

Each is a folder as its library saves it (config.json, model.safetensors, tiny and random) and an expected.npz: pixels
at the native and at another, non-square size, and for both the embeddings, the first block's output, the last hidden
state and what the model gives in the end, in float32. Two whole models, of CLIP and SigLIP, have texts and logits too.
"""

import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
import others
import torch
import transformers
from safetensors.torch import save_file

HERE = Path(__file__).parent
VIT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}
VIT |= {"image_size": 16, "patch_size": 4}
DINO = {name: value for name, value in VIT.items() if name != "intermediate_size"} | {"mlp_ratio": 2}
TEXT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
TEXT |= {"vocab_size": 16, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SIGLIP2 = {name: value for name, value in VIT.items() if name != "image_size"} | {"num_patches": 16}
DECODER = {f"decoder_{name}": size for name, size in TEXT.items() if name in VIT}
TIPS = DINO | {"mlp_ratio": 1.34}
POSE = DINO | {"image_size": [24, 16], "patch_size": 8}
DINOV3 = VIT | {"num_register_tokens": 3}
RADIO = DINO | {"max_img_size": 32, "mlp_ratio": 2.0, "num_registers": 2, "layerscale_value": 0.5}
OF_CLS = {"use_absolute_position_embeddings": True, "use_mean_pooling": False, "layer_scale_init_value": 0.0}


def cases() -> dict[str, Any]:
    """Name -> (model class, config): one for each family, and for each fact that changes its numbers."""
    t = transformers
    return {
        "vit": (t.ViTForImageClassification, t.ViTConfig(**VIT, num_labels=5)),
        "vit_pooler": (t.ViTModel, t.ViTConfig(**VIT)),
        "deit": (t.DeiTForImageClassification, t.DeiTConfig(**VIT, num_labels=5)),
        "deit_teacher": (t.DeiTForImageClassificationWithTeacher, t.DeiTConfig(**VIT, num_labels=5)),
        "dinov2": (t.Dinov2ForImageClassification, t.Dinov2Config(**DINO, num_labels=5)),
        "dinov2_giant": (t.Dinov2Model, t.Dinov2Config(**DINO, use_swiglu_ffn=True)),
        "dinov2_registers": (t.Dinov2WithRegistersModel, t.Dinov2WithRegistersConfig(**DINO, num_register_tokens=3)),
        "dinov3": (t.DINOv3ViTModel, t.DINOv3ViTConfig(**DINOV3)),
        "dinov3_gated": (t.DINOv3ViTModel, t.DINOv3ViTConfig(**DINOV3, use_gated_mlp=True, hidden_act="silu")),
        "siglip": (t.SiglipVisionModel, t.SiglipVisionConfig(**VIT)),
        "siglip_classifier": (
            t.SiglipForImageClassification,
            t.SiglipConfig(vision_config=VIT, num_labels=5),
        ),
        "siglip2": (t.Siglip2VisionModel, t.Siglip2VisionConfig(**SIGLIP2)),
        "siglip_model": (t.SiglipModel, t.SiglipConfig(text_config=TEXT, vision_config=VIT)),
        "siglip_text_model": (
            t.SiglipModel,
            t.SiglipConfig(text_config=TEXT | {"projection_size": VIT["hidden_size"]}, vision_config=VIT),
        ),
        "clip_model": (t.CLIPModel, t.CLIPConfig(text_config=TEXT, vision_config=VIT, projection_dim=8)),
        "clip": (t.CLIPVisionModel, t.CLIPVisionConfig(**VIT)),
        "vit_mae": (t.ViTMAEForPreTraining, t.ViTMAEConfig(**VIT, **DECODER, mask_ratio=0.0)),
        "vit_msn": (t.ViTMSNForImageClassification, t.ViTMSNConfig(**VIT, num_labels=5)),
        "ijepa": (t.IJepaForImageClassification, t.IJepaConfig(**VIT, num_labels=5)),
        "vitpose": (t.VitPoseBackbone, t.VitPoseBackboneConfig(**POSE)),
        "metaclip2": (t.MetaClip2VisionModelWithProjection, t.MetaClip2VisionConfig(**VIT, projection_dim=24)),
        "clip_projection": (t.CLIPVisionModelWithProjection, t.CLIPVisionConfig(**VIT, projection_dim=8)),
        "beit": (t.BeitForImageClassification, t.BeitConfig(**VIT, use_relative_position_bias=True, num_labels=5)),
        "beit_pretrained": (
            t.BeitForMaskedImageModeling,
            t.BeitConfig(**VIT, use_shared_relative_position_bias=True, use_mask_token=True, vocab_size=7),
        ),
        "data2vec": (t.Data2VecVisionModel, t.Data2VecVisionConfig(**VIT, use_relative_position_bias=True)),
        "data2vec_classifier": (
            t.Data2VecVisionForImageClassification,
            t.Data2VecVisionConfig(**VIT, **OF_CLS, num_labels=5),
        ),
    } | (new_cases() if hasattr(t, "PixioModel") else {})


def new_cases() -> dict[str, Any]:
    """Those that only transformers 5 has; 4.57 does not interpolate for a classifier on CLIP."""
    t = transformers
    return {
        "radio": (t.RadioModel, t.RadioConfig(**RADIO)),
        "clip_classifier": (
            t.CLIPForImageClassification,
            t.CLIPConfig(text_config=TEXT, vision_config=VIT, num_labels=5),
        ),
        "metaclip2_classifier": (
            t.MetaClip2ForImageClassification,
            t.MetaClip2Config(text_config=TEXT, vision_config=VIT, num_labels=5),
        ),
        "pixio": (t.PixioModel, t.PixioConfig(**DINO, n_cls_tokens=3)),
        "tipsv2": (t.Tipsv2Model, t.Tipsv2Config(text_config=TEXT | {"hidden_size": 24}, vision_config=TIPS)),
        "tipsv2_giant": (t.Tipsv2VisionModel, t.Tipsv2VisionConfig(**TIPS | {"mlp_ratio": 2, "use_swiglu_ffn": True})),
    }


def expected(model: Any, pixels: np.ndarray, native: bool) -> dict[str, np.ndarray]:
    """What a model gives for pixels (B, C, H, W)."""
    if type(model).__name__ in ("SiglipModel", "CLIPModel", "Tipsv2Model"):
        model = model.vision_model
    if type(model).__name__ == "ViTMAEForPreTraining":
        model = model.vit
    if type(model).__name__ == "Siglip2VisionModel":
        return siglip2(model, pixels)
    if type(model).__name__ == "RadioModel":
        return radio(model, pixels)
    if type(model).__name__ == "BeitForMaskedImageModeling":
        return beit_pretrained(model, pixels)
    arguments = inspect.signature(model.forward).parameters
    passes_on = type(model).__name__ in ("CLIPForImageClassification", "MetaClip2ForImageClassification")
    asked = not native and ("interpolate_pos_encoding" in arguments or passes_on)
    extra: dict[str, Any] = {"interpolate_pos_encoding": True} if asked else {}
    if type(model).__name__ == "ViTMAEModel":  # it shuffles the patches by this noise, and removes those of mask_ratio
        extra["noise"] = torch.arange(pixels.shape[2] * pixels.shape[3] // 16.0).expand(len(pixels), -1)
    with torch.no_grad():
        outputs = model(torch.from_numpy(pixels), output_hidden_states=True, **extra)
    # a tower inside a whole model gives no hidden states in transformers 4.57; the same tower alone does
    found = dict(zip(("embeddings", "block"), outputs.hidden_states or ()))
    for name in ("last_hidden_state", "pooler_output", "logits", "cls_logits", "distillation_logits", "image_embeds"):
        if outputs.get(name) is not None:
            found[name] = outputs[name]
    if type(model).__name__ == "ViTMAEModel":
        found["pooler_output"] = outputs.last_hidden_state[:, 0]
    if type(model).__name__ == "VitPoseBackbone":
        found |= {"last_hidden_state": outputs.feature_maps[-1], "pooler_output": outputs.feature_maps[-1].mean(dim=1)}
    if type(model).__name__ == "Data2VecVisionModel":  # which has no pooling layer
        found["pooler_output"] = outputs.last_hidden_state[:, 1:].mean(dim=1)
    return {name: value.numpy() for name, value in found.items()}


def beit_pretrained(model: Any, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """The hidden states that BEiT predicts visual tokens from, after their norm, and the mean of their patches."""
    with torch.no_grad():
        outputs = model.beit(torch.from_numpy(pixels), output_hidden_states=True)
        hidden = model.layernorm(outputs.last_hidden_state)
    found = dict(zip(("embeddings", "block"), outputs.hidden_states))
    found |= {"last_hidden_state": hidden, "pooler_output": hidden[:, 1:].mean(dim=1)}
    return {name: value.numpy() for name, value in found.items()}


def radio(model: Any, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What C-RADIO gives for pixels that are normalised already: it normalises them itself."""
    conditioner = model.input_conditioner
    with torch.no_grad():
        given = torch.from_numpy(pixels) * conditioner.norm_std + conditioner.norm_mean
        outputs = model(given, output_hidden_states=True)
    found = dict(zip(("embeddings", "block"), outputs.hidden_states))
    found |= {"last_hidden_state": outputs.last_hidden_state, "pooler_output": outputs.summary}
    return {name: value.numpy() for name, value in found.items()}


def zero_shot(model: Any, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Five texts at length 1, scale and bias of CLIP or SigLIP, and the logits (2, 5) of images and texts."""
    tokens = torch.from_numpy(np.random.default_rng(1).integers(3, TEXT["vocab_size"], (5, 6)))
    with torch.no_grad():
        outputs = model(input_ids=tokens, pixel_values=torch.from_numpy(pixels))
        found = {"texts": outputs.text_embeds, "logits": outputs.logits_per_image, "scale": model.logit_scale.exp()}
    if hasattr(model, "logit_bias"):
        found["bias"] = model.logit_bias.detach()
    return {f"zero_shot.{name}": value.numpy() for name, value in found.items()}


def siglip2(model: Any, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What SigLIP 2 gives for images all of one size, cut into patches as its image processor does."""
    batch, channels, height, width = pixels.shape
    rows, columns, side = height // 4, width // 4, 4
    patches = pixels.reshape(batch, channels, rows, side, columns, side).transpose(0, 2, 4, 3, 5, 1)
    with torch.no_grad():
        outputs = model(
            torch.from_numpy(patches.reshape(batch, rows * columns, -1).copy()),
            pixel_attention_mask=torch.ones(batch, rows * columns, dtype=torch.int64),
            spatial_shapes=torch.tensor([[rows, columns]] * batch),
            output_hidden_states=True,
        )
    found = dict(zip(("embeddings", "block"), outputs.hidden_states))
    found |= {name: outputs[name] for name in ("last_hidden_state", "pooler_output")}
    return {name: value.numpy() for name, value in found.items()}


def write_flax(folder: Path, model_class: Any, config: Any) -> None:
    """One golden folder of a Flax class, which only transformers 4.57 has: flax_model.msgpack."""
    import jax

    model = model_class(config)
    generator = np.random.default_rng(0)
    model.params = jax.tree.map(lambda leaf: leaf + 0.2 * generator.normal(size=leaf.shape).astype("f4"), model.params)
    model.save_pretrained(folder)
    pixels = generator.normal(size=(2, 3, 16, 16)).astype(np.float32)
    outputs = model(pixels, output_hidden_states=True)
    arrays = {"pixels": pixels, "embeddings": outputs.hidden_states[0], "block": outputs.hidden_states[1]}
    arrays |= {name: outputs[name] for name in ("logits", "last_hidden_state", "pooler_output") if name in outputs}
    np.savez_compressed(folder / "expected.npz", **{f"native.{name}": value for name, value in arrays.items()})
    (folder / "versions.txt").write_text(f"transformers {transformers.__version__}, jax {jax.__version__}\n")


def write(folder: Path, model_class: Any, config: Any) -> None:
    """One golden folder."""
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # far from the zeros and ones that an importer could forget unseen
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    generator = np.random.default_rng(0)
    arrays = {}
    side = getattr(config, "max_img_size", 16)
    sizes = {"native": (24, 16)} if folder.name == "vitpose" else {"native": (side, side), "other": (12, 24)}
    for kind, size in sizes.items():  # ViTPose knows no other size
        pixels = generator.normal(size=(2, 3, *size)).astype(np.float32)
        results = expected(model, pixels, kind == "native")
        arrays |= {f"{kind}.{name}": value for name, value in {"pixels": pixels, **results}.items()}
    if folder.name in ("siglip_text_model", "clip_model"):
        arrays |= zero_shot(model, arrays["native.pixels"])
    np.savez_compressed(folder / "expected.npz", **arrays)
    (folder / "versions.txt").write_text(f"transformers {transformers.__version__}, torch {torch.__version__}\n")
    if transformers.__version__.startswith("5") and folder.name in ("vit", "dinov2_giant"):
        inner = folder.with_name(f"{folder.name}_v5_names")  # as version 5 has the tensors in memory
        inner.mkdir(exist_ok=True)
        save_file(model.state_dict(), inner / "model.safetensors", metadata={"format": "pt"})
        for name in ("config.json", "expected.npz", "versions.txt"):
            (inner / name).write_bytes((folder / name).read_bytes())


def main() -> None:
    """Write those of transformers, with 4.57 FlaxViT's too, with 5 those of all other libraries."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for name, (model_class, config) in cases().items():
        write(target / name, model_class, config)
    if hasattr(transformers, "FlaxViTForImageClassification"):
        t = transformers
        write_flax(target / "flax_vit", t.FlaxViTForImageClassification, t.ViTConfig(**VIT, num_labels=5))
        giant = t.Dinov2Config(**DINO, use_swiglu_ffn=True)
        write_flax(target / "flax_dinov2_giant", t.FlaxDinov2Model, giant)
    else:
        others.write_all(target)


if __name__ == "__main__":
    main()
