"""A hook of MkDocs: the catalogue as a table, where a page has `<!-- catalogue -->`."""

from typing import Any

from modeling_vit_cls.catalogue import CatalogueRow, list_pretrained

_PLACE = "<!-- catalogue -->"
_HEAD = (
    "| Hub id | family | variant | parameters | image | data | top-1 | licence |\n|---|---|---|---|---|---|---|---|\n"
)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The text of a page with the table in its place."""
    return markdown.replace(_PLACE, table(), 1) if _PLACE in markdown else markdown


def table() -> str:
    """The catalogue in Markdown."""
    return _HEAD + "".join(map(_line, list_pretrained()))


def _line(row: CatalogueRow) -> str:
    link = f"[{row.hub_id}](https://huggingface.co/{row.hub_id})"
    image = " x ".join(map(str, dict.fromkeys(row.image_size)))
    top1 = "" if row.top1 is None else f"{row.top1:.1f}"
    cells = (link, row.family, row.variant, f"{row.parameters:,}", image, row.data, top1, row.licence)
    return f"| {' | '.join(cells)} |\n"
