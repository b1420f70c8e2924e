"""What the models saw, as HTML without scripts: the pictures are part of it, each with words for screen readers."""

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..errors import one_line
from ..pictures.figure import enlarged, overlaid
from ..pipelines import Prediction
from .seen import PageModel, Seen

if TYPE_CHECKING:
    from .neighbours import Neighbour  # which needs `datasets`

_SMALL = 128  # pixels; the edges of smaller pictures stay sharp when they are enlarged

CSS = """
.models { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 2rem; }
.models section { min-width: 0; }
.models h2, .models h3 { overflow-wrap: anywhere; margin: 0 0 .5rem; }
.models h2 { font-size: 1.25rem; font-weight: 700; }
.models h3 { font-size: 1rem; font-weight: 600; margin-top: 1.25rem; }
.models .remark { margin: 0 0 .75rem; border-left: 4px solid #D55E00; padding-left: .75rem; }
.models .tables { display: flex; flex-wrap: wrap; gap: 0 1rem; }
.models .pictures { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; max-width: 32rem; }
.models table { flex: 1 1 15rem; min-width: 0; max-width: 24rem; margin: 0 0 1rem; }
.models table { table-layout: fixed; border-collapse: collapse; }
.models caption { text-align: left; font-weight: 600; padding-bottom: .25rem; }
.models th, .models td { border: 0; padding: .2rem .5rem .2rem 0; text-align: left; font-weight: 400; }
.models th { overflow-wrap: anywhere; }
.models td { width: 9.5rem; white-space: nowrap; font-variant-numeric: tabular-nums; }
.models meter { width: 5rem; height: .75rem; margin-right: .5rem; }
.models figure { margin: 0; }
.models img { width: 100%; height: auto; border-radius: 4px; margin: 0; }
.models img.small { image-rendering: pixelated; }
.models figcaption { font-size: .875rem; margin-top: .25rem; }
.models ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(5.5rem, 1fr)); gap: .75rem; padding: 0; }
.models li { list-style: none; font-size: .875rem; margin: 0; overflow-wrap: anywhere; }
#status { min-height: 1.5rem; font-weight: 600; overflow-wrap: anywhere; }
"""


def sections(seen: Sequence[tuple[PageModel, Seen, "Sequence[Neighbour]"]]) -> str:
    """A section for each model: what it saw, and the nearest images of its embedded dataset, if it has one."""
    return f'<div class="models">{"".join(_section(*parts) for parts in seen)}</div>'


def summary(model: PageModel, seen: Seen) -> str:
    """The best class of one model in a sentence; what is missing where it has none."""
    name = escape(one_line(model.name))
    if not seen.scores:
        return f"{name}: no scores."
    line = f"{name}: {_best(seen.scores)} by the readout {seen.readout}"
    return f"{line}; {_best(seen.own_scores)} by its own, {model.own_readout}." if seen.own_scores else f"{line}."


def message(text: object) -> str:
    """Any text as HTML."""
    return escape(one_line(text))


def _best(scores: Sequence[Prediction]) -> str:
    return f"{escape(one_line(scores[0]['label']))} ({_number(scores[0]['score'])})"


def _section(model: PageModel, seen: Seen, neighbours: "Sequence[Neighbour]") -> str:
    remark = f'<p class="remark">{escape(seen.remark)}</p>' if seen.remark else ""
    tables = _table(seen.scores, f"Readout {seen.readout}") if seen.scores else ""
    tables += _table(seen.own_scores, f"Its own readout, {model.own_readout}") if seen.own_scores else ""
    nearest = ""
    if neighbours:
        items = "".join(map(_neighbour, neighbours))
        nearest = f"<h3>Nearest images, with cosine similarity</h3><ol>{items}</ol>"
    name = escape(one_line(model.name))
    return (
        f'<section aria-label="{name}"><h2>{name}</h2>{remark}<div class="tables">{tables}</div>'
        f'<div class="pictures">{_pictures(seen)}</div>{nearest}</section>'
    )


def _table(scores: Sequence[Prediction], caption: str) -> str:
    rows = "".join(_row(row["label"], row["score"]) for row in scores)
    return f"<table><caption>{escape(caption)}</caption><tbody>{rows}</tbody></table>"


def _row(label: str, score: float) -> str:
    bar = f'<meter min="0" max="1" value="{score!r}" aria-hidden="true"></meter>' if 0 <= score <= 1 else ""
    number = f'<data value="{score!r}">{_number(score)}</data>'
    return f'<tr><th scope="row">{escape(one_line(label))}</th><td>{bar}{number}</td></tr>'


def _number(score: float) -> str:
    return f"{score:.1%}" if 0 <= score <= 1 else f"{score:.4g}"


def _pictures(seen: Seen) -> str:
    shown = seen.image.repeat(3, axis=-1) if seen.image.shape[-1] == 1 else seen.image
    pictures = [_figure(shown, "The image as the model gets it")]
    if seen.attention is not None:
        pictures.append(_map(seen, seen.attention, f"Attention from {seen.source}: {seen.attention_of}"))
    pictures.append(_map(seen, seen.rollout, f"Attention rollout from {seen.source}, over all blocks"))
    pictures.append(_figure(enlarged(seen.colours, shown.shape[:2]), "Features: similar patches have similar colours"))
    return "".join(pictures)


def _map(seen: Seen, weights: np.ndarray, caption: str) -> str:
    """A map (h, w) over the image; the words for screen readers tell where it is largest."""
    row, column = np.unravel_index(weights.argmax(), weights.shape)
    where = f"largest in row {row + 1}, column {column + 1} of {weights.shape[0]} x {weights.shape[1]} patches"
    return _figure(overlaid(seen.image, weights), caption, f"{caption}: {where}")


def _figure(picture: np.ndarray, caption: str, words: str | None = None) -> str:
    """A picture (H, W, 3) of 0..1 with its caption, and with `words` instead of it for screen readers."""
    image = _image(Image.fromarray((picture * 255).round().astype(np.uint8)), words or caption)
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _neighbour(neighbour: "Neighbour") -> str:
    title = f"row {neighbour.row}" if neighbour.label is None else one_line(neighbour.label)
    picture = "<div>cannot be read any more</div>"
    if neighbour.image is not None:
        thumbnail = neighbour.image.copy()
        thumbnail.thumbnail((_SMALL, _SMALL))
        picture = _image(thumbnail, f"row {neighbour.row} of the dataset")
    return f"<li>{picture}{escape(title)}<br>{neighbour.similarity:.3f}</li>"


def _image(image: Image.Image, words: str) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    kind = ' class="small"' if max(image.size) < _SMALL else ""
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return f'<img{kind} src="{source}" alt="{escape(words)}">'
