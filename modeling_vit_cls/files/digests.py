"""Digests that a checkpoint of ours carries in its weight files: of each tensor, of the architecture, of the whole."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xxhash

from ..config_rules import FIELD_NAMES
from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, shorten

# Fields on which the outputs do not depend: they may be edited in config.json.
_FREE = {"hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "initializer_range"}
_FREE |= {"dynamic_image_size"}
_TENSORS, _STAMP = "xxh3_128", "stamp"


def digest_of(array: np.ndarray) -> str:
    """128 bits of XXH3 over an array's bytes in C order, in hexadecimal."""
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def architecture_digest(config: ViTClsConfig) -> str:
    """Digest of the fields on which the outputs depend, the number of classes among them."""
    fields = {name: getattr(config, name) for name in FIELD_NAMES if name not in _FREE}
    fields |= {"image_size": list(config.image_hw), "num_labels": config.num_classes}
    return xxhash.xxh3_128_hexdigest(json.dumps(fields, sort_keys=True).encode())


def stamp_of(config: ViTClsConfig, digests: Mapping[str, str]) -> str:
    """What all weight files of a checkpoint have in common: the architecture's digest, and that of all tensors'."""
    whole = xxhash.xxh3_128_hexdigest(json.dumps(sorted(digests.items())).encode())
    return f"{architecture_digest(config)}-{whole}"


def to_metadata(digests: Mapping[str, str], stamp: str) -> dict[str, str]:
    """The metadata of a weight file that holds these tensors."""
    return {_TENSORS: json.dumps(dict(sorted(digests.items()))), _STAMP: stamp}


def from_metadata(metadata: Mapping[str, Any], names: set[str], file: object) -> tuple[dict[str, str], str | None]:
    """Digests and stamp of a weight file that holds tensors of these names; of another library's none.

    Raises CheckpointError where there are digests, but not those of the tensors.
    """
    if _TENSORS not in metadata:
        return {}, None
    try:
        digests = json.loads(metadata[_TENSORS])
        odd = sorted(set(digests) ^ names)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: its digests cannot be read; download or save it again") from error
    if odd or not isinstance(digests, dict):
        raise CheckpointError(f"{file}: its digests are not of its tensors ({shorten(odd)}); download or save it again")
    return digests, metadata.get(_STAMP)
