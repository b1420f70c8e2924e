"""Facts and pictures -> README.md, in a template; and both with the Hub's result file into the folder."""

import json
import logging
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..files.folder import replace_file
from ..files.ownership import is_our_card, pictures_of, signed
from ..install import how_to_install, needs
from ..modeling_vit_cls import FlaxViTClsForImageClassification
from ..names import ATTENTION, CARD, CONFUSION_MATRIX, EVAL_RESULTS, PICTURES, RECIPE, TRAINING_CURVE
from ..provenance import hub_id, is_hub_id, last_name
from .escape import cell, markdown
from .facts import Facts, read_facts
from .history import training_sentences
from .metadata import card_metadata, dataset_title, eval_results_yaml

try:
    from jinja2 import Environment, StrictUndefined
except ImportError as error:
    raise needs("jinja2", "to write model cards", "train") from error

_log = logging.getLogger(__name__)
_READOUTS = {
    "cls": "the [CLS] token",
    "mean": "the mean of the patches",
    "cls_mean": "the [CLS] token and the mean of the patches",
    "map": "an attention over all tokens",
}
_SPELT_OUT = {"nll": "negative log-likelihood (nll)", "ece": "expected calibration error (ece)"}


def render_card(folder: str | os.PathLike[str], repo_id: str | None = None) -> str:
    """The card of a trained folder as Markdown: what was measured, with the pictures that lie there, and no more.

    Where its README.md is ours already, these are the pictures that it shows. `repo_id` is what its example loads;
    default: the folder's name. Raises CheckpointError, naming the file, for a folder that holds no classifier, or
    results that cannot be read.
    """
    path = Path(folder)
    card = path / CARD
    known = pictures_of(card) if card.is_file() and is_our_card(card) else PICTURES
    return _render(read_facts(path, repo_id), [name for name in PICTURES if name in known and (path / name).is_file()])


def write_card(
    folder: str | os.PathLike[str],
    images: Sequence[Any] | None = None,
    repo_id: str | None = None,
    labels: Sequence[str] | None = None,
) -> None:
    """Write README.md, its pictures and the Hub's `.eval_results` into a trained folder.

    With images (paths, PIL images or arrays), up to 8 of them are drawn with what the model attends to; with the names
    of their true classes, `labels`, it is said whether the model is right. Without (None), the picture of the last card
    stays. Each file is the old one or the new one, README.md comes last, and what no longer holds goes after it. A
    README.md that somebody wrote or edited is left alone with all pictures, with a warning. Raises CheckpointError
    where nothing can be written.
    """
    path = Path(folder)
    facts = read_facts(path, repo_id)
    results = eval_results_yaml(facts)
    made: dict[str, bytes] = {} if results is None else {EVAL_RESULTS: results.encode()}
    outdated = {EVAL_RESULTS} - set(made)
    if not (path / CARD).exists() or is_our_card(path / CARD):
        before = {name for name in pictures_of(path / CARD) if (path / name).is_file()}
        made |= _pictures(path, facts, images, labels)
        kept = {ATTENTION} & before if images is None else set()
        made[CARD] = _render(facts, [name for name in PICTURES if name in made or name in kept]).encode()
        outdated |= before - kept - set(made)
    else:
        rule = "was not written by vit-cls, or edited since: it and the pictures are left as they are"
        _log.warning("%s: %s", path / CARD, rule)
    try:
        for name, content in made.items():
            replace_file(path / name, content)
        for name in outdated:
            (path / name).unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"{path}: its card cannot be written ({error})") from error


def card_to_push(folder: str | os.PathLike[str], repo_id: str) -> str | None:
    """A folder's card with the id under which it is pushed; None where there is none, or somebody's own."""
    file = Path(folder) / CARD
    return render_card(folder, repo_id) if file.is_file() and is_our_card(file) else None


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
        readout=_READOUTS[facts.config.readout],
        dataset=dataset_title(facts),
        circumstances=_circumstances(facts),
        spelt_out=_SPELT_OUT,
        training=training_sentences(facts),
        commands=_commands(facts),
        own_data=_own_data(facts),
        interval=_interval(facts.metrics.get("accuracy"), facts.dataset.get("examples")),
    )
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n\n"
    return signed(text)


def _python(text: str) -> str:
    """A text as Python code has it, in double quotes; what cannot be printed as an escape."""
    return "".join(
        letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in json.dumps(text, ensure_ascii=False)
    )


def _pictures(
    folder: Path, facts: Facts, images: Sequence[Any] | None, labels: Sequence[str] | None
) -> dict[str, bytes]:
    from . import pictures  # matplotlib takes a second to import, and rendering alone does not need it

    made: dict[str, bytes] = {}
    log = facts.state.get("log_history") or []
    if pictures.has_curve(log):
        made[TRAINING_CURVE] = pictures.training_curve(log)
    if facts.results.get("confusion_matrix"):
        made[CONFUSION_MATRIX] = pictures.confusion_matrix(facts.results["confusion_matrix"], facts.labels)
    if images is not None and len(images):
        model = FlaxViTClsForImageClassification.from_pretrained(folder)
        made[ATTENTION] = pictures.attention_maps(model, images, labels)
    return made


def _circumstances(facts: Facts) -> list[str]:
    """Under what conditions the numbers were measured, a line of Markdown each."""
    speed, machine = facts.results.get("throughput") or {}, facts.results.get("hardware") or {}
    lines: list[str] = []
    if "images_per_second" in speed:
        how = [f"batches of {speed['batch_size']}"] if "batch_size" in speed else []
        how += [markdown(speed["dtype"])] if "dtype" in speed else []
        how += [f"with {markdown(speed['includes'])}"] if "includes" in speed else []
        lines.append(", ".join([f"Speed: {speed['images_per_second']:,.0f} images per second", *how]))
    parts = [markdown(machine["processor"])] if machine.get("processor") else []
    parts += [f"{machine['cores']} cores"] if machine.get("cores") else []
    parts += [f"{count} x {markdown(name)}" for name, count in Counter(machine.get("accelerators") or []).items()]
    if parts:
        lines.append(f"Hardware: {', '.join(parts)}")
    if versions := facts.results.get("versions"):
        lines.append(f"Software: {', '.join(markdown(f'{name} {number}') for name, number in versions.items())}")
    return lines


def _commands(facts: Facts) -> list[str]:
    """What trains the model again, and what measures it; data that others do not have is not in it."""
    commands = [f"vit-cls train {RECIPE}"] if facts.recipe else []
    name, split = facts.dataset.get("name"), facts.dataset.get("split")
    if facts.metrics and split and (facts.dataset_id or name == "digits"):
        words = ["vit-cls", "benchmark", facts.name, "--dataset_name", str(name), "--split", str(split)]
        commands += [shlex.join(words)] if all(map(str.isprintable, words)) else []
    return commands


def _own_data(facts: Facts) -> str:
    """A sentence on the images that the recipe needs, where they are not known to be on the Hub; else empty."""
    data = facts.training.get("dataset") or facts.dataset
    name = str(data.get("name") or facts.recipe.get("dataset_name") or "")
    if not facts.recipe or not name or name == "digits" or hub_id(data):
        return ""
    shown, give = markdown(last_name(name)), "give yours by `--dataset_name FOLDER`"
    if data.get("source") == "folder" or not is_hub_id(name):
        return f"The images ({shown}) are a folder of the author's own and are not published: {give}."
    return f"It was not recorded whether the images ({shown}) are on the Hub; if not, {give}."


def _interval(share: float | None, count: int | None) -> tuple[float, float] | None:
    """Wilson's 95 % interval of a share of `count` independent trials, which is not empty where all were right."""
    if share is None or not count or not 0 <= share <= 1:
        return None
    from scipy.stats import binomtest  # half a second that what only renders no accuracy need not wait

    interval = binomtest(round(share * count), count).proportion_ci(0.95, "wilson")
    return float(interval.low), float(interval.high)
