"""What this package is measured by; each module is a program."""

import sys

# As if it were not installed: its operators do not load beside a PyTorch without CUDA. timm gets it all the same.
sys.modules.setdefault("torchvision", None)  # pyright: ignore[reportArgumentType]
