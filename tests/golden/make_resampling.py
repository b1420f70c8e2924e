"""Write resample_patch_embed.npz with timm: .venv-5-torch/bin/python tests/golden/make_resampling.py; needs torch.

It holds patch embeddings (D, C, P, P) and what timm makes of them for patches of another size, and the logits of the
golden checkpoint timm_vit (patches of 4 pixels, 16 x 16 images) loaded for patches of 6 pixels, 12 x 24 images.
"""

import json
from pathlib import Path

import cpu_torchvision  # noqa: F401 (before timm, which imports torchvision)
import numpy as np
import timm
import torch
from safetensors.torch import load_file
from timm.layers import resample_patch_embed
from timm.models.vision_transformer import checkpoint_filter_fn

HERE = Path(__file__).parent
SIDES = [(16, 8), (8, 16), (16, 14), (14, 16), (7, 4), (4, 7), (5, 1), (1, 3)]


def main() -> None:
    """Write the file."""
    generator = np.random.default_rng(0)
    arrays = {"versions": np.array(f"timm {timm.__version__}, torch {torch.__version__}")}
    for old, new in SIDES:
        kernel = generator.normal(size=(3, 2, old, old)).astype(np.float32)
        resampled = resample_patch_embed(torch.from_numpy(kernel), [new, new])
        arrays |= {f"{old}_to_{new}.old": kernel, f"{old}_to_{new}.new": resampled.numpy()}

    fields = json.loads((HERE / "timm_vit" / "config.json").read_text())
    sizes = {**fields["model_args"], "patch_size": 6, "img_size": (12, 24)}
    model = timm.create_model(fields["architecture"], **sizes).eval()
    model.load_state_dict(checkpoint_filter_fn(load_file(HERE / "timm_vit" / "model.safetensors"), model))
    pixels = generator.normal(size=(2, 3, 12, 24)).astype(np.float32)
    with torch.no_grad():
        arrays |= {"model.pixels": pixels, "model.logits": model(torch.from_numpy(pixels)).numpy()}
    np.savez_compressed(HERE / "resample_patch_embed.npz", **arrays)


if __name__ == "__main__":
    main()
