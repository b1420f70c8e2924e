"""Vision Transformers with a [CLS] token, for JAX users of Hugging Face: importing this registers them."""

from . import quiet_import as quiet_import  # before anything else imports transformers

# isort: split
from transformers import AutoConfig, AutoImageProcessor

from .catalogue import list_pretrained
from .configuration_vit_cls import ViTClsConfig
from .errors import BadImageError, CheckpointError, ConfigError
from .export import export_pretrained
from .images.processor import ViTClsImageProcessor
from .modeling_vit_cls import FlaxViTClsForImageClassification, FlaxViTClsModel, vit_cls_forward
from .nn.mesh import make_mesh
from .pipelines import ImageClassificationPipeline, ImageFeatureExtractionPipeline
from .pretrained.auto import FlaxAutoModel, FlaxAutoModelForImageClassification
from .pretrained.base import FlaxPreTrainedModel
from .pretrained.check import check_pretrained
from .variants import list_variants

AutoConfig.register(ViTClsConfig.model_type, ViTClsConfig, exist_ok=True)
AutoImageProcessor.register(ViTClsConfig, slow_image_processor_class=ViTClsImageProcessor, exist_ok=True)
FlaxAutoModel.register(ViTClsConfig, FlaxViTClsModel, exist_ok=True)
FlaxAutoModelForImageClassification.register(ViTClsConfig, FlaxViTClsForImageClassification, exist_ok=True)

__version__ = "0.1.0"
__all__ = [
    "BadImageError",
    "CheckpointError",
    "ConfigError",
    "FlaxAutoModel",
    "FlaxAutoModelForImageClassification",
    "FlaxPreTrainedModel",
    "FlaxViTClsForImageClassification",
    "FlaxViTClsModel",
    "ImageClassificationPipeline",
    "ImageFeatureExtractionPipeline",
    "ViTClsConfig",
    "ViTClsImageProcessor",
    "check_pretrained",
    "export_pretrained",
    "list_pretrained",
    "list_variants",
    "make_mesh",
    "vit_cls_forward",
]
