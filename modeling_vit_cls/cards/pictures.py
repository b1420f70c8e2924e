"""Pictures for a card, as PNG: training curves, confusion matrix, attention maps. Equal input gives equal bytes."""

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np

from ..config_rules import READOUTS_OF_CLS
from ..errors import one_line
from ..install import needs
from ..modeling_vit_cls import FlaxViTClsForImageClassification, FlaxViTClsModel
from ..pictures.figure import COLOURS, figure_file, overlaid
from ..pictures.view import as_seen
from ..scores import function_of, scores_of

try:
    from matplotlib.font_manager import findfont, get_font
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise needs("matplotlib", "to draw pictures", "train") from error

# Okabe and Ito's colours, which colour-blind readers can distinguish; dashes distinguish the lines in grey.
_TRAINING, _EVALUATION = ("#0072B2", "-"), ("#D55E00", "--")  # colour and dashes of the two losses
_METRICS = [("#009E73", "-."), ("#CC79A7", ":"), ("#000000", "-"), ("#E69F00", "--"), ("#56B4E9", "-")]
_RIGHT, _WRONG = "#009E73", "#D55E00"
_NO_METRIC = {"eval_loss", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}
_MAX_CLASSES_WITH_COUNTS, _MAX_CLASSES_WITH_NAMES = 20, 40  # in a confusion matrix
_COLUMNS = 6  # images side by side


def has_curve(log_history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a trainer's log has something to draw: a loss or a metric at some step."""
    return bool(_series(log_history))


def training_curve(log_history: Sequence[Mapping[str, Any]], changes: Sequence[str] = ()) -> bytes:
    """Draw the losses and the evaluation metrics of a transformers TrainerState's log over steps.

    `changes` names what the training loss is computed with and the evaluation loss without, for the legend. If the
    training loss was logged less than twice, as in a short run, the mean of the run is drawn as a line.
    """
    how = "\n" + fill(f"({', '.join(changes)})", 42) if changes else ""
    names = {"loss": f"training{how}", "eval_loss": "evaluation" + ("\n(without these)" if changes else "")}
    series = _series(log_history)
    losses = {name: series[name] for name in ("loss", "eval_loss") if name in series}
    by_name = sorted(series, key=lambda name: (name != "eval_accuracy", name))  # the same order gives the same colours
    metrics = {name: series[name] for name in by_name if name not in losses}
    mean = _mean_loss(log_history) if len(series.get("loss", ((), ()))[0]) < 2 else None
    panels = [panel for panel in (losses, metrics) if panel or (mean is not None and panel is losses)]
    with figure_file(5 * len(panels), 3.6) as (figure, file):
        for axes, lines in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels):
            if mean is not None and lines is losses:
                axes.axhline(mean, color=_TRAINING[0], linestyle=":", label=f"training, mean of the run{how}")
            for number, (name, (steps, values)) in enumerate(lines.items()):
                loss_styles = {"loss": _TRAINING, "eval_loss": _EVALUATION}
                colour, dashes = loss_styles.get(name, _METRICS[number % len(_METRICS)])
                label = names[name] if name in names else _text(name.removeprefix("eval_"))
                marker = "o" if len(steps) == 1 else "." if len(steps) < 30 else ""
                axes.plot(steps, values, dashes, color=colour, label=f" {label}", marker=marker)
            axes.set_xlabel("step")
            axes.set_xlim(left=0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_ylabel("loss" if lines is losses else "evaluation metrics")
            axes.grid(alpha=0.3)
            for text in axes.legend().get_texts():
                text.set_parse_math(False)
    return file.getvalue()


def confusion_matrix(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> bytes:
    """Draw a confusion matrix: counts (K, K), a row for each true class, coloured by their share of the row."""
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.45 * len(counts), 3.6, 9))
    with figure_file(side + 1.6, side + 0.6) as (figure, file):
        axes = figure.subplots()
        image = axes.imshow(shares, cmap=COLOURS, vmin=0, vmax=1, interpolation="nearest")
        figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        if len(counts) <= _MAX_CLASSES_WITH_NAMES:
            names = [_text(_cut(label), f"class {i}") for i, label in enumerate(labels)]
            axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
            axes.set_yticks(range(len(names)), names, parse_math=False)
        if len(counts) <= _MAX_CLASSES_WITH_COUNTS:
            for (row, column), count in np.ndenumerate(counts):
                colour = "black" if shares[row, column] > 0.5 else "white"
                axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=8)
    return file.getvalue()


def attention_maps(
    model: FlaxViTClsForImageClassification | FlaxViTClsModel,
    images: Sequence[Any],
    labels: Sequence[str] | None = None,
) -> bytes:
    """Draw images (path, PIL, array), six in a row, and below each the attention map of the last block over it.

    The map is the mean over heads: for readouts with [CLS] the attention from [CLS] to each patch, for the others the
    attention that each patch receives from all patches on average. Brighter is more; each map has its own scale. A
    classifier's images are titled with the predicted label. With `labels`, the names of the true classes, the title
    also tells whether it is right.
    """
    names: Any = model.config.id2label
    reads_cls = model.config.readout in READOUTS_OF_CLS
    # one call per image, because their sizes may differ
    results = [_attention(model, image, reads_cls) for image in images]

    rows = -(-len(results) // _COLUMNS)
    columns = -(-len(results) // rows)
    with figure_file(max(1.7 * columns, 3.4), 0.4 + 3.7 * rows) as (figure, file):
        query = "from [CLS] to each patch" if reads_cls else "that each patch receives on average"
        figure.suptitle(f"Attention {query}: last layer, mean over heads", fontsize=9)
        grid = figure.subplots(2 * rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for number, (picture, weights, best, score) in enumerate(results):
            row, column = divmod(number, columns)
            above, below = grid[2 * row, column], grid[2 * row + 1, column]
            if best is not None:
                title, colour = f"{_name(names[best], best)} ({score:.2f})", "black"
                if labels is not None:
                    is_right = str(labels[number]) == str(names[best])
                    title += "\nright" if is_right else f"\nwrong: is {_name(labels[number])}"
                    colour = _RIGHT if is_right else _WRONG
                above.set_title(title, fontsize=8, color=colour, parse_math=False)
            above.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            below.imshow(overlaid(picture, weights), interpolation="nearest")
    return file.getvalue()


def _attention(model: Any, image: Any, reads_cls: bool) -> tuple[np.ndarray, np.ndarray, int | None, float]:
    """An image as the model sees it (H, W, C), its attention map (h, w), and its best class and score if it has any."""
    c, processor = model.config, model.image_processor
    pixels = np.asarray(processor([image])["pixel_values"])
    size = {"interpolate_pos_encoding": model.interpolates(processor)}
    outputs = model(pixels, output_attentions=True, return_dict=True, **size)
    attention = np.asarray(outputs.attentions[-1], np.float32)[0].mean(axis=0)[:, c.num_prefix_tokens :]  # (T, N)
    queries = attention[: c.num_cls_tokens] if reads_cls else attention[c.num_prefix_tokens :]
    weights = queries.mean(axis=0)
    picture = as_seen(pixels, processor)[0]
    logits = getattr(outputs, "logits", None)
    best, score = None, 0.0
    if logits is not None:
        scores = scores_of(logits, function_of(c))[0]
        best, score = int(scores.argmax()), float(scores.max())
    return picture, weights.reshape(pixels.shape[2] // c.patch_size, -1), best, score


def _series(log_history: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """Steps and values of each loss and metric in a log."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for entry in log_history:
        for name, value in entry.items():
            wanted = name in ("loss", "eval_loss") or (name.startswith("eval_") and name not in _NO_METRIC)
            if wanted and isinstance(value, int | float) and math.isfinite(value) and "step" in entry:
                steps, values = series.setdefault(name, ([], []))
                steps.append(entry["step"])
                values.append(value)
    return series


def _mean_loss(log_history: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean training loss, which a run logs at its end; None if it is not there."""
    means = [entry["train_loss"] for entry in log_history if "train_loss" in entry]
    return means[-1] if means and isinstance(means[-1], int | float) and math.isfinite(means[-1]) else None


def _name(label: Any, number: int | None = None) -> str:
    """A class name, cut to the width of a title."""
    return _text(_cut(str(label), 16), "?" if number is None else f"class {number}")


def _text(text: str, instead: str = "?") -> str:
    """A text in one line, or `instead` if the font does not have all of its letters."""
    line = one_line(text)
    letters = get_font(findfont("DejaVu Sans")).get_charmap()
    return line if line and all(ord(letter) in letters for letter in line) else instead


def _cut(text: str, limit: int = 24) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
