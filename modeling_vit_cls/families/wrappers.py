"""Names of wrappers around a model: a prefix that all tensors of a file share."""

from collections.abc import Callable, Mapping

from ..files.tensor import Tensor


def unwrapped(
    tensors: Mapping[str, Tensor], own: Callable[[Mapping[str, Tensor]], tuple[str, ...]]
) -> tuple[dict[str, Tensor], str]:
    """The tensors without the prefixes that all of them share, and the removed prefix ("" if none).

    DataParallel, torch.compile, Lightning, averages of the weights and many programs keep a model in an attribute, and
    the name of the attribute is such a prefix. `own` gives the prefixes of the tensors' family, which removes them.
    """
    result, removed = dict(tensors), ""
    while prefix := _shared(list(result), own(result)):
        removed += prefix
        result = {name.removeprefix(prefix): tensor for name, tensor in result.items()}
    return result, removed


def _shared(names: list[str], own: tuple[str, ...]) -> str:
    """The first part, up to a dot, that all names share, or "". A single module of the model is no wrapper of one.

    A prefix of the family is one only where names behind it begin with it again: `self.vit = ViTFor...(...)`.
    """
    first = f"{names[0].partition('.')[0]}." if names else ""
    if not all(name.startswith(first) for name in names):
        return ""
    behind = [name.removeprefix(first) for name in names]
    is_own = any(prefix.startswith(first) for prefix in own) and not any(name.startswith(first) for name in behind)
    return first if any("." in name for name in behind) and not is_own else ""
