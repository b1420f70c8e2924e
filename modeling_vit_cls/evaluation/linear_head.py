"""A probe as a classifier: the backbone with the probe's weights as its head, saved with results and card."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..cards import MAX_IMAGES, write_card
from ..images.shown import readable_images
from ..images.sources import class_names
from ..modeling_vit_cls import FlaxViTClsForImageClassification, FlaxViTClsModel
from ..names import RESULTS
from ..results import Results
from .features import with_readout
from .probe import Probe


def classifier_of(
    backbone: FlaxViTClsModel, readout: str, probe: Probe, names: Sequence[str]
) -> FlaxViTClsForImageClassification:
    """The backbone with a readout, and a probe of it as its classifier. Parameters of the backbone are shared.

    What the readout does not use is left out: a tanh layer, an attention pooling, a distillation head.
    """
    config = with_readout(backbone.config, readout)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    config.problem_type = None
    return backbone.with_classifier(config, probe.kernel, probe.bias)


def save_linear_head(
    output_dir: str | os.PathLike[str], model: FlaxViTClsForImageClassification, results: Results, test: Any
) -> None:
    """Save a classifier with its results.json and a card, which shows some images of the measured split `test`.

    Raises CheckpointError if the folder cannot be written.
    """
    folder, names = Path(output_dir), class_names(test)
    model.save_pretrained(folder)
    results.write(folder / RESULTS)
    examples = readable_images(test, MAX_IMAGES, 0)
    write_card(folder, [image for image, _ in examples], labels=[names[label] for _, label in examples], model=model)
