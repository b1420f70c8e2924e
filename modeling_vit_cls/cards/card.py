"""Facts and pictures -> README.md, in a template; and both with the Hub's result file into the folder."""

import json
import logging
import math
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..checkpoints.folder import replace_file
from ..checkpoints.ownership import is_our_card, signed
from ..errors import CheckpointError
from ..modeling_vit_cls import FlaxViTClsForImageClassification
from ..names import ATTENTION, CARD, CONFUSION_MATRIX, EVAL_RESULTS, PICTURES, RECIPE, TRAINING_CURVE
from .facts import Facts, read_facts
from .metadata import card_metadata, dataset_title, eval_results_yaml

try:
    from jinja2 import Environment, StrictUndefined
except ImportError as error:
    raise ImportError("jinja2 is needed to write model cards: pip install 'vit-cls[train]'") from error

_log = logging.getLogger(__name__)
_READOUTS = {
    "cls": "the [CLS] token",
    "mean": "the mean of the patches",
    "cls_mean": "the [CLS] token and the mean of the patches",
    "map": "an attention over all tokens",
}


def render_card(folder: str | os.PathLike[str], repo_id: str | None = None) -> str:
    """The card of a trained folder as Markdown: what was measured, with the pictures that lie there, and no more.

    `repo_id` is what its example loads; default: the folder's name. Raises CheckpointError, naming the file, for a
    folder that holds no classifier, or results that cannot be read.
    """
    path = Path(folder)
    return _render(read_facts(path, repo_id), [name for name in PICTURES if (path / name).is_file()])


def write_card(folder: str | os.PathLike[str], images: Sequence[Any] | None = None, repo_id: str | None = None) -> None:
    """Write README.md, its pictures and the Hub's `.eval_results` into a trained folder.

    With images (paths, PIL images or arrays), up to 8 of them are drawn with what the model attends to. Each file is
    the old one or the new one, README.md comes last, and what no longer holds goes after it. A README.md that somebody
    wrote or edited is left alone, with a warning. Raises CheckpointError where nothing can be written.
    """
    path = Path(folder)
    facts = read_facts(path, repo_id)
    made: dict[str, bytes] = _pictures(path, facts, images)
    results = eval_results_yaml(facts)
    made |= {} if results is None else {EVAL_RESULTS: results.encode()}
    card = _render(facts, [name for name in PICTURES if name in made])
    if not (path / CARD).exists() or is_our_card(path / CARD):
        made[CARD] = card.encode()
    else:
        _log.warning("%s: was not written by vit-cls, or edited since: it is left as it is", path / CARD)
    try:
        for name, content in made.items():
            replace_file(path / name, content)
        for name in {*PICTURES, EVAL_RESULTS} - set(made):
            (path / name).unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"{path}: its card cannot be written ({error})") from error


def card_to_push(folder: str | os.PathLike[str], repo_id: str) -> str | None:
    """A folder's card with the id under which it is pushed; None where there is none, or somebody's own."""
    file = Path(folder) / CARD
    return render_card(folder, repo_id) if file.is_file() and is_our_card(file) else None


def _render(facts: Facts, pictures: Iterable[str]) -> str:
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"md": _markdown, "python": _python}
    template = environment.from_string(
        files("modeling_vit_cls.cards").joinpath("card.md.jinja").read_text(encoding="utf-8")
    )
    text = template.render(
        facts=facts,
        metadata=card_metadata(facts),
        pictures=pictures,
        readout=_READOUTS[facts.config.readout],
        dataset=dataset_title(facts),
        circumstances=_circumstances(facts),
        training=_training(facts),
        commands=_commands(facts),
        standard_error=_standard_error(facts),
    )
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n\n"
    return signed(text)


def _python(text: str) -> str:
    """A text as Python code has it, in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _pictures(folder: Path, facts: Facts, images: Sequence[Any] | None) -> dict[str, bytes]:
    from .. import pictures  # matplotlib takes a second to import, and rendering alone does not need it

    made: dict[str, bytes] = {}
    log = facts.state.get("log_history") or []
    if pictures.has_curve(log):
        made[TRAINING_CURVE] = pictures.training_curve(log)
    if facts.results.get("confusion_matrix"):
        made[CONFUSION_MATRIX] = pictures.confusion_matrix(facts.results["confusion_matrix"], facts.labels)
    if images is not None and len(images):
        model = FlaxViTClsForImageClassification.from_pretrained(folder)
        made[ATTENTION] = pictures.attention_maps(model, images)
    return made


def _circumstances(facts: Facts) -> list[str]:
    """Under what conditions the numbers were measured, a line each."""
    speed, machine = facts.results.get("throughput") or {}, facts.results.get("hardware") or {}
    lines: list[str] = []
    if "images_per_second" in speed:
        how = [f"batches of {speed['batch_size']}"] if "batch_size" in speed else []
        how += [str(speed["dtype"])] if "dtype" in speed else []
        how += [f"with {speed['includes']}"] if "includes" in speed else []
        lines.append(", ".join([f"Speed: {speed['images_per_second']:,.0f} images per second", *how]))
    parts = [machine["processor"]] if machine.get("processor") else []
    parts += [f"{machine['cores']} cores"] if machine.get("cores") else []
    parts += [f"{count} x {name}" for name, count in Counter(machine.get("accelerators") or []).items()]
    if parts:
        lines.append(f"Hardware: {', '.join(parts)}")
    if versions := facts.results.get("versions"):
        lines.append(f"Software: {', '.join(f'{name} {number}' for name, number in versions.items())}")
    return lines


def _training(facts: Facts) -> str:
    """One sentence from the trainer's state; empty where there is none."""
    parts = [f"{facts.state['global_step']:,} steps"] if facts.state.get("global_step") else []
    parts += [f"{facts.state['epoch']:g} epochs"] if facts.state.get("epoch") else []
    losses = [entry["loss"] for entry in facts.state.get("log_history") or [] if "loss" in entry]
    parts += [f"a training loss of {losses[-1]:.4f} at the end"] if losses else []
    return f"Trained for {', '.join(parts)}." if parts else ""


def _commands(facts: Facts) -> list[str]:
    """What trains the model again, and what measures it; data that others do not have is not in it."""
    commands = [f"vit-cls train {RECIPE}"] if facts.recipe else []
    name, split = facts.dataset.get("name"), facts.dataset.get("split")
    if facts.metrics and split and (facts.dataset_id or name == "digits"):
        words = ["vit-cls", "benchmark", facts.name, "--dataset_name", str(name), "--split", str(split)]
        commands += [shlex.join(words)] if all(map(str.isprintable, words)) else []
    return commands


def _standard_error(facts: Facts) -> float | None:
    """Of the accuracy, as of a share of independent trials."""
    share, count = facts.metrics.get("accuracy"), facts.dataset.get("examples")
    return math.sqrt(share * (1 - share) / count) if share is not None and count and 0 <= share <= 1 else None


def _markdown(text: Any) -> str:
    """Any text as one line of Markdown that reads as it is written, in a table too."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())
    return re.sub(r"([\\`*_\[\]<>|#~&$!{}])", r"\\\1", line)
