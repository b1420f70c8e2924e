"""The strict check of an opened checkpoint: each tensor against the shapes of its config."""

from ..errors import CheckpointError
from ..files.digests import architecture_digest
from ..files.tensor import FLOATS, Tensor
from ..nn.vit import FlaxViTClsForImageClassificationModule, FlaxViTClsModule
from .family import NATIVE, canonical
from .open import Source, has_head, parameter_shapes
from .sizes import fields_shown


def checked_tensors(source: Source, allow_missing: bool) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a checkpoint, each checked against its config, and the names of missing ones.

    Raises CheckpointError for a tensor that is missing (unless `allow_missing`), unexpected, of another shape, or not
    floating-point. Poolers and pooling heads of other libraries that the config does not use are left out.
    """
    config, tensors = source.config, source.tensors
    _check_stamps(source)
    module = FlaxViTClsForImageClassificationModule if has_head(source) else FlaxViTClsModule
    shapes = parameter_shapes(module, config)
    full_names = {canonical(name): name for name in shapes}
    expected = {name: shapes[full_name] for name, full_name in full_names.items()}
    for name, tensor in tensors.items():
        where = f"{tensor.file}: tensor {tensor.name!r}"
        if name not in expected:
            if source.family is not NATIVE and name.startswith(_unused_heads(source)):
                continue
            raise CheckpointError(f"{where} does not belong to the model of config.json{_remedy(source)}")
        if tensor.shape != expected[name].shape:
            problem = f"has shape {tensor.shape}, expected {expected[name].shape} by config.json"
            raise CheckpointError(f"{where} {problem}{_remedy(source)}")
        if tensor.dtype not in FLOATS.values():
            raise CheckpointError(f"{where} is {tensor.dtype}, expected floating-point of 16 to 64 bits")
    missing = sorted(set(expected) - set(tensors))
    if missing and not allow_missing:
        file = min((str(tensor.file) for tensor in tensors.values()), default=str(source.path))
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        problem = f"tensor {full_names[missing[0]]!r}{more} missing"
        spare = f", and its tensor {source.spare[0]!r} to no module of the model" if source.spare else ""
        raise CheckpointError(
            f"{file}: {problem}; the file does not belong to this config.json{spare}{_remedy(source)}"
        )
    return {name: tensor for name, tensor in tensors.items() if name in expected}, missing


def _remedy(source: Source) -> str:
    """What to do where the tensors are those of another model than config.json describes. Empty if it tells all."""
    if source.family.override is NATIVE.override:
        return ""
    shown = {name: value for name, (value, _) in fields_shown(source.tensors).items()}
    if shown["layer_scale_init_value"] and source.config.layer_scale_init_value:
        del shown["layer_scale_init_value"]  # the tensors show only whether there is one
    others = [f"{name}={value!r}" for name, value in shown.items() if getattr(source.config, name) != value]
    remedy = "if it was built with arguments that config.json leaves out, give them to from_pretrained"
    return f"; by its tensors the model has {', '.join(others)}: {remedy}" if others else ""


def _unused_heads(source: Source) -> tuple[str, ...]:
    """Prefixes of the names of heads that a file of another library may contain, but its classifier does not use."""
    heads = () if source.config.readout == "map" else ("readout.",)
    return (*heads, *source.family.unused_by_classifier) if has_head(source) else heads


def _check_stamps(source: Source) -> None:
    """Raise CheckpointError if the weight files belong to several checkpoints, or not to this config.json."""
    stamps = {tensor.stamp: tensor.file for tensor in source.tensors.values() if tensor.stamp is not None}
    if len(stamps) > 1:
        files = " and ".join(sorted(str(file) for file in stamps.values())[:2])
        raise CheckpointError(f"{files} belong to two checkpoints; download or save them again")
    for stamp, file in stamps.items():
        if stamp.split("-")[0] != architecture_digest(source.config):
            remedy = "restore that config.json, and give your changes to from_pretrained as keywords"
            raise CheckpointError(f"{file}: was saved with another config.json than the one in its folder; {remedy}")
