"""Benchmarks of the package against its peers; most modules are programs."""

import sys
from importlib.metadata import PackageNotFoundError, version

# Hide torchvision, whose operators do not load with a PyTorch for CPUs. For timm, torch_peers.py imports it itself.
try:
    _hidden = version("torch").endswith("+cpu")
except PackageNotFoundError:
    _hidden = True
if _hidden:
    sys.modules.setdefault("torchvision", None)  # pyright: ignore[reportArgumentType]
