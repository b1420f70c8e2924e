"""Pictures of a training and of a model, as PNG: curves, confusion matrix, attention. Same input, same bytes."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import numpy as np

from .modeling_vit_cls import FlaxViTClsForImageClassification
from .scores import function_of, scores_of

try:
    from matplotlib import style
    from matplotlib.figure import Figure
    from matplotlib.font_manager import findfont, get_font
except ImportError as error:
    raise ImportError("matplotlib is needed to draw pictures: pip install 'vit-cls[train]'") from error

# Okabe and Ito's colours, which the colour-blind can tell apart; dashes tell the lines apart in grey.
_LINES = [("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#CC79A7", ":"), ("#000000", "-"), ("#E69F00", "--")]
_MAP = "cividis"
_NO_METRIC = {"eval_loss", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}
_MOST_COUNTS, _MOST_NAMES = 20, 40  # classes up to which cells hold their counts, and axes the names
_MOST_IMAGES = 8


def has_curve(log_history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a trainer's log holds something to draw: a loss or a metric, at two steps or more."""
    return any(len(steps) > 1 for steps, _ in _series(log_history).values())


def training_curve(log_history: Sequence[Mapping[str, Any]]) -> bytes:
    """The log of a transformers TrainerState -> its losses and, beside them, its evaluation metrics, over steps."""
    series = _series(log_history)
    losses = {name: line for name, line in series.items() if name in ("loss", "eval_loss")}
    panels = [losses, {name: line for name, line in series.items() if name not in losses}]
    panels = [panel for panel in panels if panel]
    with _figure(5 * len(panels), 3.6) as (figure, file):
        for axes, lines in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels):
            for (name, (steps, values)), (colour, dashes) in zip(lines.items(), cycle(_LINES)):
                label = {"loss": "training", "eval_loss": "evaluation"}.get(name, name.removeprefix("eval_"))
                axes.plot(
                    steps, values, dashes, color=colour, label=_text(label), marker="." if len(steps) < 30 else ""
                )
            axes.set_xlabel("step")
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


def attention_maps(model: FlaxViTClsForImageClassification, images: Sequence[Any]) -> bytes:
    """Up to 8 images (path, PIL, array) -> each above what the last block attends to; the mean over its heads.

    Of a readout that reads [CLS], the attention of [CLS] to each patch; of the others, what each patch receives from
    the patches on average. Brighter is more, each map on its own scale.
    """
    c, processor = model.config, model.image_processor
    pixels = np.asarray(processor(list(images[:_MOST_IMAGES]))["pixel_values"])
    outputs = model(pixels, output_attentions=True, return_dict=True)
    attention = np.asarray(outputs.attentions[-1], np.float32).mean(axis=1)[:, :, c.num_prefix_tokens :]  # (B, T, N)
    reads_cls = c.readout in ("cls", "cls_mean")
    weights = attention[:, 0] if reads_cls else attention[:, c.num_prefix_tokens :].mean(axis=1)
    maps = weights.reshape(len(weights), pixels.shape[2] // c.patch_size, pixels.shape[3] // c.patch_size)
    scores = scores_of(outputs.logits, function_of(c))
    labels: Any = c.id2label
    shown = np.clip(_without_normalisation(pixels, processor), 0, 1)

    with _figure(max(1.7 * len(maps), 3.4), 4.2) as (figure, file):
        query = "from [CLS] to each patch" if reads_cls else "that each patch receives on average"
        figure.suptitle(f"Attention {query}: last layer, mean over heads", fontsize=9)
        for column, axes in enumerate(figure.subplots(2, len(maps), squeeze=False).T):
            best = int(scores[column].argmax())
            name = _text(_cut(labels[best], 16), f"class {best}")
            axes[0].set_title(f"{name} {scores[column, best]:.2f}", fontsize=8, parse_math=False)
            axes[0].imshow(shown[column], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes[1].imshow(maps[column], cmap=_MAP, interpolation="nearest")
            for each in axes:
                each.set_axis_off()
    return file.getvalue()


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


def _text(text: str, instead: str = "?") -> str:
    """A text on one line, or `instead` where the font has not all of its letters."""
    line = " ".join(str(text).split())
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
