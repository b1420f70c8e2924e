"""`vit-cls check ID|FOLDER`: would a checkpoint load, and as what, without downloading its weights."""

import argparse
import json
import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from tqdm.auto import tqdm

from modeling_vit_cls import CheckpointError, check_pretrained, list_pretrained
from modeling_vit_cls.errors import one_line
from modeling_vit_cls.pretrained.check import CheckReport, check_all


def run(arguments: argparse.Namespace) -> None:
    """Check one checkpoint, or all of the catalogue, and print what they are. CheckpointError if one does not load."""
    if arguments.catalogue:
        run_all([(row.hub_id, row.keywords) for row in list_pretrained()], arguments.json)
        return
    report = check_pretrained(arguments.checkpoint, revision=arguments.revision, subfolder=arguments.subfolder)
    print(json.dumps(report.to_dict(), indent=2) if arguments.json else _lines(report))
    if report.problem:
        raise CheckpointError(report.problem)


def run_all(checkpoints: Collection[tuple[str, Mapping[str, Any]]], as_json: bool) -> None:
    """Check all checkpoints and print a table in Markdown, or JSON. Raises CheckpointError if one does not load."""
    reports = []
    with tqdm(
        total=len(checkpoints), unit="checkpoint", disable=None
    ) as bar:  # None: a progress bar in a terminal only
        for report in check_all(checkpoints):
            reports.append(report)
            bar.update()
            if report.problem:
                tqdm.write(f"vit-cls: {report.problem}", file=sys.stderr)
    print(json.dumps([report.to_dict() for report in reports], indent=2) if as_json else table(reports))
    problems, unknown = (sum(report.loads is state for report in reports) for state in (False, None))
    if problems or unknown:
        not_asked = f", and of {unknown} the Hub told nothing" if unknown else ""
        raise CheckpointError(f"{problems} of {len(reports)} checkpoints do not load{not_asked}")


def table(reports: Iterable[CheckReport]) -> str:
    """The reports as a table in Markdown, one row for each checkpoint."""
    rows = [{"checkpoint": f"`{one_line(report.name)}`", **_facts(report)} for report in reports]
    columns = list(rows[0]) if rows else []
    cells = [columns, ["---"] * len(columns), *(row.values() for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in cells)


def _lines(report: CheckReport) -> str:
    """A report as lines of a name and a fact, without the problem, which is the error."""
    rows = [(name, fact) for name, fact in _facts(report).items() if fact and name != "problem"]
    rows = [("checkpoint", report.name), *rows, *(("note", note) for note in report.notes)]
    if report.bytes_read is not None:
        rows.append(("read", f"{_megabytes(report.bytes_read)} of the weight files, their headers"))
    return "\n".join(f"{name:<17}{fact}" for name, fact in rows)


def _facts(report: CheckReport) -> dict[str, str]:
    """What a report tells, in words; "" for what is not known."""
    image = report.image_size and f"{report.image_size[0]} x {report.image_size[1]}, patches of {report.patch_size}"
    facts = {
        "loads": {True: "yes", False: "no", None: "not known"}[report.loads],
        "family": report.family or "",
        "variant": report.variant or "",
        "parameters": "" if report.parameters is None else f"{report.parameters:,}",
        "download": "" if report.download_size is None else _megabytes(report.download_size),
        "image": image or "",
        "image processor": report.image_processor or "",
        "readout": report.readout or "",
        "head": "" if report.labels is None else _head(report.labels),
        "licence": report.licence or "",
        "problem": report.problem or "",
    }
    return {name: one_line(fact) for name, fact in facts.items()}


def _head(labels: list[str]) -> str:
    """The number of classes and the names of the first ones."""
    return f"{len(labels):,} classes: {', '.join(labels[:3])}{', ...' if len(labels) > 3 else ''}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
