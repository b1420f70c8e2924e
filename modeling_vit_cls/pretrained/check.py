"""Would a checkpoint load, and as what? Answered from config.json and the headers of the weight files."""

import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from PIL import Image

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, ConfigError, one_line
from ..families import own_config
from ..families.adapter import adapter_folder
from ..families.open import config_file, has_head, is_foreign, parameter_shapes, read_headers
from ..files.folder import read_undisturbed
from ..files.json_file import read_json
from ..hub.adapted import open_with_base
from ..hub.download import checkpoint_path
from ..hub.errors import NoAnswerError
from ..hub.headers import HeaderFetch, licence_of
from ..images.processor import ViTClsImageProcessor
from ..names import CARD
from ..nn.vit import FlaxViTClsForImageClassificationModule, FlaxViTClsModule
from ..variants import variant_of
from .loading import label_notes, plan_load, target_config
from .processor_files import AnyProcessor, UnreadProcessor, interpolated_in_calls, read_processor

_INTERPOLATED = {"image_size", "patch_size"}


@dataclass
class CheckReport:
    """Whether `from_pretrained` loads a checkpoint, what the model is, and what is in the way.

    What could not be found out before the problem is None.

    Attributes:
        name: the folder or Hub id.
        loads: whether it loads; None if that could not be found out, because the Hub did not answer.
        problem: the message of `from_pretrained` if it does not load or the Hub did not answer.
        family: the library and kind of the checkpoint.
        variant: the named architecture of the same sizes (`list_variants`); None if there is none.
        parameters: number of parameters.
        image_size: height and width in pixels.
        patch_size: side of a patch in pixels.
        readout: the field of the config.
        image_processor: its steps in words, or why it cannot be used.
        labels: the names of the classes; None without a classifier.
        licence: by the metadata of the card.
        download_size: bytes that `from_pretrained` would download; None for a folder.
        bytes_read: bytes of weight files that were read from the Hub instead.
        notes: the warnings of a load. They are not logged.
    """

    name: str
    loads: bool | None = False
    problem: str | None = None
    family: str | None = None
    variant: str | None = None
    parameters: int | None = None
    image_size: tuple[int, int] | None = None
    patch_size: int | None = None
    readout: str | None = None
    image_processor: str | None = None
    labels: list[str] | None = None
    licence: str | None = None
    download_size: int | None = None
    bytes_read: int | None = None
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return asdict(self)


def check_pretrained(
    name_or_path: str | os.PathLike[str],
    *,
    subfolder: str = "",
    revision: str | None = None,
    variant: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    token: str | bool | None = None,
    **config_overrides: Any,
) -> CheckReport:
    """Whether `from_pretrained` would load a checkpoint with its head, if it has one, without downloading its weights.

    The files take the same way as in a load; only the numbers of the weights are not read. A load can still fail for
    what headers do not show: numbers that differ from their digests, or too little memory.

    Arguments as in `from_pretrained`; `config_overrides` are fields of the config, but not `image_size` and
    `patch_size`, for which numbers would have to be interpolated. A checkpoint that does not load is no error; the
    report has the problem.
    """
    for name in _INTERPOLATED & set(config_overrides):
        raise ConfigError(name, config_overrides[name], "needs the numbers of the weights: leave it out of a check")
    hub = {"cache_dir": cache_dir, "force_download": force_download}
    hub |= {"local_files_only": local_files_only, "token": token}
    report = CheckReport(os.fspath(name_or_path))
    with tempfile.TemporaryDirectory() as folder, _warnings_into(report.notes):
        fetch = HeaderFetch(Path(folder))
        find = partial(checkpoint_path, fetch=fetch, **hub)
        try:
            path = find(name_or_path, subfolder=subfolder, revision=revision, variant=variant)
            report.licence = _licence_in(path)
            read_undisturbed(path, lambda: _inspect(path, find, config_overrides, report))
            report.loads = True
        except (CheckpointError, ConfigError) as error:
            report.problem = one_line(error)
            report.loads = None if isinstance(error, NoAnswerError) else False
    if fetch.repositories:
        report.licence, report.download_size, report.bytes_read = fetch.licence, fetch.size, fetch.bytes_read
    report.notes = [fetch.shown(note) for note in report.notes]
    report.problem = report.problem and fetch.shown(report.problem)
    report.image_processor = report.image_processor and fetch.shown(report.image_processor)
    return report


def read_config(name_or_path: str | os.PathLike[str], revision: str | None = None) -> ViTClsConfig:
    """The config of a checkpoint of any family. Of the weights only the headers are read, and of our own folders none.

    Raises CheckpointError as `from_pretrained` does.
    """
    with tempfile.TemporaryDirectory() as folder:
        fetch = HeaderFetch(Path(folder))
        find = partial(checkpoint_path, fetch=fetch)
        try:
            path = find(name_or_path, revision=revision)
            if adapter_folder(path) is None and not is_foreign(path):
                return own_config(read_json(config_file(path)))
            return open_with_base(path, find, read=read_headers).config
        except (CheckpointError, ConfigError) as error:
            raise CheckpointError(fetch.shown(str(error))) from error


def check_all(checkpoints: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[CheckReport]:
    """Check one checkpoint after the other, each a name and keywords for `check_pretrained`.

    An error that nobody expects becomes the problem of its checkpoint too, so that the others are checked.
    """
    for name, keywords in checkpoints:
        try:
            yield check_pretrained(name, **keywords)
        except Exception as error:
            yield CheckReport(name, problem=one_line(f"{type(error).__name__}: {error}"))


@contextmanager
def _warnings_into(notes: list[str]) -> Iterator[None]:
    """Append the package's warnings to `notes` instead of logging them."""

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.append(one_line(record.getMessage()))

    logger = logging.getLogger(__name__.partition(".")[0])
    notes_only: list[logging.Handler] = [Notes(logging.WARNING)]
    handlers, logger.handlers = logger.handlers, notes_only
    propagate, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagate


def _inspect(path: Path, find: Callable[..., Path], overrides: Mapping[str, Any], report: CheckReport) -> None:
    """Fill in a report by the steps of `from_pretrained`. Raises CheckpointError and ConfigError as it does."""
    source = open_with_base(path, find, overrides, read_headers)
    report.family = source.family.name
    module_class = FlaxViTClsForImageClassificationModule if has_head(source) else FlaxViTClsModule
    config = target_config(source, module_class, None, overrides)
    _describe(config, module_class, report)
    processor = read_processor(source, config)
    report.image_processor = _in_words(processor, config)
    loaded = plan_load(source, module_class(config))
    loaded.interpolated_keys += interpolated_in_calls(processor, config)
    loaded.config_notes += [*label_notes(source, None, overrides), *source.from_tensors]
    loaded.log(path)


def _describe(config: ViTClsConfig, module_class: type, report: CheckReport) -> None:
    """Fill in what the config tells."""
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    report.variant = variant_of(
        patch_size=config.patch_size, image_hw=config.image_hw, **{name: getattr(config, name) for name in sizes}
    )
    report.parameters = sum(leaf.size for leaf in parameter_shapes(module_class, config).values())
    report.image_size, report.patch_size, report.readout = config.image_hw, config.patch_size, config.readout
    if module_class is FlaxViTClsForImageClassificationModule:
        report.labels = [config.id2label[i] for i in range(config.num_classes)]  # pyright: ignore


def _in_words(processor: AnyProcessor, config: ViTClsConfig) -> str | None:
    """The steps of an image processor, or why it cannot be used."""
    if isinstance(processor, UnreadProcessor):
        return f"cannot be used: {processor.problem}"
    if processor is None and config.num_channels not in (1, 3):
        return None
    processor = processor or ViTClsImageProcessor.for_config(config)
    method = Image.Resampling(processor.resample).name.lower()
    steps = [
        f"resize to {_pixels(processor.size)} ({method})" if processor.do_resize else "",
        f"crop {_pixels(processor.crop_size)}" if processor.do_center_crop else "",
        f"multiply by {processor.rescale_factor:.4g}" if processor.do_rescale else "",
        f"normalise with mean {_numbers(processor.image_mean)} and std {_numbers(processor.image_std)}"
        if processor.do_normalize
        else "",
    ]
    return ", ".join(filter(None, steps))


def _pixels(size: dict[str, int]) -> str:
    """A size of an image processor: "224 x 224", or its fields in words."""
    if set(size) == {"height", "width"}:
        return f"{size['height']} x {size['width']}"
    return ", ".join(f"{name.replace('_', ' ')} {pixels}" for name, pixels in size.items())


def _numbers(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def _licence_in(path: Path) -> str | None:
    """The licence in the card of a folder, if it has a card that can be read."""
    try:
        return licence_of(ModelCard.load(config_file(path).with_name(CARD), ignore_metadata_errors=True).data)
    except Exception:  # a card may hold anything, and the weights load without it
        return None
