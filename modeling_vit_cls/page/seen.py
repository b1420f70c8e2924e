"""What a model of the page sees in one image: classes, attention, features. No HTML and no Gradio."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ..config_rules import READOUTS_OF_CLS, Readout
from ..errors import ConfigError
from ..hub.download import checkpoint_path
from ..images.rgb import load_image
from ..modeling_vit_cls import FlaxViTClsForImageClassification, FlaxViTClsModel, reread
from ..pictures.view import patch_colours, view
from ..pipelines import ImageClassificationPipeline, Prediction
from ..pretrained.check import check_pretrained

_READOUTS = 8  # readouts of a model that are kept


@dataclass(frozen=True)
class Seen:
    """One image as one model sees it, with one readout.

    Attributes:
        readout: the readout that was used.
        image: the image after resizing and cropping, (H, W, C) of 0..1.
        scores: labels and scores, best first, as from ImageClassificationPipeline; None without a trained classifier.
        own_scores: those of the model's own readout; None where `readout` is it, or without a classifier.
        attention: of the chosen block and head to each patch, (h, w); None if the model has no such block or head.
        attention_of: that block and head in words.
        rollout: attention rollout to each patch, (h, w).
        colours: features of the patches as colours, (h, w, 3).
        source: whose attention is shown.
        remark: what is missing and why, for the reader; "" if nothing is.
    """

    readout: str
    image: np.ndarray
    scores: list[Prediction] | None
    own_scores: list[Prediction] | None
    attention: np.ndarray | None
    attention_of: str
    rollout: np.ndarray
    colours: np.ndarray
    source: str
    remark: str


def load_models(names: Sequence[str], revision: str | None = None) -> list["PageModel"]:
    """The models of folders and Hub ids. A folder's name is its last part, unless another model has that name too."""
    models = [PageModel.load(name, revision) for name in names]
    short = [Path(name).resolve().name if Path(name).is_dir() else name for name in names]
    for model, name in zip(models, short):
        model.name = name if short.count(name) == 1 else model.name
    return models


class PageModel:
    """A model of the page, loaded once: a backbone, and the classifier on it if the checkpoint has one.

    Models with another readout share its parameters.
    """

    def __init__(self, name: str, backbone: FlaxViTClsModel, classifier: FlaxViTClsForImageClassification | None):
        self.name, self.classifier = name, classifier
        self.own_readout: str = backbone.config.readout
        self.blocks: int = backbone.config.num_hidden_layers
        self.heads: int = backbone.config.num_attention_heads
        self.backbone = lru_cache(_READOUTS)(lambda readout: reread(backbone, readout))  # by its readout
        self._pipeline = lru_cache(_READOUTS)(lambda readout: ImageClassificationPipeline(reread(classifier, readout)))
        self.readouts = (self.own_readout, *(name for name in get_args(Readout) if self._reads(name)))

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str], revision: str | None = None) -> "PageModel":
        """Load a folder or a Hub id. Raises the errors of `from_pretrained`."""
        path = checkpoint_path(name_or_path, revision=revision)  # a path, so that the check needs no network
        name = str(name_or_path)
        if check_pretrained(path).labels is None:
            return cls(name, FlaxViTClsModel.from_pretrained(path), None)
        return cls.of(name, FlaxViTClsForImageClassification.from_pretrained(path))

    @classmethod
    def of(cls, name: str, classifier: FlaxViTClsForImageClassification) -> "PageModel":
        """A classifier and its backbone, which share their parameters."""
        options: dict[str, Any] = {"dtype": classifier.dtype, "image_processor": classifier.image_processor}
        return cls(name, FlaxViTClsModel(classifier.config, params=classifier.params["vit_cls"], **options), classifier)

    def _reads(self, readout: str) -> bool:
        """Whether the backbone has all parameters of another readout than its own."""
        if readout in (self.own_readout, "map") or (readout == "cls_concat" and self.config.num_cls_tokens == 1):
            return False
        try:
            self.backbone(readout)
        except ConfigError:
            return False
        return True

    @property
    def config(self) -> Any:
        """The config of the backbone with its own readout."""
        return self.backbone(self.own_readout).config

    def scores(self, image: Any, readout: str) -> list[Prediction] | None:
        """Labels and scores of an image; None if the readout has no trained classifier."""
        if self.classifier is None:
            return None
        try:
            pipeline = self._pipeline(readout)
        except ConfigError:
            return None
        return pipeline([image])[0]

    def see(
        self, content: bytes, readout: str | None = None, block: int | None = None, head: int | None = None
    ) -> Seen:
        """Look at the content of an image file.

        Args:
            content: the bytes of the file.
            readout: a readout of any model; None, or one that this model does not have, takes the model's own.
            block: the block whose attention is shown, from 1; None for the last.
            head: the head, from 1; None for the mean of all.

        Raises BadImageError for a file that cannot be read as an image.
        """
        image, own = load_image(content, name="This file"), self.own_readout
        used = own if readout is None or readout not in self.readouts else readout
        scores = self.scores(image, used)
        seen = view(self.backbone(used), image)
        attention, missing = None, ""
        if (block or 1) > self.blocks:
            missing = f"This model has no block {block}: it has {self.blocks}. "
        elif (head or 1) > self.heads:
            missing = f"This model has no head {head}: it has {self.heads}. "
        else:
            heads = seen.attention((block or self.blocks) - 1)
            attention = heads.mean(axis=0) if head is None else heads[head - 1]
        of_heads = f"mean of {self.heads} heads" if head is None else f"head {head} of {self.heads}"
        return Seen(
            readout=used,
            image=seen.image,
            scores=scores,
            own_scores=self.scores(image, own) if used != own and scores is not None else None,
            attention=attention,
            attention_of=f"block {block or self.blocks} of {self.blocks}, {of_heads}",
            rollout=seen.rollout(),
            colours=patch_colours([seen.features])[0],
            source="[CLS]" if used in READOUTS_OF_CLS else "all patches (mean)",
            remark=(missing + self._remark(readout, used, scores is not None)).strip(),
        )

    def _remark(self, asked: str | None, used: str, has_scores: bool) -> str:
        if asked not in (None, used):
            return f"This model has no parameters for the readout {asked!r}: its own, {used!r}, is shown."
        if self.classifier is None:
            return "This model is a backbone: it has no classifier, so there are no scores."
        if not has_scores:
            problem = f"This model has no classifier that was trained for the width of the readout {used!r}"
            return f"{problem}: there are no scores, and the pictures show the backbone."
        if used != self.own_readout:
            return f"The classifier was trained on the readout {self.own_readout!r} and reads {used!r} here."
        return ""
