"""The manifest of an embedded dataset: what was embedded and how. All runs into one folder must agree on it."""

import json
import logging
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from flax.core import unfreeze
from flax.traverse_util import flatten_dict

from .. import __version__
from ..errors import CheckpointError, ConfigError, shorten
from ..files.digests import digest_of, stamp_of
from ..files.json_file import read_json
from ..names import EMBED

_PACKAGES = ("jax", "flax", "transformers", "datasets", "pyarrow", "numpy", "pillow")
_log = logging.getLogger(__name__)
# Facts that may differ between runs: names and revisions, because the digests decide, and versions.
_FREE = {f"{part}.{name}" for part in ("model", "dataset") for name in ("name", "source", "revision")} | {"versions"}


def digest_of_model(model: Any) -> str:
    """A digest of a model's architecture and of all its parameters."""
    tensors = flatten_dict(unfreeze(model.params), sep=".")
    return stamp_of(model.config, {name: digest_of(np.asarray(array)) for name, array in tensors.items()})


def versions() -> dict[str, str]:
    """The versions of the packages that can change an embedding or the bytes of a file."""
    return {"vit-cls": __version__} | {name: version(name) for name in _PACKAGES}


def begun(folder: Path) -> Mapping[str, Any] | None:
    """The manifest in a folder; None in a new one.

    Raises ConfigError for a folder of other files, CheckpointError for a manifest that cannot be read.
    """
    # Other files first: those of another worker come after its manifest.
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    if (folder / EMBED).exists():
        manifest = read_json(folder / EMBED)
        if not isinstance(manifest, Mapping):
            raise CheckpointError(f"{folder / EMBED}: must hold names with values, got {shorten(manifest)}")
        return manifest
    if others := sorted(name for name in names if not name.startswith(".")):
        rule = f"holds {others[0]}, but no {EMBED} of an earlier run: give a new folder"
        raise ConfigError("output", str(folder), rule)
    return None


def agree(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a new folder, or compare it with that of an earlier run.

    Raises ConfigError, with both values, for another model, processor, dataset or way of embedding; OSError if it
    cannot be written.
    """
    if begun(folder) is None:
        _create(folder / EMBED, (json.dumps(manifest, indent=2) + "\n").encode())
    earlier = begun(folder)  # that of another worker, if it was first
    ours, theirs = _facts(json.loads(json.dumps(manifest))), _facts(earlier or {})
    for name in dict.fromkeys([*ours, *theirs]):
        if name not in _FREE and ours.get(name) != theirs.get(name):
            rule = f"the shards in {folder} have {name}={shorten(theirs.get(name))}: give another folder"
            raise ConfigError(name, ours.get(name), rule)
    if ours["versions"] != theirs.get("versions"):
        message = "%s: it was begun with other versions of packages, so that embeddings can differ in their last bits"
        _log.warning(message, folder)


def _facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a manifest, with dotted names: {"model.digest": ...}."""
    facts: dict[str, Any] = {}
    for name, value in manifest.items():
        nested = name in ("model", "dataset") and isinstance(value, Mapping)
        facts |= {f"{name}.{inner}": fact for inner, fact in value.items()} if nested else {name: value}
    return facts


def _create(file: Path, content: bytes) -> None:
    """Create a file in one step, unless it exists: then another worker was first, and its file stays."""
    new = file.with_name(f"{file.name}.tmp-{secrets.token_hex(4)}")  # containers can have the same process numbers
    try:
        new.write_bytes(content)
        try:
            os.link(new, file)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            new.replace(file)
    except OSError as error:
        raise OSError(f"{file}: cannot be written ({error.strerror})") from error
    finally:
        with suppress(OSError):
            new.unlink()
