"""Tables and curves of the study, from its records. What is not complete is named, and nothing is said of it."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean, median

from modeling_vit_cls.files.folder import replace_file

from .cost import read_costs
from .curves import draw_curves
from .measure import CHANGED_IMAGES
from .plan import Run, Study
from .record import Record
from .statistics import difference, spread

Measure = Callable[[Record], float | None]

_INTRODUCTION = """\
Mean ± standard deviation over the seeds. Below it stands the difference from {reference} with its 95 % interval:
differences are paired by seed, and the interval is Student's t. With {seeds} seeds it is wide. A difference
whose interval contains zero is "within the noise". It is the noise of training: the test images are the same for
all, and others would give other accuracies. Of twenty other intervals about one leaves out zero by chance, and
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
    """The part of a recipe: machine, learning rates, tables, curves, costs."""
    records = {model: _records(study, recipe, model) for model in study.fields["models"]}
    present = [record for rows in records.values() for record in rows if record is not None]
    if not present:
        return [f"## {recipe}", "", "No run is done."]
    lines = [f"## {recipe}", "", _conditions(present), "", *_rates(study, recipe)]
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
    lines += _costs(study, recipe)
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
    text = f"{fmean(values):.4f} ± {spread(values):.4f}"
    others = None if reference is None else _values([record for record in reference if record is not None], measure)
    if others is None or len(others) < len(values):
        return text
    of_pairs = difference(values, others, resolution)
    numbers = f"{of_pairs.mean:+.4f} from {of_pairs.low:+.4f} to {of_pairs.high:+.4f}"
    return f"{text}<br>{numbers}: {of_pairs.verdict}"


def _values(records: Iterable[Record], measure: Measure) -> list[float] | None:
    """A measure of each record; None if one does not have it."""
    values = [measure(record) for record in records]
    return None if None in values else [value for value in values if value is not None]


def _missing(study: Study) -> list[str]:
    """How many runs of each recipe have no record of the present recipe."""
    runs = study.runs()
    missing = Counter(run.recipe for run in runs if study.record(run) is None)
    if not missing:
        return [f"All {len(runs)} runs are done."]
    parts = ", ".join(f"{count} of {recipe}" for recipe, count in missing.items())
    return [f"{missing.total()} of {len(runs)} runs are missing, and nothing is said of them: {parts}."]


def _rates(study: Study, recipe: str) -> list[str]:
    """A table of the held-out losses by which each model's learning rate was chosen."""
    values = study.fields["recipes"][recipe]["rates"]
    lines = ["**Loss on held-out images after a short run, by learning rate**", ""]
    lines += [f"| model | {' | '.join(f'{rate:g}' for rate in values)} | chosen |", "|---" * (2 + len(values)) + "|"]
    for model in study.fields["models"]:
        chosen = study.chosen_rate(recipe, model)
        losses = [record and f"{record.held_out_loss:.3f}" for record in study.rates(recipe, model).values()]
        at_edge = ", at an edge" if chosen in (min(values), max(values)) else ""
        choice = "not yet" if chosen is None else f"{chosen:g}{at_edge}"
        lines.append(f"| {model} | {' | '.join(loss or '-' for loss in losses)} | {choice} |")
    return [*lines, ""]


def _costs(study: Study, recipe: str) -> list[str]:
    """What an update of each model costs: the median of some rounds, and the ratio to the reference by round."""
    measured = read_costs(study, recipe)
    if measured is None:
        return []
    machine, costs = measured
    reference = costs[_reference(study)]
    lines = [f"**Processor time of an update, reading of images included** ({machine})", ""]
    lines += [
        f"| model | ms, median of {len(reference)} rounds | of {_reference(study)}'s, lowest to highest |",
        "|---|---|---|",
    ]
    for model, rounds in costs.items():
        ratios = [one / other for one, other in zip(rounds, reference)]
        lines.append(
            f"| {model} | {median(rounds):.1f} | {median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f} |"
        )
    return [*lines, ""]


def _conditions(records: Sequence[Record]) -> str:
    """Updates, images, machines, versions, dates and loads of the records."""
    recipe = records[0].results.recipe or {}
    updates, batch = recipe["max_steps"], records[0].results.training.batch_size or 0
    budget = f"{updates:,} updates of {batch} images, {records[0].results.dataset.examples:,} test images."
    machines = dict.fromkeys(_cores(record) for record in records)
    versions = dict.fromkeys(", ".join(f"{n} {v}" for n, v in r.results.versions.items()) for r in records)
    dates = sorted({record.results.date or "" for record in records})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"{budget} Measured {when} on {' and '.join(machines)}; {'; '.join(versions)}."


def _cores(record: Record) -> str:
    cores, processor = record.results.hardware.cores, record.results.hardware.processor
    return f"{cores} core{'' if cores == 1 else 's'} of {processor}"


def _records(study: Study, recipe: str, model: str) -> list[Record | None]:
    """The records of a model, one for each seed; None where a run is missing."""
    return [study.record(Run(recipe, model, seed)) for seed in study.fields["seeds"]]


def _reference(study: Study) -> str:
    """The model that others are compared with."""
    return next(iter(study.fields["models"]))
