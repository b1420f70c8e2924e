"""Markdown on the training of a model: data, number of steps, saved step, losses."""

from ..provenance import last_name
from .escape import markdown
from .facts import Facts
from .known_data import known_data
from .losses import loss_sentences


def training_paragraphs(facts: Facts) -> list[str]:
    """Paragraphs from trainer_state.json, the recipe and the record of the training, as far as they exist."""
    paragraphs = [
        [_data(facts), _left_out(facts)],
        [_length(facts), _weights(facts), *_method(facts), *loss_sentences(facts)],
    ]
    texts = [" ".join(filter(None, sentences)) for sentences in paragraphs]
    return [text for text in texts if text]


def _length(facts: Facts) -> str:
    parts = [f"{facts.state['global_step']:,} steps"] if facts.state.get("global_step") else []
    parts += [f"{facts.state['epoch']:g} epochs"] if facts.state.get("epoch") else []
    return f"Trained for {', '.join(parts)}." if parts else ""


def _data(facts: Facts) -> str:
    dataset = facts.training.dataset
    if not dataset.name:
        return ""
    name = dataset.hub_id or last_name(str(dataset.name))
    parts = [markdown(name) + (", a folder of the author's own" if dataset.source == "folder" else "")]
    parts += [f"split {markdown(dataset.split)}"] if dataset.split else []
    parts += [f"revision {markdown(dataset.revision)}"] if dataset.revision else []
    parts += [f"{dataset.examples:,} images"] if dataset.examples else []
    return f"Training data: {', '.join(parts)}. {known_data(dataset)}"


def _left_out(facts: Facts) -> str:
    count = facts.training.left_out
    return f"Images that could not be read, and were left out: {count:,}." if count else ""


def _weights(facts: Facts) -> str:
    """A sentence on the saved step, if it is the best one and not simply the last."""
    step, value = facts.state.get("best_global_step"), facts.state.get("best_metric")
    if not facts.recipe.get("load_best_model_at_end") or not step:
        return ""
    name = "eval_" + str(facts.recipe.get("metric_for_best_model", "loss")).removeprefix("eval_")
    how = f" ({value:.4f})" if isinstance(value, float) else ""
    return f"The weights are those of step {step:,}, the best of the run by {markdown(name)}{how}."


def _method(facts: Facts) -> list[str]:
    recipe, sentences = facts.recipe, []
    if recipe.get("ema_decay"):
        decay = markdown(recipe["ema_decay"])
        sentences.append(f"What was evaluated and saved is a moving average of the parameters (decay {decay}).")
    if recipe.get("freeze_backbone") and recipe.get("model_name_or_path"):
        sentences.append("The classifier alone was trained; the rest is that of the model it was fine-tuned from.")
    return sentences
