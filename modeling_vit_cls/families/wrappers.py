"""Names of wrappers around a model: a prefix that all tensors of a file share."""

from collections.abc import Mapping

from ..files.tensor import Tensor

# DataParallel, torch.compile, Lightning and other trainers, averages of the weights, whole training states.
_WRAPPERS = (
    "module.",
    "_orig_mod.",
    "model.",
    "backbone.",
    "ema.",
    "ema_model.",
    "model_ema.",
    "state_dict.",
)


def unwrapped(tensors: Mapping[str, Tensor], own: tuple[str, ...]) -> tuple[dict[str, Tensor], str]:
    """The tensors without the prefixes of wrappers that all of them have, and the removed prefix ("" if none).

    Prefixes in `own` are those of the family, which removes them itself.
    """
    removed, names = "", list(tensors)
    while names and (prefix := _shared(names, own)):
        removed += prefix
        names = [name.removeprefix(prefix) for name in names]
    return dict(zip(names, tensors.values())), removed


def _shared(names: list[str], own: tuple[str, ...]) -> str:
    """The wrapper's prefix that all names have, or ""."""
    return next((w for w in _WRAPPERS if w not in own and all(name.startswith(w) for name in names)), "")
