"""A dataset on the Hub by its id. One request first checks that it exists, so that a typo costs no retries."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from ..errors import ConfigError, nearest
from ..install import needs
from .read_errors import reason_of
from .splits import split_name

try:
    import datasets
    from datasets import config as datasets_config
    from datasets import packaged_modules
except ImportError as error:
    raise needs("datasets", "to load images", "train") from error

_log = logging.getLogger(__name__)
_TIMEOUT = 10.0  # seconds


def load_hub_dataset(name: str, config_name: str | None, revision: str | None) -> dict[str, Any]:
    """The splits of a dataset on the Hub, {name: dataset}; from the cache where the Hub does not answer.

    Raises ConfigError, with a message of one line, for a name that is neither a folder nor a dataset.
    """
    # "imagefolder", "csv": datasets would read the current folder
    if name in getattr(packaged_modules, "_PACKAGED_DATASETS_MODULES", ()):
        raise ConfigError(
            "dataset_name", name, "is a reader of datasets, not a dataset: give the folder itself, or an id"
        )
    if "://" in name:
        raise ConfigError("dataset_name", name, "is a URL: give the id on the Hub, user/name, or a folder")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError("dataset_name", name, f"there is no such folder{_near(name)}") from error
    unreachable = _reason_unreachable(name, revision)
    try:
        with _offline() if unreachable else nullcontext():
            splits: Any = datasets.load_dataset(name, config_name, revision=revision)
    except Exception as error:  # of datasets, and of the libraries for files and HTTP below it
        if unreachable:
            rule = f"there is no such folder{_near(name)}, no such dataset in the cache, and the Hub does not answer"
            raise ConfigError("dataset_name", name, f"{rule} ({unreachable})") from None
        rule = f"is neither 'digits', 'fashion_mnist', a local folder{_near(name)}, nor a dataset that can be loaded"
        raise ConfigError("dataset_name", name, f"{rule} from the Hub ({reason_of(error)})") from None
    return with_classes(name, splits)


def with_classes(name: str, splits: Mapping[str, Any]) -> dict[str, Any]:
    """The splits without the column "label" that datasets gives to images in the folders train and test alone.

    Raises ConfigError where a repository of image files is not read as it is meant: where datasets put one file into
    two splits, because it looks for words such as "train" anywhere in a path, also in the name of a class; and for
    files in archives, which are not unpacked.
    """
    folders = {split: dataset for split, dataset in splits.items() if dataset.info.builder_name == "imagefolder"}
    split_of: dict[str, str] = {}
    for split, dataset in folders.items():
        for image in dataset.cast_column("image", datasets.Image(decode=False))["image"]:
            path = image["path"]
            if "::" in path:
                rule = (
                    f"its images are in archives ({path}): `hf download` the repository, unpack it, and give the folder"
                )
                raise ConfigError("dataset_name", name, rule)
            if split_of.setdefault(path, split) != split:
                rule = f"one image is in its splits {split_of[path]} and {split} ({path}), because datasets looks for "
                rule += "split names anywhere in a path: `hf download` the repository and give the folder instead"
                raise ConfigError("dataset_name", name, rule)
    names = {label for dataset in folders.values() for label in getattr(dataset.features.get("label"), "names", ())}
    if not names or not all(map(split_name, names)):
        return dict(splits)
    _log.warning("%s: its images have no classes, only the folders %s", name, ", ".join(sorted(names)))
    return {split: dataset.remove_columns("label") for split, dataset in splits.items()}


def _reason_unreachable(name: str, revision: str | None) -> str | None:
    """Why the Hub cannot be reached; None where it answers, also with "not found"."""
    try:
        HfApi().dataset_info(name, revision=revision, timeout=_TIMEOUT)
    except OfflineModeIsEnabled:
        return "HF_HUB_OFFLINE is set"
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 500
        return f"HTTP {status}" if status >= 500 else None
    except Exception as error:  # requests, httpx and proxies each raise their own errors
        return type(error).__name__
    return None


@contextmanager
def _offline() -> Iterator[None]:
    """Make datasets read its cache only."""
    modules: tuple[Any, Any] = (datasets_config, huggingface_hub.constants)
    before = [module.HF_HUB_OFFLINE for module in modules]
    try:
        for module in modules:
            module.HF_HUB_OFFLINE = True
        yield
    finally:
        for module, value in zip(modules, before):
            module.HF_HUB_OFFLINE = value


def _near(name: str) -> str:
    """ " (did you mean FOLDER?)" for the folder with the most similar name, or nothing."""
    path = Path(name).expanduser()
    try:
        folders = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
    except OSError:
        return ""
    near = nearest(path.name, folders)
    return "" if near is None else f" (did you mean {str(path.parent / near)!r}?)"
