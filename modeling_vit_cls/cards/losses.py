"""The two losses of a training: how that of training is computed, and that of evaluation, which is plain."""

import math
from typing import Any

from .escape import markdown
from .facts import Facts

# Fields of the recipe and of the config that change the training loss alone: words, and the value that changes nothing.
_OF_RECIPE = {
    "random_resized_crop_scale": ("random crops", 1),
    "horizontal_flip": ("mirrored images", False),
    "mixup_alpha": ("mixup", 0),
    "cutmix_alpha": ("CutMix", 0),
    "label_smoothing_factor": ("smoothed labels", 0),
}
_OF_CONFIG = {
    "hidden_dropout_prob": ("dropout", 0),
    "attention_probs_dropout_prob": ("dropout of attention", 0),
    "drop_path_rate": ("drop path", 0),
}


def changes_of_loss(facts: Facts) -> dict[str, float]:
    """What the training loss is computed with and the evaluation loss without: names and values."""
    changes: dict[str, float] = {}
    for table, fields in ((_OF_RECIPE, facts.recipe), (_OF_CONFIG, facts.config.to_dict())):
        for name, (words, idle) in table.items():
            value = fields.get(name, idle)
            if _is_number(value) and value != idle:
                changes[words] = value
    return changes


def loss_sentences(facts: Facts) -> list[str]:
    """Sentences of Markdown: the last value of each loss, and how it is computed; none if none was logged."""
    log = facts.state.get("log_history") or []
    last: dict[str, float] = {name: entry[name] for entry in log for name in entry if _is_number(entry[name])}
    training, evaluation = last.get("loss", last.get("train_loss")), last.get("eval_loss")
    if training is None and evaluation is None:
        return []
    sentences, changes = [], changes_of_loss(facts)
    if training is not None:
        when = "at the end" if "loss" in last else "on average over the run"
        words = [words if value is True else f"{words} ({value:g})" for words, value in changes.items()]
        how = f" It is computed with {', '.join(words)}." if words else " It is the plain cross-entropy."
        sentences.append(f"Training loss: {training:.4f} {when}.{how}")
        if floor := _smallest(facts):
            sentences.append(f"With smoothed labels it cannot fall below {floor:.4f}.")
    if evaluation is not None:
        how = "without these" if changes and training is not None else "also the plain cross-entropy"
        sentences.append(f"Evaluation loss: {evaluation:.4f} at the end, {how}{_held_out(facts)}.")
        if changes and training is not None:
            sentences.append("So the two losses cannot be compared.")
    return sentences


def _smallest(facts: Facts) -> float:
    """The smallest cross-entropy with smoothed labels: their entropy, in nats. 0 if they are not smoothed."""
    smoothing, classes = facts.recipe.get("label_smoothing_factor", 0), facts.config.num_classes
    if not _is_number(smoothing) or not 0 < smoothing < 1:
        return 0.0
    rest = smoothing / classes
    shares = [1 - smoothing + rest] + [rest] * (classes - 1)
    return -sum(share * math.log(share) for share in shares)


def _held_out(facts: Facts) -> str:
    """The images of evaluation during the training, if the recipe tells."""
    recipe, train = facts.recipe, facts.training.dataset.split
    if recipe.get("eval_split"):
        return f", on split {markdown(recipe['eval_split'])}"
    if not train or not recipe:
        return ""
    share = recipe.get("train_val_split")
    part = f"{share * 100:g} %" if isinstance(share, float) else "a part"
    return f", on {part} of split {markdown(train)} that was held out"


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number or a truth value."""
    return isinstance(value, int | float) and math.isfinite(value)
