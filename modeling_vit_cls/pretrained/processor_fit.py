"""Whether a model accepts the pixels of an image processor: one rule for calls, training, pictures and exports."""

from typing import Any

from transformers import BaseImageProcessor

from ..configuration_vit_cls import ViTClsConfig
from ..errors import ConfigError
from ..images.processor import ViTClsImageProcessor


def takes(config: ViTClsConfig, image_hw: tuple[int, int]) -> bool:
    """Whether a model with this config can process images of this height and width, with resampled positions."""
    patch = config.patch_size
    return min(image_hw) >= patch and (config.ignore_border or not any(side % patch for side in image_hw))


def interpolates(config: ViTClsConfig, own: Any, processor: ViTClsImageProcessor) -> bool:
    """Whether positions are resampled for the pixels of a processor.

    They are if its image size differs from the config's, or depends on the image, and the model accepts it: the size of
    the model's `own` processor, or any size with `dynamic_image_size`. For other sizes the result is False, and a call
    refuses the pixels. Raises ConfigError for a size that cannot be divided into patches.
    """
    size = processor.output_hw
    is_own = isinstance(own, ViTClsImageProcessor) and own.output_hw == size
    if size == config.image_hw or not (is_own or config.dynamic_image_size):
        return False
    if size is not None and not takes(config, size):
        field = "crop_size" if processor.do_center_crop else "size"
        rule = f"gives images of {size}; the model takes multiples of patch_size={config.patch_size}"
        raise ConfigError(field, getattr(processor, field), rule)
    return True


def own_processor(given: Any, field: str) -> ViTClsImageProcessor:
    """A processor as ours; one of transformers' classes is converted.

    Raises ConfigError, naming the argument `field`, for another object and for a step that is not supported.
    """
    if isinstance(given, ViTClsImageProcessor):
        return given
    if not isinstance(given, BaseImageProcessor):
        rule = "must be a ViTClsImageProcessor or an image processor of transformers"
        raise ConfigError(field, type(given).__name__, rule)
    return ViTClsImageProcessor.from_fields(given.to_dict())


def fitting_processor(model: Any, given: Any, field: str) -> ViTClsImageProcessor:
    """The processor that was given, as ours, or else the model's. Raises ConfigError as `check_processor` does."""
    processor = model.image_processor if given is None else own_processor(given, field)
    check_processor(model, processor, field)
    return processor


def check_processor(model: Any, processor: ViTClsImageProcessor, field: str) -> None:
    """Raise ConfigError, naming the argument `field`, for a processor whose pixels the model does not accept.

    Checked without an image, so that a wrong processor is not reported as a broken image.
    """
    config = model.config
    channels, size = len(processor.image_mean), processor.output_hw
    if channels == config.num_channels and (size in (config.image_hw, None) or model.interpolates(processor)):
        return
    rule = f"must give {config.image_hw} pixels and {config.num_channels} channels, as the model takes"
    raise ConfigError(field, processor, f"{rule}, not {size or 'any'} and {channels}")


def of_one_size(processor: ViTClsImageProcessor, config: ViTClsConfig) -> ViTClsImageProcessor:
    """A processor with one image size. If its size depends on the image, images are resized to the config's size."""
    return processor if processor.output_hw is not None else processor.at_size(config.image_hw)
