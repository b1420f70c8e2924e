"""The image-classification evaluator of `evaluate`, for models of this package, on transformers 4.57 and 5."""

from time import perf_counter
from typing import Any

from ..errors import ConfigError
from ..images.classes import match_classes
from ..install import needs
from ..label_maps import numbered
from ..modeling_vit_cls import FlaxViTClsForImageClassification
from ..pipelines import ImageClassificationPipeline
from ..scores import refuse_unless_single_label
from .metrics import load_metric

try:
    import datasets
    from evaluate.evaluator.image_classification import ImageClassificationEvaluator
except ImportError as error:
    raise needs("evaluate and scipy", "to evaluate", "train") from error


class ViTClsEvaluator(ImageClassificationEvaluator):
    """`compute(model_or_pipeline, data, metric="accuracy", label_mapping=model.config.label2id, strategy="simple")`.

    `model_or_pipeline` is a FlaxViTClsForImageClassification or its ImageClassificationPipeline. `data` is a dataset,
    from `load_images` or with decoded images. `metric` is a metric of predicted classes (`load_metric`), by default the
    accuracy. Classes of the data are matched with the model's by name if their names are the same, even if a
    `label_mapping` gives other numbers; without a mapping the names must be the same. Whole numbers need a mapping.

    The class of `evaluate` itself looks for TensorFlow models of transformers, which transformers 5 does not have.
    """

    def prepare_data(self, data: Any, input_column: str, label_column: str, *args: Any, **kwargs: Any) -> Any:
        """References and images. Images are decoded by this package, whose errors name a broken one."""
        if len(data) == 0:
            raise ConfigError("data", "Dataset", "has no examples")
        if isinstance(data.features.get(input_column), datasets.Image):
            data = data.cast_column(input_column, datasets.Image(decode=False))
        prepared = super().prepare_data(data, input_column, label_column, *args, **kwargs)
        feature = data.features[label_column]
        if isinstance(feature, datasets.Value) and "string" in feature.dtype:
            remedy = "cast them with data.cast_column(label_column, datasets.ClassLabel(names=...))"
            raise ConfigError("label_column", label_column, f"must hold classes or their numbers, not texts: {remedy}")
        self._names = list(feature.names) if isinstance(feature, datasets.ClassLabel) else None
        return prepared

    def prepare_pipeline(self, model_or_pipeline: Any, *_: Any, **__: Any) -> ImageClassificationPipeline:
        """The pipeline, or a new one for a model. Raises ConfigError for anything else."""
        if isinstance(model_or_pipeline, FlaxViTClsForImageClassification):
            model_or_pipeline = ImageClassificationPipeline(model_or_pipeline)
        if not isinstance(model_or_pipeline, ImageClassificationPipeline):
            rule = "must be a FlaxViTClsForImageClassification or its ImageClassificationPipeline"
            raise ConfigError("model_or_pipeline", model_or_pipeline, rule)
        refuse_unless_single_label(model_or_pipeline.model.config, "evaluate's evaluator of image classification")
        self._id2label = numbered(model_or_pipeline.model.config.id2label)
        return model_or_pipeline

    def predictions_processor(self, predictions: Any, label_mapping: Any) -> dict[str, Any]:
        """The data's class number for each prediction. Raises ConfigError if classes cannot be matched."""
        names = self._names
        if names is not None and (label_mapping is None or set(label_mapping) == set(names)):
            numbers = match_classes(names, self._id2label)
            label_mapping = {self._id2label[number]: index for index, number in enumerate(numbers)}
        if label_mapping is None or not set(label_mapping) >= set(self._id2label.values()):
            rule = "must map each class name of the model to a number, as model.config.label2id does"
            raise ConfigError("label_mapping", label_mapping, rule)
        return super().predictions_processor(predictions, label_mapping)

    def prepare_metric(self, metric: Any) -> Any:
        """The metric with this name: one of this package, else one of the Hub."""
        return load_metric("accuracy" if metric is None else metric)

    def call_pipeline(self, pipe: ImageClassificationPipeline, images: Any) -> tuple[list[Any], dict[str, float]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Predictions of all images, and the three times that `evaluate` reports."""
        start = perf_counter()
        predictions = pipe(images, top_k=1)
        return predictions, self._compute_time_perf(start, perf_counter(), len(predictions))
