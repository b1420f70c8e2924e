"""How to cite a model and this package, as BibTeX; the package by its CITATION.cff."""

import re
from pathlib import Path

from ..files.yaml_text import parse_yaml
from ..names import is_repo_id
from .facts import Facts


def citation(facts: Facts) -> str:
    """BibTeX of the model, with its address if its name is an id on the Hub, and of the package.

    The year of the model is that of its results, and the version of the package is the one that measured it.
    """
    year = re.match(r"\d{4}(?=-)", str(facts.results.date))
    model = {
        "title": f"{_plain(facts.name)}, a Vision Transformer for image classification",
        "year": year[0] if year else "",
        "url": f"https://huggingface.co/{facts.name}" if is_repo_id(facts.name) else "",
    }
    key = re.sub(r"[^A-Za-z0-9]+", "_", facts.name).strip("_")
    return "\n\n".join([_entry("misc", key or "model", model), *_package(facts)])


def _package(facts: Facts) -> list[str]:
    """The entry of this package, from CITATION.cff: inside it if it was installed from a wheel, else beside it."""
    package = Path(__file__).parents[1]
    files = [file for folder in (package, package.parent) if (file := folder / "CITATION.cff").is_file()]
    if not files:  # a copy of the source code alone
        return []
    cff = parse_yaml(files[0].read_text(encoding="utf-8"))
    fields = {
        "title": f"{{{cff['title']}}}",
        "author": " and ".join(f"{{{author['name']}}}" for author in cff["authors"]),
        "version": _plain(facts.results.versions.get("vit-cls", cff["version"])),
    }
    return [_entry("software", "vit_cls", fields)]


def _entry(kind: str, key: str, fields: dict[str, str]) -> str:
    lines = [f"  {name} = {{{text}}}" for name, text in fields.items() if text]
    return "\n".join([f"@{kind}{{{key},", ",\n".join(lines), "}"])


def _plain(text: object) -> str:
    """A text without the characters that mean something in BibTeX, TeX or Markdown."""
    return " ".join(re.sub(r"[^\w ./:+-]", " ", str(text)).split()) or "unnamed"
