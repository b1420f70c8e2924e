"""Tables and curves of the study, from its records. What is not complete is named, and nothing is said of it."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean

from modeling_vit_cls.files.folder import replace_file

from .curves import draw_curves
from .measure import CHANGED_IMAGES
from .plan import Run, Study
from .record import Record
from .statistics import difference, spread

Measure = Callable[[Record], float | None]

_INTRODUCTION = """\
Mean ± standard deviation over the seeds. After it, in brackets, stands the difference from {reference} with its 95 %
interval: differences are paired by seed, and the interval is Student's t. With {seeds} seeds it is wide. A difference
whose interval contains zero is "within the noise". Of twenty other intervals about one leaves out zero by chance, and
the tables have many."""


def write_report(study: Study) -> Path:
    """Write study.md and a figure of the learning curves of each complete recipe. Returns the path of study.md."""
    study.records.mkdir(parents=True, exist_ok=True)
    lines = ["# The readout study", "", *_missing(study), ""]
    lines += [_INTRODUCTION.format(reference=_reference(study), seeds=len(study.fields["seeds"]))]
    for recipe in study.fields["recipes"]:
        lines += ["", *_recipe(study, recipe)]
    file = study.records / "study.md"
    replace_file(file, ("\n".join(lines) + "\n").encode())
    return file


def _recipe(study: Study, recipe: str) -> list[str]:
    """The part of a recipe: learning rate, machine, tables, curves."""
    records = {model: _records(study, recipe, model) for model in study.fields["models"]}
    present = [record for rows in records.values() for record in rows if record is not None]
    lines = [f"## {recipe}", "", _rate(study, recipe), ""]
    if not present:
        return [*lines, "No run is done."]
    lines += [_conditions(present), ""]
    images = present[0].results.dataset.examples or 1
    lines += _table(study, records, "Accuracy on test images", {"accuracy": lambda record: record.accuracy}, 1 / images)
    readings = dict.fromkeys(name for record in present for name in record.readings)
    lines += _table(
        study,
        records,
        "Read otherwise: the trained classifier on another readout, and a linear probe",
        {name: lambda record, name=name: record.readings.get(name) for name in readings},
        1 / images,
    )
    changes = dict.fromkeys(name for record in present for name in record.robustness)
    lines += _table(
        study,
        records,
        "Accuracy on a sample of the test images, changed",
        {name: lambda record, name=name: record.robustness.get(name) for name in changes},
        1 / min(images, CHANGED_IMAGES),
    )
    lines += _table(study, records, "Milliseconds of an update", {"ms": lambda record: record.update_ms}, 0)
    complete = {model: rows for model, rows in records.items() if None not in rows}
    if len(complete) == len(records):
        draw_curves(
            study.records / f"{recipe}.png", {model: [r.curve for r in rows if r] for model, rows in complete.items()}
        )
        lines += [f"![Accuracy on held-out images during training, mean and range over the seeds]({recipe}.png)"]
    return lines


def _table(
    study: Study, records: dict[str, list[Record | None]], title: str, measures: dict[str, Measure], resolution: float
) -> list[str]:
    """A table with a row for each model and a column for each measure. For `resolution` see `difference`."""
    lines = [f"**{title}**", "", f"| model | {' | '.join(measures)} |", "|---" * (1 + len(measures)) + "|"]
    for model, rows in records.items():
        reference = None if model == _reference(study) else records[_reference(study)]
        cells = [_cell(rows, reference, measure, resolution) for measure in measures.values()]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return [*lines, ""]


def _cell(rows: list[Record | None], reference: list[Record | None] | None, measure: Measure, resolution: float) -> str:
    """Mean ± standard deviation of a measure, and its difference from the reference."""
    done = [record for record in rows if record is not None]
    if len(done) < len(rows):
        return f"{len(done)} of {len(rows)} runs"
    values = _values(done, measure)
    if values is None:
        return "-"
    digits = 4 if resolution else 1  # accuracies, or milliseconds
    text = f"{fmean(values):.{digits}f} ± {spread(values):.{digits}f}"
    others = None if reference is None else _values([record for record in reference if record is not None], measure)
    if others is None or len(others) < len(values):
        return text
    of_pairs = difference(values, others, resolution)
    numbers = f"{of_pairs.mean:+.{digits}f} from {of_pairs.low:+.{digits}f} to {of_pairs.high:+.{digits}f}"
    return f"{text} ({numbers}: {of_pairs.verdict})"


def _values(records: Iterable[Record], measure: Measure) -> list[float] | None:
    """A measure of each record; None if one does not have it."""
    values = [measure(record) for record in records]
    return None if None in values else [value for value in values if value is not None]


def _missing(study: Study) -> list[str]:
    """Which runs have no record of the present recipe."""
    runs = study.runs()
    missing = [run.name for run in runs if study.record(run) is None]
    if not missing:
        return [f"All {len(runs)} runs are done."]
    return [f"{len(missing)} of {len(runs)} runs are missing, and nothing is said of them: {', '.join(missing)}."]


def _rate(study: Study, recipe: str) -> str:
    """Which learning rate was chosen, and from which."""
    rate, rates = study.chosen_rate(recipe), study.rates(recipe)
    if rate is None:
        return "The learning rate is not chosen yet."
    losses = ", ".join(f"{rate:g}: {record.held_out_loss:.3f}" for rate, record in rates.items() if record)
    model = study.fields["rates"]["model"]
    at_edge = " It is at an edge of those that were tried." if rate in (min(rates), max(rates)) else ""
    return f"Learning rate {rate:g}, of the lowest loss of {model} on held-out training images ({losses}).{at_edge}"


def _conditions(records: Sequence[Record]) -> str:
    """Updates, images, machines, versions, dates and loads of the records."""
    recipe = records[0].results.recipe or {}
    updates, batch = recipe["max_steps"], records[0].results.training.batch_size or 0
    budget = f"{updates:,} updates of {batch} images, {records[0].results.dataset.examples:,} test images."
    machines = dict.fromkeys(f"{r.results.hardware.cores} cores of {r.results.hardware.processor}" for r in records)
    versions = dict.fromkeys(", ".join(f"{n} {v}" for n, v in r.results.versions.items()) for r in records)
    dates = sorted({record.results.date or "" for record in records})
    loads = [record.load for record in records if record.load is not None]
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    busy = f"load average {min(loads):.1f} to {max(loads):.1f} before updates were timed"
    return f"{budget} Measured {when} on {' and '.join(machines)}; {'; '.join(versions)}; {busy}."


def _records(study: Study, recipe: str, model: str) -> list[Record | None]:
    """The records of a model, one for each seed; None where a run is missing."""
    return [study.record(Run(recipe, model, seed)) for seed in study.fields["seeds"]]


def _reference(study: Study) -> str:
    """The model that others are compared with."""
    return next(iter(study.fields["models"]))
