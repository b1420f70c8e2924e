"""Names of activations in config.json files, and ours for the same function."""

from typing import Any

# transformers has these beside the names that are ours too; each is one of ours but for the last digits.
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
    """Fields of our config with our name of `hidden_act`; one that is not here is refused by the config's rule."""
    named = ours.get("hidden_act")
    return ours | {"hidden_act": ALIASES[named]} if isinstance(named, str) and named in ALIASES else ours
