"""The part of a card on features that were evaluated without training: the method, and a table of readouts."""

from .escape import cell, markdown
from .facts import Facts

_METHODS = {
    "knn": "a vote of the nearest features among",
    "retrieval": "a search for images of the same class among",
    "probe": "a logistic regression on the features of",
}


def features_section(facts: Facts) -> list[str]:
    """Lines of Markdown; none if a classifier was measured that was trained as a whole."""
    features, own = facts.results.features, facts.results.model.readout
    if not features.method:
        return []
    method, train = _METHODS.get(features.method, markdown(features.method)), features.train
    images = f"{train.examples:,} images" if train.examples else "images"
    what = f"{method} {images}" + (f" of split {markdown(train.split)}" if train.split else "")
    strength = "" if features.c is None else f" (C = {features.c:.3g}, chosen on held-out images)"
    if facts.is_of_features:
        sentence = f"These numbers are not of the model's own classifier, but of {what}{strength}"
    else:
        sentence = f"The classifier is {what}{strength}; the rest of the model was not trained"
    lines = [f"{sentence}. The readout is {markdown(own)}." if own else f"{sentence}."]
    rows = features.readouts or {}
    if len(rows) > 1:
        names = list(next(iter(rows.values())))
        lines += ["", "The same by other readouts:", ""]
        lines += [f"| readout | {' | '.join(map(cell, names))} |", "|---" * (len(names) + 1) + "|"]
        for readout, metrics in rows.items():
            numbers = [f"{metrics[name]:.4f}" if isinstance(metrics.get(name), float | int) else "" for name in names]
            lines.append(f"| {' | '.join([cell(readout), *numbers])} |")
    return lines
