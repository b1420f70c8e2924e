"""A dataset of the Hub by its id: the Hub is asked once whether it is there, so that a typo costs no retries."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from ..errors import ConfigError, nearest, shorten
from ..install import needs

try:
    import datasets
    from datasets import config as datasets_config
except ImportError as error:
    raise needs("datasets", "to load images", "train") from error

_PATIENCE = 10.0  # seconds that the Hub has to answer


def load_hub_dataset(name: str, config_name: str | None, revision: str | None) -> dict[str, Any]:
    """The splits of a dataset on the Hub; one that is in the cache where the Hub does not answer.

    Raises ConfigError in one line for a name that is neither a folder nor a dataset.
    """
    if "://" in name:
        raise ConfigError("dataset_name", name, "is an address: give the id on the Hub, user/name, or a folder")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError("dataset_name", name, f"there is no such folder{_near(name)}") from error
    silent = _no_answer(name, revision)
    try:
        with _offline() if silent else nullcontext():
            found: Any = datasets.load_dataset(name, config_name, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:  # what datasets raises for whatever it cannot find or read
        if silent:
            rule = f"there is no such folder{_near(name)}, no such dataset in the cache, and the Hub does not answer"
            raise ConfigError("dataset_name", name, f"{rule} ({silent})") from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        rule = f"is neither 'digits', a folder here{_near(name)}, nor a dataset that the Hub gives"
        raise ConfigError("dataset_name", name, f"{rule} ({shorten(reason, 200)[1:-1]})") from error
    check_disjoint(name, found)
    return dict(found)


def check_disjoint(name: str, found: Mapping[str, Any]) -> None:
    """Raise ConfigError where datasets took one file of a repository of images for two splits.

    It goes by words in the paths, such as "train" in the name of a class.
    """
    owners: dict[str, str] = {}
    for split, dataset in found.items():
        if dataset.info.builder_name != "imagefolder":
            continue
        for image in dataset.cast_column("image", datasets.Image(decode=False))["image"]:
            if owners.setdefault(image["path"], split) != split:
                rule = (
                    f"one image is in its splits {owners[image['path']]} and {split} ({image['path']}), for datasets "
                )
                rule += "takes words in paths for splits: `hf download` the repository, and give the folder"
                raise ConfigError("dataset_name", name, rule)


def _no_answer(name: str, revision: str | None) -> str | None:
    """Why the Hub cannot be asked; None where it answers, whatever it says."""
    try:
        HfApi().dataset_info(name, revision=revision, timeout=_PATIENCE)
    except OfflineModeIsEnabled:
        return "HF_HUB_OFFLINE is set"
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 500
        return f"HTTP {status}" if status >= 500 else None
    except Exception as error:  # requests' and httpx's own families, and a proxy's
        return type(error).__name__
    return None


@contextmanager
def _offline() -> Iterator[None]:
    """Let datasets look into its cache alone."""
    places = [(datasets_config, "HF_HUB_OFFLINE"), (huggingface_hub.constants, "HF_HUB_OFFLINE")]
    before = [getattr(module, name) for module, name in places]
    try:
        for module, name in places:
            setattr(module, name, True)
        yield
    finally:
        for (module, name), value in zip(places, before):
            setattr(module, name, value)


def _near(name: str) -> str:
    """The folder that may have been meant."""
    path = Path(name).expanduser()
    try:
        beside = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
    except OSError:
        return ""
    near = nearest(path.name, beside)
    return "" if near is None else f" (did you mean {str(path.parent / near)!r}?)"
