"""Features of a labelled dataset: every readout that a backbone has, from one pass over the images."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from ..config_rules import Readout
from ..configuration_vit_cls import ViTClsConfig
from ..errors import ConfigError
from ..images.processor import ViTClsImageProcessor
from ..images.sources import OnBadImage, class_names, labelled
from ..modeling_vit_cls import FlaxViTClsModel
from ..nn import compiled
from .forward import forward_pass


@dataclass(frozen=True)
class Features:
    """Features of the images of a dataset, with their classes.

    Attributes:
        vectors: float32 arrays (N, F) by readout, without "cls_mean".
        labels: classes of the images, (N,).
        names: names of the classes, (K,).
        readouts: the readouts, the backbone's own first.
        skipped: number of broken images, which were left out.
        throughput: speed of the pass, for `Results`.
    """

    vectors: dict[str, np.ndarray]
    labels: np.ndarray
    names: list[str]
    readouts: tuple[str, ...]
    skipped: int
    throughput: dict[str, Any]

    def of(self, readout: str) -> np.ndarray:
        """The features of a readout, (N, F)."""
        if readout == "cls_mean":  # not stored, to save memory
            return np.concatenate([self.vectors["cls"], self.vectors["mean"]], axis=1)
        return self.vectors[readout]


def extract(
    backbone: FlaxViTClsModel,
    dataset: Any,
    *,
    processor: ViTClsImageProcessor | None = None,
    batch_size: int = 32,
    on_bad_image: OnBadImage = "raise",
    disable_tqdm: bool | None = False,
) -> Features:
    """The features of a dataset's images, of every readout that `readouts_of` names.

    They are what a classifier with that readout classifies: normalised by the last LayerNorm, without the tanh layer of
    a `representation_size` and without a projection.

    Args:
        backbone: the model.
        dataset: a `datasets.Dataset` with a column of images and one of classes.
        processor: the image processor; default: the model's.
        batch_size: number of images in a batch.
        on_bad_image: "skip" leaves broken images out, logs each, and counts them; "raise" stops.
        disable_tqdm: True shows no progress bar; None shows it in a terminal only.

    Raises ConfigError for another model or dataset, BadImageError for a broken image, FloatingPointError for
    features that are not finite.
    """
    if not isinstance(backbone, FlaxViTClsModel):
        raise ConfigError("model", type(backbone).__name__, "must be a FlaxViTClsModel")
    dataset = labelled(dataset)
    readouts = readouts_of(backbone.config)
    stored = tuple(name for name in readouts if name != "cls_mean")
    vectors_of = compiled.readouts(backbone.module)
    measured = forward_pass(
        backbone,
        dataset,
        take=lambda outputs: vectors_of(backbone.params, outputs.last_hidden_state, names=stored),
        each=lambda vectors: {name: vector.astype(np.float32) for name, vector in vectors.items()},
        processor=processor,
        batch_size=batch_size,
        on_bad_image=on_bad_image,
        disable_tqdm=disable_tqdm,
    )
    return Features(
        vectors={name: np.concatenate([batch[name] for batch in measured.batches]) for name in stored},
        labels=np.asarray(dataset["label"])[measured.rows],
        names=class_names(dataset),
        readouts=readouts,
        skipped=len(dataset) - len(measured.rows),
        throughput=measured.throughput,
    )


def readouts_of(config: ViTClsConfig) -> tuple[str, ...]:
    """The readouts of a backbone that need no new parameters, its own first. "map" is one only if it is its own.

    "cls_concat" is one only of several [CLS] tokens: of a single one it is "cls".
    """
    left_out = ("map", config.readout, *(["cls_concat"] if config.num_cls_tokens == 1 else []))
    others = [name for name in get_args(Readout) if name not in left_out and _fits(config, name)]
    return (config.readout, *others)


def with_readout(config: ViTClsConfig, readout: str) -> ViTClsConfig:
    """A copy of a backbone's config with another readout, without tanh layer and distillation head."""
    config = copy.deepcopy(config)
    fields: dict[str, Any] = {"readout": readout, "representation_size": None}
    if config.use_distillation_token:
        fields["use_distillation_head"] = False
    for name, value in fields.items():
        setattr(config, name, value)
    return config


def check_features(name: str, features: np.ndarray, labels: Sequence[int] | np.ndarray | None = None) -> None:
    """Raise ConfigError, naming the argument, unless `features` are finite (N, F), with one label each."""
    if np.ndim(features) != 2 or 0 in np.shape(features):
        raise ConfigError(name, np.shape(features), "must be features of shape (N, F), at least one")
    if labels is not None and len(labels) != len(features):
        raise ConfigError(name, np.shape(features), f"has {len(features)} rows, but there are {len(labels)} labels")
    largest = np.finfo(np.float32).max  # the search is in float32
    if not (-largest <= np.min(features) and np.max(features) <= largest):  # without an array of N x F booleans
        row = next(row for row, vector in enumerate(features) if not (np.abs(vector) <= largest).all())
        raise ConfigError(name, np.shape(features), f"must be finite in float32: row {row} is not")


def _fits(config: ViTClsConfig, readout: str) -> bool:
    try:
        with_readout(config, readout).check()
    except ConfigError:
        return False
    return True
