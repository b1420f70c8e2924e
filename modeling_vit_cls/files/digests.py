"""The digests in our weight files: of each tensor, of the architecture, and of the whole checkpoint."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xxhash

from ..config_rules import FIELD_NAMES, LATER_FIELDS
from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, shorten

# Fields that do not change the outputs, so they may be edited in config.json.
_FREE = {"hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "initializer_range"}
_FREE |= {"dynamic_image_size"}
NO_DIGEST = "0" * 32  # in the place of a digest that is not known yet
_TENSORS, _STAMP = "xxh3_128", "stamp"


def digest_of(array: np.ndarray) -> str:
    """The XXH3 digest (128 bits, hexadecimal) of an array's bytes in C order."""
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def architecture_digest(config: ViTClsConfig) -> str:
    """The digest of the config fields that change the outputs, with the number of classes.

    A later field counts only with another value than its first one, so that earlier checkpoints keep their digest.
    """
    fields = {name: getattr(config, name) for name in FIELD_NAMES if name not in _FREE}
    fields = {name: value for name, value in fields.items() if value != LATER_FIELDS.get(name, ...)}
    fields |= {"image_size": list(config.image_hw), "num_labels": config.num_classes}
    return xxhash.xxh3_128_hexdigest(json.dumps(fields, sort_keys=True).encode())


def stamp_of(config: ViTClsConfig, digests: Mapping[str, str]) -> str:
    """The mark that all weight files of one checkpoint share: the digests of its architecture and of all tensors."""
    whole = xxhash.xxh3_128_hexdigest(json.dumps(sorted(digests.items())).encode())
    return f"{architecture_digest(config)}-{whole}"


def to_metadata(digests: Mapping[str, str], stamp: str) -> dict[str, str]:
    """The safetensors metadata of a weight file: `digests` of its tensors by name, and the checkpoint's `stamp`."""
    return {_TENSORS: json.dumps(dict(sorted(digests.items()))), _STAMP: stamp}


def from_metadata(metadata: Mapping[str, Any], names: set[str], file: object) -> tuple[dict[str, str], str | None]:
    """({name: digest}, stamp) of a weight file that holds the tensors `names`; ({}, None) for other libraries' files.

    Raises CheckpointError where the digests do not belong to exactly these tensors.
    """
    if _TENSORS not in metadata:
        return {}, None
    try:
        digests = json.loads(metadata[_TENSORS])
        different = sorted(set(digests) ^ names)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: its digests cannot be read; download or save it again") from error
    if different or not isinstance(digests, dict):
        problem = f"its digests do not belong to its tensors ({shorten(different)})"
        raise CheckpointError(f"{file}: {problem}; download or save it again")
    return digests, metadata.get(_STAMP)
