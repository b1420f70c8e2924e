"""The image processor that a model is trained with: one whose images fill a batch."""

import logging
from typing import Any

from ..errors import ConfigError
from ..images.processor import ViTClsImageProcessor
from ..pretrained.processor_fit import of_one_size

_log = logging.getLogger(__name__)


def trained_with(model: Any, given: ViTClsImageProcessor | None) -> ViTClsImageProcessor:
    """The processor that is given, or the model's own.

    A model's own that keeps the aspect ratio (SigLIP 2 NaFlex) is taken at the model's size, with a warning: its images
    have sizes of their own, which fill no batch. Raises ConfigError where such a one is given.
    """
    processor = given or model.image_processor
    if processor.output_hw is not None:
        return processor
    if given is not None:
        rule = f"must resize or crop to one size, so that images fill a batch: use .at_size({model.config.image_hw})"
        raise ConfigError("processing_class", given, rule)
    processor = of_one_size(processor, model.config)
    if processor.output_hw is None:
        raise ConfigError("processing_class", processor, "must resize or crop, so that images fill a batch")
    size = "images are resized to %d x %d for training: they fill a batch, and do not keep their aspect ratio"
    _log.warning(size, *model.config.image_hw)
    return processor
