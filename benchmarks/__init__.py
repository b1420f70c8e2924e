"""What this package is measured by; each module is a program."""

import sys
from importlib.metadata import PackageNotFoundError, version

# As if it were not installed: its operators do not load beside a PyTorch without CUDA. timm gets it all the same.
try:
    _hidden = version("torch").endswith("+cpu")
except PackageNotFoundError:
    _hidden = True
if _hidden:
    sys.modules.setdefault("torchvision", None)  # pyright: ignore[reportArgumentType]
