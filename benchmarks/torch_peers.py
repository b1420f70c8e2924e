"""Peers in PyTorch: timm and transformers. Each is a function from a Work to a Step."""

import sys
from pathlib import Path
from typing import Any

import torch

from .work import SIZES, Step, Work, repeated


def timm(work: Work, compiled: bool = False) -> Step:
    """VisionTransformer of timm. For bfloat16, weights are cast in inference, and training uses autocast."""
    if sys.modules.get("torchvision", ...) is None:  # see benchmarks/__init__.py
        del sys.modules["torchvision"]
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "golden"))
        import cpu_torchvision  # noqa: F401
    from timm.models.vision_transformer import VisionTransformer

    width, heads = SIZES[work.size]
    with torch.device(work.device):
        model = VisionTransformer(embed_dim=width, num_heads=heads, depth=work.layers)
    return step_of(model, work, compiled)


def timm_compiled(work: Work) -> Step:
    """The model of timm with torch.compile."""
    return timm(work, compiled=True)


def hf_torch(work: Work, compiled: bool = False) -> Step:
    """ViTForImageClassification of transformers in PyTorch."""
    from transformers import ViTConfig, ViTForImageClassification

    with torch.device(work.device):
        model = ViTForImageClassification(ViTConfig(**work.sizes, num_labels=1000))
    return step_of(model, work, compiled)


def hf_compiled(work: Work) -> Step:
    """The model of transformers with torch.compile."""
    return hf_torch(work, compiled=True)


def step_of(model: Any, work: Work, compiled: bool) -> Step:
    """An inference or training step of a PyTorch model, which is on the work's device."""
    dtype, device = getattr(torch, work.dtype), torch.device(work.device)
    pixels = torch.from_numpy(work.pixels).to(device)
    labels = torch.from_numpy(work.labels).to(device)
    if work.kind == "inference":
        model, pixels = model.eval().to(dtype), pixels.to(dtype)
        call = torch.compile(model) if compiled else model

        def infer() -> None:
            with torch.inference_mode():
                call(pixels)

        return repeated(infer, lambda _: wait(device))
    optimizer = torch.optim.AdamW(model.train().parameters(), 5e-4, weight_decay=0.05, fused=True)
    call = torch.compile(model) if compiled else model

    def train() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=work.dtype == "bfloat16"):
            logits = call(pixels)
        logits = getattr(logits, "logits", logits)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return repeated(train, lambda _: wait(device))


def gemm(work: Work) -> Step:
    """One matrix product by PyTorch in the work's type."""
    rows, inner, columns = work.product
    options: dict[str, Any] = {"dtype": getattr(torch, work.dtype), "device": work.device}
    a, b = torch.ones(rows, inner, **options), torch.ones(inner, columns, **options)

    return repeated(lambda: torch.matmul(a, b), lambda _: wait(a.device))


def wait(device: torch.device) -> None:
    """Wait until the device is done. On a CPU, calls return when they are done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
