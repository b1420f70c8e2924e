"""The matrix of faults: how many cases a run makes, and what came of each, for the table at the end of the run.

`make test` makes a test's own number of cases, `make soak` VIT_CLS_SOAK times as many.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from modeling_vit_cls import BadImageError, CheckpointError, ConfigError

SOAK = int(os.environ.get("VIT_CLS_SOAK", "1"))
OURS = (CheckpointError, ConfigError, BadImageError)
_UNITS = 24  # the most that a case may take: as much of the processor as counting to ten million, so many times


@cache
def _unit() -> float:
    """Processor seconds of counting to ten million: what makes a bound that of work, on a machine of any speed."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        sum(range(10_000_000))
        seconds.append(time.process_time() - start)
    return min(seconds)


@contextmanager
def bounded(units: float = _UNITS) -> Iterator[list[float]]:
    """Fail if the block takes more of the processor than `units`; the list has its processor seconds afterwards."""
    unit, taken, start = _unit(), list[float](), time.process_time()
    try:
        yield taken
    finally:
        taken.append(time.process_time() - start)
        assert taken[0] < units * unit, f"took {taken[0]:.1f} s of the processor, at most {units * unit:.1f}"


class Tally:
    """Outcomes of a test's cases, and the processor seconds of the slowest."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.slowest = 0.0

    def attempt(self, action: Callable[[], Any]) -> Any:
        """What `action` gives, or the error of ours that it raises; other errors go through, slow cases fail."""
        with bounded() as taken:
            try:
                found = action()
            except OURS as error:
                found = error
        self.slowest = max(self.slowest, *taken)
        return found

    def note(self, outcome: str) -> None:
        """Count one case."""
        self.outcomes[outcome] += 1


def table(rows: list[tuple[str, dict[str, int], float]]) -> list[str]:
    """The table in Markdown: a test's name, its cases, their outcomes, processor seconds of the slowest case."""
    lines = ["| test | cases | outcomes | slowest, s |", "|---|---|---|---|"]
    for test in sorted({name.split("[")[0] for name, _, _ in rows}):
        mine = [row for row in rows if row[0].split("[")[0] == test]
        outcomes = sum((Counter(outcomes) for _, outcomes, _ in mine), Counter())
        counts = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common())
        lines.append(f"| {test} | {outcomes.total():,} | {counts} | {max(row[2] for row in mine):.2f} |")
    return lines
