"""The kind of dataset that training and evaluation take, and a remedy for every other kind."""

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from ..install import needs

try:
    import datasets
except ImportError as error:
    raise needs("datasets", "to load images", "train") from error

_EXPECTED = "must be a map-style datasets.Dataset with a column of images and one of classes, and no transform"


def check_dataset(dataset: Any, field: str = "dataset") -> "datasets.Dataset":
    """The dataset itself, in its plain format. Raises ConfigError, with the remedy, for any other kind."""
    if not isinstance(dataset, datasets.Dataset):
        raise ConfigError(field, type(dataset).__name__, f"{_EXPECTED}; {_remedy(dataset)}")
    if dataset.format["type"] == "custom":
        remedy = "the image processor resizes and normalises, and TrainingArguments set crops and flips: pass the "
        remedy += "dataset without with_transform and set_transform (dataset.with_format(None))"
        raise ConfigError(field, "Dataset with a transform", f"{_EXPECTED}; {remedy}")
    return dataset.with_format(None)


def _remedy(dataset: Any) -> str:
    if isinstance(dataset, datasets.IterableDataset | datasets.IterableDatasetDict):
        return "a streaming dataset has no rows to draw at random: load it without streaming=True"
    if isinstance(dataset, Mapping) and not all(hasattr(split, "features") for split in dataset.values()):
        columns = "a column of images (datasets.Image()) and one of classes (datasets.ClassLabel(names=...))"
        return f"make one from the columns with datasets.Dataset.from_dict(columns, features=...): {columns}"
    if isinstance(dataset, Mapping):
        names = [str(name) for name in dataset]
        first = "train" if "train" in names or not names else names[0]
        return f"pass one split, as dataset[{first!r}]; there are {', '.join(names) or 'none'}"
    if isinstance(dataset, str):
        return f"load it: modeling_vit_cls.images.sources.load_images({dataset!r}, 'train')"
    if isinstance(dataset, list | tuple):
        return (
            "make one from the rows with datasets.Dataset.from_list(rows), and cast its columns to datasets.Image() "
            "and datasets.ClassLabel(names=...)"
        )
    return "make one with datasets.Dataset.from_generator, or from a folder with load_images(folder, 'train')"
