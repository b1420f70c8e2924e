"""Importing this makes torchvision importable beside a PyTorch without CUDA, for which it has no build.

Its wheel's operators do not load there, and its import stops at the first two that it looks up; the models use none.
"""

import torch

if torch.version.cuda is None:
    _library = torch.library.Library("torchvision", "DEF")  # lives as long as this module
    for _name in ("nms", "qnms"):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
