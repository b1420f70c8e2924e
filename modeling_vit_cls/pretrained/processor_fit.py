"""Whether a model takes what an image processor gives: one rule for calls, training, pictures and exports."""

from typing import Any

from ..configuration_vit_cls import ViTClsConfig
from ..errors import ConfigError
from ..images.processor import ViTClsImageProcessor


def takes(config: ViTClsConfig, image_hw: tuple[int, int]) -> bool:
    """Whether a config's model can compute an image of this height and width, positions resampled if need be."""
    patch = config.patch_size
    return min(image_hw) >= patch and (config.ignore_border or not any(side % patch for side in image_hw))


def interpolates(config: ViTClsConfig, own: Any, processor: ViTClsImageProcessor) -> bool:
    """Whether positions are resampled for what a processor gives: it has another size, and the model is to take it.

    That is the size of the model's `own` processor, whatever the config's is, and any size of a model with
    `dynamic_image_size`; a size that depends on the image counts as another. Of other processors' sizes False comes
    back, and the call refuses their pixels. Raises ConfigError for a size that cannot be cut into patches.
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


def check_processor(model: Any, processor: ViTClsImageProcessor, field: str) -> None:
    """Raise ConfigError, naming the argument in `field`, for a processor whose pixels the model does not take.

    It asks for no image: what a wrong processor gives is wrong with every image, and no image is broken by it.
    """
    config = model.config
    channels, size = len(processor.image_mean), processor.output_hw
    if channels == config.num_channels and (size in (config.image_hw, None) or model.interpolates(processor)):
        return
    rule = f"must give {config.image_hw} pixels and {config.num_channels} channels, as the model takes"
    raise ConfigError(field, processor, f"{rule}, not {size or 'any'} and {channels}")


def of_one_size(processor: ViTClsImageProcessor, config: ViTClsConfig) -> ViTClsImageProcessor:
    """A processor whose images have one size: where that depends on the image, the config's, out of proportion."""
    return processor if processor.output_hw is not None else processor.at_size(config.image_hw)
