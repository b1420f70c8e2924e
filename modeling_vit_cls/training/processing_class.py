"""The image processor for training. It must give images of one size, so that they fill a batch."""

import logging
from typing import Any

from ..errors import ConfigError
from ..images.processor import ViTClsImageProcessor
from ..pretrained.processor_fit import of_one_size, own_processor

_log = logging.getLogger(__name__)


def trained_with(model: Any, given: ViTClsImageProcessor | None) -> ViTClsImageProcessor:
    """The processor `given` for training, or else that of the model.

    If the model's processor keeps the aspect ratio (SigLIP 2 NaFlex), its images have different sizes; then it is used
    at the model's size, with a warning. Raises ConfigError if `given` is such a processor, and for a subclass with
    other pixels in evaluation than in training.
    """
    processor = model.image_processor if given is None else own_processor(given, "processing_class")
    for name in ("__call__", "preprocess"):
        if getattr(type(processor), name) is not getattr(ViTClsImageProcessor, name):
            rule = f"has its own {name}, which training does not call: change `resized`, or the images of the dataset"
            raise ConfigError("processing_class", type(processor).__name__, rule)
    if processor.output_hw is not None:
        return processor
    if given is not None:
        rule = f"must resize or crop to one size, so that images fill a batch: use .at_size({model.config.image_hw})"
        raise ConfigError("processing_class", given, rule)
    processor = of_one_size(processor, model.config)
    if processor.output_hw is None:
        raise ConfigError("processing_class", processor, "must resize or crop, so that images fill a batch")
    message = "images are resized to %d x %d for training, without their aspect ratio, so that they fill a batch"
    _log.warning(message, *model.config.image_hw)
    return processor
