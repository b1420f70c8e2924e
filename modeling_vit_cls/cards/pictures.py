"""Pictures of a training and of a model, as PNG: curves, confusion matrix, attention. Same input, same bytes."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..config_rules import READOUTS_OF_CLS
from ..errors import one_line
from ..install import needs
from ..modeling_vit_cls import FlaxViTClsForImageClassification, FlaxViTClsModel
from ..scores import function_of, scores_of

try:
    from matplotlib import colormaps, style
    from matplotlib.figure import Figure
    from matplotlib.font_manager import findfont, get_font
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise needs("matplotlib", "to draw pictures", "train") from error

# Okabe and Ito's colours, which the colour-blind can tell apart; dashes tell the lines apart in grey.
_TRAINING, _EVALUATION = ("#0072B2", "-"), ("#D55E00", "--")  # of the losses, in every picture
_METRICS = [("#009E73", "-."), ("#CC79A7", ":"), ("#000000", "-"), ("#E69F00", "--"), ("#56B4E9", "-")]
_RIGHT, _WRONG = "#009E73", "#D55E00"
_MAP = "cividis"
_NO_METRIC = {"eval_loss", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}
_MOST_COUNTS, _MOST_NAMES = 20, 40  # classes up to which cells hold their counts, and axes the names
_MOST_IMAGES = 8
_SHARE_OF_MAP = 0.65  # of a pixel's colour, where a map lies over its image


def has_curve(log_history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a trainer's log holds something to draw: a loss or a metric, at two steps or more."""
    return any(len(steps) > 1 for steps, _ in _series(log_history).values())


def training_curve(log_history: Sequence[Mapping[str, Any]]) -> bytes:
    """The log of a transformers TrainerState -> its losses and, beside them, its evaluation metrics, over steps.

    Where the loss was logged once or never, as in a short run, the mean of the run is drawn across it.
    """
    series = _series(log_history)
    losses = {name: line for name, line in series.items() if name in ("loss", "eval_loss")}
    by_name = sorted(series, key=lambda name: (name != "eval_accuracy", name))  # a metric keeps its colour
    metrics = {name: series[name] for name in by_name if name not in losses}
    mean = _mean_loss(log_history) if len(series.get("loss", ((), ()))[0]) < 2 else None
    panels = [panel for panel in (losses, metrics) if panel or (mean is not None and panel is losses)]
    with _figure(5 * len(panels), 3.6) as (figure, file):
        for axes, lines in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels):
            for number, (name, (steps, values)) in enumerate(lines.items()):
                known = {"loss": ("training", *_TRAINING), "eval_loss": ("evaluation", *_EVALUATION)}
                other = (name.removeprefix("eval_"), *_METRICS[number % len(_METRICS)])
                label, colour, dashes = known.get(name, other)
                marker = "." if len(steps) < 30 else ""
                axes.plot(steps, values, dashes, color=colour, label=f" {_text(label)}", marker=marker)
            if mean is not None and lines is losses:
                axes.axhline(mean, color=_TRAINING[0], linestyle=":", label="training, mean of the run")
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_ylabel("loss" if lines is losses else "evaluation metrics")
            axes.grid(alpha=0.3)
            for text in axes.legend().get_texts():
                text.set_parse_math(False)
    return file.getvalue()


def confusion_matrix(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> bytes:
    """Counts (K, K), rows the true class and columns the predicted, and the classes' names -> coloured by row share."""
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.45 * len(counts), 3.6, 9))
    with _figure(side + 1.6, side + 0.6) as (figure, file):
        axes = figure.subplots()
        image = axes.imshow(shares, cmap=_MAP, vmin=0, vmax=1, interpolation="nearest")
        figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        if len(counts) <= _MOST_NAMES:
            names = [_text(_cut(label), f"class {i}") for i, label in enumerate(labels)]
            axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
            axes.set_yticks(range(len(names)), names, parse_math=False)
        if len(counts) <= _MOST_COUNTS:
            for (row, column), count in np.ndenumerate(counts):
                colour = "black" if shares[row, column] > 0.5 else "white"
                axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=8)
    return file.getvalue()


def attention_maps(
    model: FlaxViTClsForImageClassification | FlaxViTClsModel,
    images: Sequence[Any],
    labels: Sequence[str] | None = None,
) -> bytes:
    """Up to 8 images (path, PIL, array) -> each above what the last block attends to, laid over it; mean over heads.

    Of a readout that reads [CLS], the attention of [CLS] to each patch; of the others, what each patch receives from
    the patches on average. Brighter is more, each map on its own scale. A classifier's images have the best label;
    `labels` are the names of the true classes: with them, each title says whether the model is right.
    """
    names: Any = model.config.id2label
    reads_cls = model.config.readout in READOUTS_OF_CLS
    read = [
        _attention(model, image, reads_cls) for image in images[:_MOST_IMAGES]
    ]  # each alone: their sizes may differ

    with _figure(max(1.7 * len(read), 3.4), 4.4) as (figure, file):
        query = "from [CLS] to each patch" if reads_cls else "that each patch receives on average"
        figure.suptitle(f"Attention {query}: last layer, mean over heads", fontsize=9)
        for number, axes in enumerate(figure.subplots(2, len(read), squeeze=False).T):
            shown, weights, best, score = read[number]
            if best is not None:
                title, colour = f"{_name(names[best], best)} {score:.2f}", "black"
                if labels is not None:
                    right = str(labels[number]) == str(names[best])
                    title += "\nright" if right else f"\nwrong: is {_name(labels[number])}"
                    colour = _RIGHT if right else _WRONG
                axes[0].set_title(title, fontsize=8, color=colour, parse_math=False)
            axes[0].imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes[1].imshow(_overlaid(shown, weights), interpolation="nearest")
            for each in axes:
                each.set_axis_off()
    return file.getvalue()


def _attention(model: Any, image: Any, reads_cls: bool) -> tuple[np.ndarray, np.ndarray, int | None, float]:
    """An image as the model sees it (H, W, C), its attention (h, w), its best class and score; a backbone has none."""
    c, processor = model.config, model.image_processor
    pixels = np.asarray(processor([image])["pixel_values"])
    size = {"interpolate_pos_encoding": model.interpolates(processor)}
    outputs = model(pixels, output_attentions=True, return_dict=True, **size)
    attention = np.asarray(outputs.attentions[-1], np.float32)[0].mean(axis=0)[:, c.num_prefix_tokens :]  # (T, N)
    weights = attention[0] if reads_cls else attention[c.num_prefix_tokens :].mean(axis=0)
    shown = np.clip(_without_normalisation(pixels, processor), 0, 1)[0]
    logits = getattr(outputs, "logits", None)
    best, score = None, 0.0
    if logits is not None:
        scores = scores_of(logits, function_of(c))[0]
        best, score = int(scores.argmax()), float(scores.max())
    return shown, weights.reshape(pixels.shape[2] // c.patch_size, -1), best, score


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, io.BytesIO]]:
    """A figure of this size in inches, drawn into the file when the block ends; the user's settings are left out."""
    file = io.BytesIO()
    with style.context("default"):
        figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
        yield figure, file
        figure.savefig(file, format="png", metadata={"Software": None})  # else it would name the version


def _series(log_history: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """Steps and values of each loss and metric of a log."""
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
    """The mean training loss that a run logged at its end."""
    means = [entry["train_loss"] for entry in log_history if "train_loss" in entry]
    return means[-1] if means and isinstance(means[-1], int | float) and math.isfinite(means[-1]) else None


def _overlaid(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A map (h, w), on its own scale, in colours over the grey image (H, W, C) of 0..1 -> (H, W, 3)."""
    heat = colormaps[_MAP]((weights - weights.min()) / max(float(np.ptp(weights)), 1e-12))[..., :3]
    rows, columns = (np.arange(size) * cells // size for size, cells in zip(image.shape, weights.shape))
    grey = image.mean(axis=-1, keepdims=True)
    return _SHARE_OF_MAP * heat[np.ix_(rows, columns)] + (1 - _SHARE_OF_MAP) * grey


def _name(label: Any, number: int | None = None) -> str:
    """A class's name as a title has room for it."""
    return _text(_cut(str(label), 16), "?" if number is None else f"class {number}")


def _text(text: str, instead: str = "?") -> str:
    """A text on one line, or `instead` where the font has not all of its letters."""
    line = one_line(text)
    letters = get_font(findfont("DejaVu Sans")).get_charmap()
    return line if line and all(ord(letter) in letters for letter in line) else instead


def _cut(text: str, limit: int = 24) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _without_normalisation(pixels: np.ndarray, processor: Any) -> np.ndarray:
    """pixel_values (B, C, H, W) -> images (B, H, W, C) of 0..1, as the model sees them."""
    images = pixels.transpose(0, 2, 3, 1)
    if processor.do_normalize:
        images = images * np.asarray(processor.image_std) + np.asarray(processor.image_mean)
    return images if processor.do_rescale else images / 255
