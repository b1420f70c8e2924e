"""Other libraries' names of activations, and our names for the same functions."""

from typing import Any

# Further names of transformers. Each function equals ours except for rounding.
ALIASES = {
    "gelu_python": "gelu",
    "gelu_new": "gelu_pytorch_tanh",
    "gelu_fast": "gelu_pytorch_tanh",
    "gelu_accurate": "gelu_pytorch_tanh",
    "gelu_python_tanh": "gelu_pytorch_tanh",
    "gelu_tanh": "gelu_pytorch_tanh",
    "swish": "silu",
}


def with_our_activation(ours: dict[str, Any]) -> dict[str, Any]:
    """Config fields with our name of `hidden_act`. An unknown name stays, and the config reports it."""
    name = ours.get("hidden_act")
    return ours | {"hidden_act": ALIASES[name]} if isinstance(name, str) and name in ALIASES else ours
