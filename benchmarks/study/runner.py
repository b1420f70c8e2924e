"""Running the study, one run after the other. Killed at any time, it goes on from the last checkpoint."""

import _thread
import threading
import time
from dataclasses import replace
from pathlib import Path

from modeling_vit_cls.training.run import run_recipe

from .measure import curve, readings, robustness
from .plan import Run, Study, StudyError
from .record import Record, compact


def run_all(study: Study, pattern: str = "*", minutes: float | None = None) -> None:
    """Run what matches a shell wildcard and is not done.

    After `minutes` the current update is finished and kept in a checkpoint. Where the training had ended, measuring
    goes on to its end.

    Raises StudyError for a pattern that matches nothing, for a run whose learning rate is not chosen yet, and for an
    outdated record; KeyboardInterrupt after Ctrl-C.
    """
    runs = study.runs(pattern)
    if not runs:
        raise StudyError(f"no run matches {pattern!r}; the list of them: python -m benchmarks.study list")
    end = None if minutes is None else time.monotonic() + 60 * minutes
    for run in runs:
        state = study.state(run)
        if state == "outdated":
            rule = f"remove it and {study.folder / run.name}, or restore the recipe"
            raise StudyError(f"the record of {run.name} is of another recipe or learning rate: {rule}")
        if state == "done":
            continue
        if end is not None and time.monotonic() >= end:
            break
        print(f"{run.name}: {state}, about {study.minutes(run):g} minutes", flush=True)
        if not _run(study, run, end):
            print(f"{run.name}: stopped, because the time is over; the same command goes on", flush=True)
            break


def _run(study: Study, run: Run, end: float | None) -> bool:
    """Train, measure, and write the record. Returns whether it ended before the time was over."""
    rate = study.rate(run)
    if rate is None:
        choosing = f"{run.recipe}-{run.model}-rate-*"
        raise StudyError(f"{run.name} has no learning rate yet: run those that choose it first, --only '{choosing}'")
    recipe = study.recipe(run, rate)
    over = threading.Event()

    def stop() -> None:
        over.set()
        _thread.interrupt_main()  # as Ctrl-C: the trainer finishes its update and writes a checkpoint

    timer = threading.Timer(0 if end is None else max(0, end - time.monotonic()), stop)
    timer.daemon = True
    try:
        if end is not None:
            timer.start()
        results = run_recipe(recipe, go_on="the same command")
    except KeyboardInterrupt:
        if over.is_set():
            return False
        raise
    finally:
        timer.cancel()
    folder = Path(recipe.training.output_dir)
    record = Record(compact(results, recipe), curve(folder))
    if run.rate is None:
        record = replace(record, readings=readings(folder, recipe), robustness=robustness(folder, recipe))
    study.write(run, record)
    print(f"{run.name}: done, accuracy {record.accuracy:.4f}", flush=True)
    return True
