"""Golden checkpoints of timm, torchvision, Meta and big_vision; see make.py. timm reads Meta's and big_vision's files.

The positions of another image size are resampled as each one's own code does, and given to the model of that size.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cpu_torchvision  # noqa: F401 (before timm, which imports torchvision)
import numpy as np
import open_clip
import timm
import torch
import torchvision
from safetensors.torch import save_file
from scipy.ndimage import zoom
from timm.layers import SwiGLUPacked
from torch.nn.functional import interpolate

SIZES = {"native": (16, 16), "other": (12, 24)}
TIMM = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2, "num_classes": 5}
TIMM |= {"dynamic_img_size": True}
# Without a config.json a head has 64 features.
WIDE = TIMM | {"embed_dim": 64, "num_heads": 1, "mlp_ratio": 1, "num_classes": 0}
EVA = {"global_pool": "token", "swiglu_align_to": 8}
# Arguments that are classes, which no config.json tells.
CLASSES = {"mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU}
PACKED = {**CLASSES, "init_values": 1e-5, "global_pool": ""}

Arrays = dict[str, np.ndarray]


def timm_cases() -> dict[str, dict[str, Any]]:
    """Name -> arguments of timm.create_model, beside the sizes of TIMM."""
    return {
        "timm_vit": {"model_name": "vit_tiny_patch16_224"},
        "timm_registers_gap": {"model_name": "vit_medium_patch16_reg4_gap_256"},
        "timm_deit_distilled": {"model_name": "deit_tiny_distilled_patch16_224"},
        "timm_deit3": {"model_name": "deit3_small_patch16_224"},
        "timm_dinov2": {"model_name": "vit_small_patch14_dinov2", "num_classes": 0},
        "timm_dinov2_registers": {"model_name": "vit_small_patch14_reg4_dinov2", "num_classes": 0},
        "timm_dinov2_giant": {"model_name": "vit_giant_patch14_dinov2", "num_classes": 0, "mlp_ratio": 4},
        "timm_dinov3": {"model_name": "vit_small_patch16_dinov3_qkvb"},
        "timm_dinov3_gated": {"model_name": "vit_huge_plus_patch16_dinov3", "num_classes": 0, **EVA},
        "timm_clip": {"model_name": "vit_base_patch16_clip_quickgelu_224"},
        "timm_siglip": {"model_name": "vit_so400m_patch16_siglip_256"},
        "timm_so150m": {"model_name": "vit_so150m_patch16_reg4_gap_256"},
        "timm_flexivit": {"model_name": "flexivit_small", "dynamic_img_size": False},
        "timm_eva_giant": {"model_name": "eva_giant_patch14_224"},
        "timm_intern": {"model_name": "vit_intern300m_patch14_448", "num_classes": 0},
        "timm_beit": {"model_name": "beit_base_patch16_224"},
        "timm_virchow": {"model_name": "vit_huge_patch14_224", "num_classes": 0, "reg_tokens": 4, **PACKED},
    }


def noisy(model: Any) -> Any:
    """A model far from the zeros and ones that an importer could forget unseen."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def timm_outputs(model: Any, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a timm model gives, at each depth."""
    first: dict[str, torch.Tensor] = {}
    hook = lambda _, inputs, output: first.update(embeddings=inputs[0], block=output)  # noqa: E731
    handle = model.blocks[0].register_forward_hook(hook)
    with torch.no_grad():
        result = model(pixels)
        handle.remove()
        hidden = model.forward_features(pixels)
    if result.ndim == 3:  # without a pooling
        result = result[:, 0]
    return {**first, "last_hidden_state": hidden, "logits" if model.num_classes else "pooler_output": result}


def save(
    folder: Path, outputs: Callable[[str, torch.Tensor], dict[str, torch.Tensor]], versions: str, sizes=SIZES
) -> None:
    """Write pixels and what a model gives for them at each size."""
    generator, arrays = np.random.default_rng(0), {}
    for kind, size in sizes.items():
        pixels = generator.normal(size=(2, 3, *size)).astype(np.float32)
        found = outputs(kind, torch.from_numpy(pixels))
        arrays |= {f"{kind}.pixels": pixels} | {f"{kind}.{name}": value.numpy() for name, value in found.items()}
    np.savez_compressed(folder / "expected.npz", **arrays)
    (folder / "versions.txt").write_text(f"{versions}, torch {torch.__version__}\n")


def write_timm(folder: Path, arguments: dict[str, Any]) -> None:
    """One golden folder of timm's."""
    arguments = {**TIMM, **arguments}
    if folder.name == "timm_beit":
        del arguments["dynamic_img_size"]
    model = noisy(timm.create_model(**arguments))
    left_out = {"model_name", "num_classes", *CLASSES}
    sizes = {name: value for name, value in arguments.items() if name not in left_out}
    for name in CLASSES:
        model._model_args.pop(name, None)  # timm refuses to write it
    timm.models.save_for_hf(model, folder, model_args=sizes, safe_serialization=True)
    (folder / "config.json").chmod(0o644)
    models = {"native": model, "other": model}
    if folder.name == "timm_beit":
        models["other"] = beit_of_other_size(arguments, model)
    elif not arguments["dynamic_img_size"]:  # positions are resampled when the model is loaded
        name = f"local-dir:{folder}"
        models["other"] = timm.create_model(name, pretrained=True, img_size=SIZES["other"]).eval()
    save(folder, lambda kind, pixels: timm_outputs(models[kind], pixels), f"timm {timm.__version__}")


def beit_of_other_size(arguments: dict[str, Any], model: Any) -> Any:
    """BEiT with tables resized bilinear, as transformers does; timm's own way are splines on a geometric grid."""
    state = model.state_dict()
    for name in (name for name in state if name.endswith("bias_table")):
        offsets, others = state[name][:-3].T.reshape(1, -1, 7, 7), state[name][-3:]
        resized = interpolate(offsets, size=(5, 11), mode="bilinear")
        state[name] = torch.cat([resized[0].flatten(1).T, others])
    other = timm.create_model(**{**arguments, "img_size": SIZES["other"]}).eval()
    other.load_state_dict(state)
    return other


def write_radio(folder: Path) -> None:
    """One golden folder in the names of NVIDIA's C-RADIOv3-B, which timm's own filter reads, with a table of 8 x 8."""
    folder.mkdir(exist_ok=True)
    arguments = {**WIDE, "model_name": "vit_base_patch16_radio_v3", "reg_tokens": 4, "dynamic_img_size": False}
    state = noisy(timm.create_model(**{**arguments, "img_size": 32})).state_dict()
    theirs = {
        "patch_generator.embedder.weight": state["patch_embed.proj.weight"].flatten(1),
        "patch_generator.pos_embed": state["pos_embed"],
        "patch_generator.cls_token.token": torch.cat([state["cls_token"], state["reg_token"]], dim=1)[0],
        **{name.replace("gamma", "grandma"): tensor for name, tensor in state.items() if name.startswith("blocks.")},
    }
    theirs = {f"radio_model.model.{name}": tensor.contiguous() for name, tensor in theirs.items()}
    for name in ("mean", "std"):
        theirs[f"radio_model.input_conditioner.norm_{name}"] = torch.full((3, 1, 1), 0.5)
    theirs["radio_model.summary_idxs"] = torch.arange(2)
    save_file(theirs, folder / "model.safetensors")
    teachers = [{"name": "siglip2"}, {"name": "dino_v2"}, {"name": "sam", "use_summary": False}]
    args = {"model": "vit_base_patch16_224", "teachers": teachers, "cls_token_per_teacher": True}
    fields = {"architectures": ["RADIOModel"], "model_type": "", "version": "c-radio_v3-b", "patch_size": 4}
    fields |= {"preferred_resolution": [16, 16], "vitdet_window_size": None, "args": args}
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
    sizes, models = {"native": (32, 32), "other": (12, 24)}, {}
    for kind, size in sizes.items():
        models[kind] = timm.create_model(**{**arguments, "img_size": size}).eval()
        how = {"interpolation": "bilinear", "antialias": False, "align_corners": True}  # timm's, for this name
        models[kind].load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(theirs, models[kind], **how))

    def outputs(kind: str, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        found = timm_outputs(models[kind], pixels)
        return found | {"pooler_output": found["last_hidden_state"][:, :2].flatten(1)}  # of which timm reads the first

    save(folder, outputs, f"timm {timm.__version__}", sizes)


def write_patch_sizes(folder: Path) -> None:
    """What timm gives for a golden FlexiViT with patches of other sizes: patch_sizes.npz."""
    arrays = {"pixels": np.random.default_rng(1).normal(size=(1, 3, 24, 48)).astype(np.float32)}
    for side in (2, 6, 8):
        sizes = {"patch_size": side, "img_size": (24, 48)}
        model = timm.create_model(f"local-dir:{folder}", pretrained=True, **sizes).eval()
        found = timm_outputs(model, torch.from_numpy(arrays["pixels"]))
        arrays |= {f"{side}.{name}": found[name].numpy() for name in ("embeddings", "logits")}
    np.savez_compressed(folder / "patch_sizes.npz", **arrays)


def write_torchvision(folder: Path) -> None:
    """One golden folder of torchvision's, whose images are square."""
    folder.mkdir(exist_ok=True)
    vit = torchvision.models.vision_transformer
    fields = {"patch_size": 4, "num_layers": 2, "num_heads": 2, "hidden_dim": 128, "mlp_dim": 16, "num_classes": 5}
    model = noisy(vit.VisionTransformer(image_size=16, **fields))
    larger = vit.VisionTransformer(image_size=24, **fields).eval()
    larger.load_state_dict(vit.interpolate_embeddings(24, 4, model.state_dict().copy()))
    save_file(model.state_dict(), folder / "model.safetensors")

    def outputs(kind: str, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        chosen = model if kind == "native" else larger
        first: dict[str, torch.Tensor] = {}
        hook = lambda _, inputs, output: first.update(embeddings=inputs[0], block=output)  # noqa: E731
        chosen.encoder.layers[0].register_forward_hook(hook)
        chosen.encoder.register_forward_hook(lambda _, __, output: first.update(last_hidden_state=output))
        with torch.no_grad():
            return {"logits": chosen(pixels), **first}

    sizes = {"native": (16, 16), "other": (24, 24)}
    save(folder, outputs, f"torchvision {torchvision.__version__}", sizes)


def at_other_size(arguments: dict[str, Any], state: dict[str, torch.Tensor], positions: Callable) -> Any:
    """The model of the other size, with the positions that `positions` makes of the native grid (h, w, D)."""
    model = timm.create_model(**{**arguments, "img_size": SIZES["other"]}).eval()
    state = dict(state)
    if "pos_embed" in state:
        table = state["pos_embed"][0]
        prefix, grid = table[: len(table) - 16], table[len(table) - 16 :].reshape(4, 4, -1)
        rows, columns = (side // 4 for side in SIZES["other"])
        resized = positions(grid, rows, columns).reshape(rows * columns, -1)
        state["pos_embed"] = torch.cat([prefix, resized])[None]
    model.load_state_dict(state)
    return model


def meta_offset(grid: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Meta's DINO and DINOv2: a scale that is a little larger than asked for."""
    scale = ((rows + 0.1) / len(grid), (columns + 0.1) / grid.shape[1])
    return interpolate(grid.permute(2, 0, 1)[None], scale_factor=scale, mode="bicubic")[0].permute(1, 2, 0)


def meta_registers(grid: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Meta's DINOv2 with registers."""
    image = grid.permute(2, 0, 1)[None]
    return interpolate(image, size=(rows, columns), mode="bicubic", antialias=True)[0].permute(1, 2, 0)


def big_vision_zoom(grid: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """big_vision and vision_transformer."""
    return torch.from_numpy(zoom(grid.numpy(), (rows / len(grid), columns / grid.shape[1], 1), order=1))


def meta_dinov2(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """DINOv2 in Meta's names: [CLS] has a position, registers come after it, SwiGLU is named otherwise."""
    state = dict(state)
    gated = state["blocks.0.mlp.fc1.weight"].shape[0] != state["blocks.0.mlp.fc2.weight"].shape[1]
    if "reg_token" in state:
        state["register_tokens"] = state.pop("reg_token")
        state["pos_embed"] = torch.cat([torch.randn(1, 1, 64) * 0.2, state["pos_embed"]], dim=1)
    if gated:
        state = {name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): t for name, t in state.items()}
        state = {
            name.replace("blocks.1.", "blocks.1.1.").replace("blocks.0.", "blocks.0.0."): t for name, t in state.items()
        }
    return state | {"mask_token": torch.zeros(1, 64)}


def meta_dinov3(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """DINOv3 in Meta's names: one bias for query, key and value, the key's masked."""
    found = {"mask_token": torch.zeros(1, 64), "rope_embed.periods": torch.ones(16)}
    gated = any("fc1_g" in name for name in state)
    names = {"reg_token": "storage_tokens", "gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}
    names |= {"mlp.fc1_g": "mlp.w1", "mlp.fc1_x": "mlp.w2", "mlp.fc2": "mlp.w3"} if gated else {}
    for name, tensor in state.items():
        if name.endswith("q_bias"):
            value = state[name.replace("q_bias", "v_bias")]
            masked = torch.cat([torch.ones(64), torch.zeros(64), torch.ones(64)])
            bias = torch.cat([tensor, torch.full((64,), 7.0), value])  # what is masked may be anything
            found |= {name.replace("q_bias", "qkv.bias"): bias, name.replace("q_bias", "qkv.bias_mask"): masked}
        elif not name.endswith("v_bias"):
            for timms, metas in names.items():
                name = name.replace(timms, metas)
            found[name] = tensor
    return found


def meta_cases() -> dict[str, tuple[dict[str, Any], Callable, Callable]]:
    """Name -> arguments of timm.create_model, its names to Meta's, how Meta resamples positions."""
    gated = {"swiglu_mlp": True, "swiglu_align_to": 8}
    return {
        "meta_dino": ({"model_name": "vit_small_patch16_224"}, dict, meta_offset),
        "meta_dinov2": ({"model_name": "vit_small_patch14_dinov2"}, meta_dinov2, meta_offset),
        "meta_dinov2_giant": ({"model_name": "vit_giant_patch14_dinov2", "mlp_ratio": 2.75}, meta_dinov2, meta_offset),
        "meta_dinov2_registers": ({"model_name": "vit_small_patch14_reg4_dinov2"}, meta_dinov2, meta_registers),
        "meta_dinov3": (
            {"model_name": "vit_small_patch16_dinov3_qkvb", "global_pool": "token", "img_size": 224},
            meta_dinov3,
            meta_offset,
        ),
        "meta_dinov3_gated": (
            {"model_name": "vit_huge_plus_patch16_dinov3_qkvb", "global_pool": "token", "img_size": 224, **gated},
            meta_dinov3,
            meta_offset,
        ),
    }


def write_meta(folder: Path, arguments: dict[str, Any], renamed: Callable, positions: Callable) -> None:
    """One golden folder in Meta's names, which timm's own filter reads."""
    folder.mkdir(exist_ok=True)
    arguments = {**WIDE, **arguments}
    model = noisy(timm.create_model(**arguments))
    theirs = {name: tensor.clone().contiguous() for name, tensor in renamed(model.state_dict()).items()}
    save_file(theirs, folder / "model.safetensors")
    module = timm.models.eva if "dinov3" in folder.name else timm.models.vision_transformer
    unchunked = {
        name.replace("blocks.0.0.", "blocks.0.").replace("blocks.1.1.", "blocks.1."): t for name, t in theirs.items()
    }
    state = module.checkpoint_filter_fn(unchunked, model)
    model.load_state_dict(state)
    other = model if "dinov3" in folder.name else at_other_size(arguments, state, positions)
    models = {"native": model, "other": other}
    save(folder, lambda kind, pixels: timm_outputs(models[kind], pixels), f"timm {timm.__version__}")


def npz_arrays(old: bool, pooled: bool) -> Arrays:
    """Random parameters as vision_transformer (`old` numbering) or big_vision (blocks scanned over) stores them."""
    generator = np.random.default_rng(0)

    def layer(*shape: int, name: str = "kernel", bias: tuple[int, ...] | None = None) -> Arrays:
        draw = lambda shape, scale: (scale * generator.normal(size=shape)).astype(np.float32)  # noqa: E731
        kernel = draw(shape, shape[0] ** -0.5 if name == "kernel" else 0.2) + (name == "scale")
        return {name: kernel.astype(np.float32), "bias": draw(shape[-1:] if bias is None else bias, 0.2)}

    def under(prefix: str, arrays: Arrays) -> Arrays:
        return {f"{prefix}/{name}": array for name, array in arrays.items()}

    def attention(prefix: str) -> Arrays:
        parts = [under(f"{prefix}/{part}", layer(24, 3, 8, bias=(3, 8))) for part in ("query", "key", "value")]
        return {
            name: array for part in [*parts, under(f"{prefix}/out", layer(3, 8, 24))] for name, array in part.items()
        }

    def mlp(prefix: str) -> Arrays:
        return under(f"{prefix}/Dense_0", layer(24, 48)) | under(f"{prefix}/Dense_1", layer(48, 24))

    def norm(prefix: str) -> Arrays:
        return under(prefix, layer(24, name="scale"))

    names = ("LayerNorm_2", "MultiHeadDotProductAttention_1", "MlpBlock_3")
    if not old:
        names = ("LayerNorm_1", "MultiHeadDotProductAttention_0", "MlpBlock_0")
    blocks = [norm("LayerNorm_0") | attention(names[1]) | norm(names[0]) | mlp(names[2]) for _ in range(2)]
    arrays = under("embedding", layer(4, 4, 3, 24)) | norm("Transformer/encoder_norm") | under("head", layer(24, 5))
    if old:
        arrays |= {f"Transformer/encoderblock_{i}/{name}": a for i in range(2) for name, a in blocks[i].items()}
        arrays["cls"] = 0.2 * generator.normal(size=(1, 1, 24)).astype(np.float32)
        arrays["Transformer/posembed_input/pos_embedding"] = generator.normal(size=(1, 17, 24)).astype(np.float32)
        return arrays
    stacked = {name: np.stack([block[name] for block in blocks]) for name in blocks[0]}
    arrays |= under("Transformer/encoderblock", stacked)
    arrays["pos_embedding"] = generator.normal(size=(1, 16, 24)).astype(np.float32)
    if pooled:
        arrays |= attention("MAPHead_0/MultiHeadDotProductAttention_0") | norm("MAPHead_0/LayerNorm_0")
        arrays |= mlp("MAPHead_0/MlpBlock_0") | {
            "MAPHead_0/probe": generator.normal(size=(1, 1, 24)).astype(np.float32)
        }
    return {f"params/{name}": array for name, array in arrays.items()}


def write_npz(folder: Path, old: bool, pooled: bool) -> None:
    """One golden folder with an npz, which timm reads too; it has GELU for tanh GELU unless told."""
    folder.mkdir(exist_ok=True)
    arrays = npz_arrays(old, pooled)
    np.savez(folder / "checkpoint.npz", **arrays)
    kind = {} if old else {"class_token": False, "global_pool": "map" if pooled else "avg", "fc_norm": False}
    arguments = {**TIMM, "model_name": "vit_tiny_patch16_224", "act_layer": "gelu_tanh", **kind}
    model = timm.create_model(**arguments).eval()
    model.load_pretrained(str(folder / "checkpoint.npz"))
    prefix = "" if old else "params/"
    with torch.no_grad():  # timm leaves a head of another size than its own alone
        model.head.weight.copy_(torch.from_numpy(arrays[f"{prefix}head/kernel"].T.copy()))
        model.head.bias.copy_(torch.from_numpy(arrays[f"{prefix}head/bias"]))
    models = {"native": model, "other": at_other_size(arguments, model.state_dict(), big_vision_zoom)}
    save(folder, lambda kind, pixels: timm_outputs(models[kind], pixels), f"timm {timm.__version__}")


def open_clip_cases() -> dict[str, dict[str, Any]]:
    """Name -> model_cfg of OpenCLIP, without its text tower."""
    sizes = {"width": 24, "head_width": 8, "layers": 2, "mlp_ratio": 1.5, "patch_size": 4, "image_size": 16}
    mean = {"no_ln_pre": True, "pool_type": "avg", "norm_kwargs": {"eps": 1e-3}}
    return {
        "open_clip": {"embed_dim": 8, "quick_gelu": True, "vision_cfg": sizes},
        "open_clip_mean": {
            "embed_dim": 24,
            "custom_text": True,
            "vision_cfg": {**sizes, **mean, "ls_init_value": 0.1, "act_kwargs": {"approximate": "tanh"}},
        },
        "open_clip_late_norm": {
            "embed_dim": 8,
            "vision_cfg": {**sizes, **mean, "final_ln_after_pool": True},
        },
    }


def open_clip_model(cfg: dict[str, Any], image_size: Any) -> Any:
    """An OpenCLIP model with a tiny text tower."""
    text = {"context_length": 8, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1}
    cfg = {**cfg, "vision_cfg": {**cfg["vision_cfg"], "image_size": image_size}, "text_cfg": text}
    kind = open_clip.CustomTextCLIP if cfg.pop("custom_text", False) else open_clip.CLIP
    return kind(**cfg).eval()


def write_open_clip(folder: Path, cfg: dict[str, Any]) -> None:
    """One golden folder of OpenCLIP's own layout."""
    folder.mkdir(exist_ok=True)
    model, other = noisy(open_clip_model(cfg, 16)), open_clip_model(cfg, SIZES["other"])
    save_file(model.state_dict(), folder / "open_clip_model.safetensors", {"format": "pt"})
    preprocess = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic", "resize_mode": "squash"}
    fields = {"model_cfg": cfg, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(fields, indent=2) + "\n")
    state = model.state_dict()
    open_clip.model.resize_pos_embed(state, other)
    other.load_state_dict(state)

    def outputs(kind: str, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        visual = (model if kind == "native" else other).visual
        results: dict[str, torch.Tensor] = {}
        hook = lambda _, inputs, output: results.update(embeddings=inputs[0], block=output)  # noqa: E731
        handle = visual.transformer.resblocks[0].register_forward_hook(hook)
        with torch.no_grad():
            embeds = visual(pixels)
            handle.remove()
            pooled, _ = visual._pool(visual.transformer(visual._embeds(pixels)))
        return {**results, "pooler_output": pooled, "image_embeds": embeds}

    save(folder, outputs, f"open_clip_torch {open_clip.__version__}")


def write_all(target: Path) -> None:
    """Write all of these golden folders."""
    for name, arguments in timm_cases().items():
        write_timm(target / name, arguments)
    write_radio(target / "nvidia_radio")
    write_patch_sizes(target / "timm_flexivit")
    write_torchvision(target / "torchvision")
    for name, cfg in open_clip_cases().items():
        write_open_clip(target / name, cfg)
    for name, case in meta_cases().items():
        write_meta(target / name, *case)
    for name, old, pooled in (("npz_augreg", True, False), ("npz_big_vision", False, False), ("npz_map", False, True)):
        write_npz(target / name, old, pooled)
