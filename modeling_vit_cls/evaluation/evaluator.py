"""evaluate's own evaluator of image classification, for our pipeline, on transformers 4.57 and 5."""

from time import perf_counter
from typing import Any

from ..errors import ConfigError
from ..images.classes import match_classes
from ..install import needs
from ..modeling_vit_cls import FlaxViTClsForImageClassification
from ..predict import ImageClassificationPipeline
from ..scores import refuse_unless_single_label
from .metrics import load_metric

try:
    import datasets
    from evaluate.evaluator.image_classification import ImageClassificationEvaluator
except ImportError as error:
    raise needs("evaluate and scipy", "to evaluate", "train") from error


class ViTClsEvaluator(ImageClassificationEvaluator):
    """`compute(model_or_pipeline, data, metric="accuracy", label_mapping=model.config.label2id, strategy="simple")`.

    `model_or_pipeline` is a model of ours or its ImageClassificationPipeline, `data` a dataset as `load_images` gives
    it or with decoded images, `metric` one that takes classes, as `load_metric` finds it, by default the accuracy.
    Where the data's classes have the model's names, these decide, whatever numbers a `label_mapping` gives; without a
    mapping they must. evaluate's class looks for transformers' PyTorch and TensorFlow models, which transformers 5
    does not have.
    """

    def prepare_data(self, data: Any, input_column: str, label_column: str, *args: Any, **kwargs: Any) -> Any:
        """References and images; these are read by us, who name a broken one."""
        if isinstance(data.features.get(input_column), datasets.Image):
            data = data.cast_column(input_column, datasets.Image(decode=False))
        prepared = super().prepare_data(data, input_column, label_column, *args, **kwargs)
        feature = data.features[label_column]
        self._names = list(feature.names) if isinstance(feature, datasets.ClassLabel) else None
        return prepared

    def prepare_pipeline(self, model_or_pipeline: Any, *_: Any, **__: Any) -> ImageClassificationPipeline:
        """The pipeline, or one of the model. Raises ConfigError for anything else."""
        if isinstance(model_or_pipeline, FlaxViTClsForImageClassification):
            model_or_pipeline = ImageClassificationPipeline(model_or_pipeline)
        if not isinstance(model_or_pipeline, ImageClassificationPipeline):
            rule = "must be a FlaxViTClsForImageClassification or its ImageClassificationPipeline"
            raise ConfigError("model_or_pipeline", model_or_pipeline, rule)
        refuse_unless_single_label(model_or_pipeline.model.config, "evaluate's evaluator of image classification")
        self._id2label: Any = model_or_pipeline.model.config.id2label
        return model_or_pipeline

    def predictions_processor(self, predictions: Any, label_mapping: Any) -> dict[str, Any]:
        """The data's number of the best class of each image. Raises ConfigError where names and mapping do not tell."""
        names = self._names
        if names is not None and (label_mapping is None or set(label_mapping) == set(names)):
            own = match_classes(names, self._id2label)
            label_mapping = {self._id2label[int(number)]: place for place, number in enumerate(own)}
        return super().predictions_processor(predictions, label_mapping)

    def prepare_metric(self, metric: Any) -> Any:
        """The metric by name, ours before those of the Hub."""
        return load_metric("accuracy" if metric is None else metric)

    def call_pipeline(self, pipe: ImageClassificationPipeline, images: Any) -> tuple[list[Any], dict[str, float]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Predictions of all images, and evaluate's three numbers of time."""
        start = perf_counter()
        found = pipe(images, top_k=1)
        return found, self._compute_time_perf(start, perf_counter(), len(found))
