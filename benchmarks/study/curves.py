"""Learning curves as a PNG file."""

from pathlib import Path

import numpy as np

from modeling_vit_cls.files.folder import replace_file
from modeling_vit_cls.pictures.figure import figure_file

_STYLES = ("-", "--", "-.", ":", (0, (3, 1, 1, 1, 1, 1)))


def draw_curves(file: Path, curves: dict[str, list[list[list[float]]]]) -> None:
    """Draw the accuracy on held-out images for each model: the mean of its curves, and their range as a band."""
    with figure_file(7, 4.5) as (figure, png):
        axes = figure.subplots()
        for number, (model, runs) in enumerate(curves.items()):
            rows = np.asarray(runs)
            updates, accuracies = rows[0, :, 0], rows[:, :, 3]
            (line,) = axes.plot(updates, accuracies.mean(axis=0), label=model, linestyle=_STYLES[number % len(_STYLES)])
            low, high = accuracies.min(axis=0), accuracies.max(axis=0)
            axes.fill_between(updates, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        axes.set(xlabel="updates", ylabel="accuracy on held-out images")
        axes.legend()
    replace_file(file, png.getvalue())
