"""Render a model card from a template, and write it with its pictures and the Hub's result file."""

import json
import logging
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, ConfigError
from ..files.folder import replace_file
from ..files.ownership import is_our_card, pictures_of, signed
from ..install import how_to_install, needs
from ..names import ATTENTION, CARD, CONFUSION_MATRIX, EVAL_RESULTS, PICTURES, RECIPE, TRAINING_CURVE
from ..provenance import BUILT_IN, is_hub_id, last_name
from .citation import citation
from .escape import cell, markdown
from .facts import Facts, read_facts
from .features import features_section
from .history import training_paragraphs
from .losses import changes_of_loss
from .metadata import card_metadata, dataset_title, eval_results_yaml

try:
    from jinja2 import Environment, StrictUndefined
except ImportError as error:
    raise needs("jinja2", "to write model cards", "train") from error

if TYPE_CHECKING:
    from ..modeling_vit_cls import FlaxViTClsForImageClassification

MAX_IMAGES = 12  # in the picture of attention maps
_log = logging.getLogger(__name__)
READOUT_WORDS = {
    "cls": "the [CLS] token",
    "cls_concat": "the [CLS] tokens in a row",
    "mean": "the mean of the patches",
    "cls_mean": "the [CLS] token and the mean of the patches",
    "map": "an attention over all tokens",
}
_COLUMNS = ("dataset_config_name", "image_column_name", "label_column_name")  # fields of a recipe, and of a benchmark
_SPELT_OUT = {"nll": "negative log-likelihood (nll)", "ece": "expected calibration error (ece)"}


def render_card(folder: str | os.PathLike[str], repo_id: str | None = None) -> str:
    """The card of a trained folder as Markdown, from its recorded results and the pictures in the folder.

    If its README.md was written by this package, the new card shows the same pictures. `repo_id` is the name that the
    card's example loads; default: the folder's name. Raises CheckpointError, naming the file, for a folder without a
    classifier and for results that cannot be read.
    """
    path = Path(folder)
    card = path / CARD
    names = pictures_of(card) if card.is_file() and is_our_card(card) else PICTURES
    return _render(read_facts(path, repo_id), [name for name in PICTURES if name in names and (path / name).is_file()])


def write_card(
    folder: str | os.PathLike[str],
    images: Sequence[Any] | None = None,
    repo_id: str | None = None,
    labels: Sequence[str] | None = None,
    *,
    model: "FlaxViTClsForImageClassification | None" = None,
) -> None:
    """Write README.md, its pictures and the Hub's `.eval_results` into a trained folder, all from one results.json.

    Each file is replaced in one step, README.md last; outdated pictures are removed after it. A README.md that
    somebody wrote or edited is kept: nothing is written, and a warning is logged.

    Args:
        folder: the trained folder.
        images: up to 12 images (paths, PIL images or arrays) to draw with the attention of `model`. None keeps the
            picture of the last card.
        repo_id: the name that the card's example loads; default: the folder's name.
        labels: true class names of the images; the picture then shows whether the model is right.
        model: the model that was saved in the folder. No model is loaded here.

    Raises ConfigError for images without a model, CheckpointError if a file cannot be written.
    """
    path, card = Path(folder), Path(folder) / CARD
    if images is not None and len(images) and model is None:
        rule = "is needed to draw images: pass the model that was saved in the folder, or no images"
        raise ConfigError("model", None, rule)
    facts = read_facts(path, repo_id)
    if card.exists() and not is_our_card(card):
        rule = "was not written by vit-cls, or edited since: it, its pictures and .eval_results are left as they are"
        _log.warning("%s: %s", card, rule)
        return
    attention = _last_attention(path) if images is None else _attention(model, images, labels)
    new_files, old_pictures = _files(facts, attention), pictures_of(card)
    try:
        for name, content in new_files.items():
            replace_file(path / name, content)
        for name in {EVAL_RESULTS, *old_pictures} - set(new_files):
            (path / name).unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"{path}: its card cannot be written ({error})") from error


def card_to_push(folder: str | os.PathLike[str], repo_id: str) -> dict[str, bytes | None]:
    """The files of a card to push: README.md for this `repo_id`, pictures and `.eval_results`, from one results.json.

    Returns contents by path; None for a file that must not be pushed with this card. The result is empty if the folder
    has no card, or one that somebody wrote or edited. Nothing is written.
    """
    path = Path(folder)
    if not ((path / CARD).is_file() and is_our_card(path / CARD)):
        return {}
    absent = dict.fromkeys((EVAL_RESULTS, *PICTURES))
    return absent | _files(read_facts(path, repo_id), _last_attention(path))


def _files(facts: Facts, attention: bytes | None) -> dict[str, bytes]:
    """Contents by path of `.eval_results`, the pictures and, last, the card that shows them."""
    from . import pictures  # imported here because matplotlib takes a second, and `render_card` does not need it

    results, log = eval_results_yaml(facts), facts.state.get("log_history") or []
    files = {} if results is None else {EVAL_RESULTS: results.encode()}
    if pictures.has_curve(log):
        files[TRAINING_CURVE] = pictures.training_curve(log, list(changes_of_loss(facts)))
    if facts.results.confusion_matrix:
        files[CONFUSION_MATRIX] = pictures.confusion_matrix(facts.results.confusion_matrix, facts.labels)
    if attention is not None:
        files[ATTENTION] = attention
    return files | {CARD: _render(facts, [name for name in PICTURES if name in files]).encode()}


def _last_attention(folder: Path) -> bytes | None:
    """The picture of attention maps that the card in a folder shows; None if it shows none."""
    file = folder / ATTENTION
    return file.read_bytes() if ATTENTION in pictures_of(folder / CARD) and file.is_file() else None


def _attention(model: Any, images: Sequence[Any], labels: Sequence[str] | None) -> bytes | None:
    from .pictures import attention_maps

    return attention_maps(model, images[:MAX_IMAGES], labels) if len(images) else None


def _render(facts: Facts, pictures: Iterable[str]) -> str:
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"md": markdown, "cell": cell, "python": _python}
    template = environment.from_string(
        files("modeling_vit_cls.cards").joinpath("card.md.jinja").read_text(encoding="utf-8")
    )
    text = template.render(
        facts=facts,
        install=how_to_install(),
        metadata=card_metadata(facts),
        pictures=pictures,
        readout=_readout(facts.config),
        dataset=dataset_title(facts),
        circumstances=_circumstances(facts),
        spelt_out=_SPELT_OUT,
        features=features_section(facts),
        training=training_paragraphs(facts),
        commands=_commands(facts),
        own_data=_own_data(facts),
        purpose=_purpose(facts),
        citation=citation(facts),
        interval=_interval(facts.metrics.get("accuracy"), facts.dataset.examples),
    )
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n\n"
    return signed(text)


def _readout(config: ViTClsConfig) -> str:
    """What a config's readout reads, in words."""
    words = READOUT_WORDS[config.readout]
    return words if config.num_cls_tokens == 1 else words.replace("the [CLS] token", "the mean of the [CLS] tokens")


def _python(text: str) -> str:
    """A text for a Python string in double quotes; characters that cannot be printed are escaped."""
    return "".join(
        letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in json.dumps(text, ensure_ascii=False)
    )


def _circumstances(facts: Facts) -> list[str]:
    """The conditions of the measurement in lines of Markdown: speed, hardware, software."""
    speed, machine = facts.results.throughput, facts.results.hardware
    lines: list[str] = []
    if speed.images_per_second is not None:
        conditions = [f"batches of {speed.batch_size}"] if speed.batch_size is not None else []
        conditions += [markdown(speed.dtype)] if speed.dtype is not None else []
        conditions += [f"with {markdown(speed.includes)}"] if speed.includes is not None else []
        lines.append(", ".join([f"Speed: {speed.images_per_second:,.0f} images per second", *conditions]))
    parts = [markdown(machine.processor)] if machine.processor else []
    parts += [f"{machine.cores} cores"] if machine.cores else []
    parts += [f"{count} x {markdown(name)}" for name, count in Counter(machine.accelerators or []).items()]
    if parts:
        lines.append(f"Hardware: {', '.join(parts)}")
    if versions := facts.results.versions:
        lines.append(f"Software: {', '.join(markdown(f'{name} {number}') for name, number in versions.items())}")
    return lines


def _commands(facts: Facts) -> list[str]:
    """The commands that train the model again and benchmark it; no benchmark on images that others do not have.

    These are also a share of a split, which training held out, and a sample of one.
    """
    commands = [f"vit-cls train {RECIPE}"] if facts.recipe else []
    name, split = facts.dataset.name, facts.dataset.split
    is_whole = split and "% of " not in split and not facts.recipe.get("max_eval_samples")
    if facts.metrics and is_whole and (facts.dataset.hub_id or name in BUILT_IN):
        words = ["vit-cls", "benchmark", facts.name, "--dataset_name", str(name), "--split", str(split)]
        options = {name: facts.recipe.get(name) for name in _COLUMNS}
        if facts.is_of_features:
            options |= {"method": facts.results.features.method, "train_split": facts.results.features.train.split}
        options["dataset_revision"] = facts.dataset.revision
        words += [word for name, value in options.items() if value for word in (f"--{name}", str(value))]
        commands += [shlex.join(words)] if all(map(str.isprintable, words)) else []
    return commands


def _purpose(facts: Facts) -> str:
    """The images that the model is for, in words: those of its training data."""
    data = facts.training.dataset if facts.training.dataset.name else facts.dataset
    name = data.hub_id or (last_name(str(data.name)) if data.name else "")
    return f"images like those of {markdown(name)}" if name else "images like those that it was trained on"


def _own_data(facts: Facts) -> str:
    """A sentence on the images that the recipe needs; empty if they are known to be public."""
    data = facts.training.dataset if facts.training.dataset.name else facts.dataset
    name = str(data.name or facts.recipe.get("dataset_name") or "")
    if not facts.recipe or not name or name in BUILT_IN or data.hub_id:
        return ""
    shown, give = markdown(last_name(name)), "give yours by `--dataset_name FOLDER`"
    if data.source == "folder" or not is_hub_id(name):
        return f"The images ({shown}) are a folder of the author's own and are not published: {give}."
    return f"It was not recorded whether the images ({shown}) are on the Hub; if not, {give}."


def _interval(share: float | None, count: int | None) -> tuple[float, float] | None:
    """Wilson's 95 % confidence interval of a share of `count` independent trials; also for a share of 0 or 1."""
    if share is None or not count or not 0 <= share <= 1:
        return None
    from scipy.stats import binomtest  # imported here because it takes half a second

    interval = binomtest(round(share * count), count).proportion_ci(0.95, "wilson")
    return float(interval.low), float(interval.high)
