"""The matrix of faults: how many cases a run makes, and what came of each, for the table at the end of the run.

`make test` makes a test's own number of cases, `make soak` VIT_CLS_SOAK times as many.
"""

import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from modeling_vit_cls import BadImageError, CheckpointError, ConfigError

SOAK = int(os.environ.get("VIT_CLS_SOAK", "1"))
OURS = (CheckpointError, ConfigError, BadImageError)
SECONDS = 1.0  # the longest that a case may take, by the clock or of processor time


class Tally:
    """Outcomes of a test's cases, and the seconds of the slowest."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.slowest = 0.0

    def attempt(self, action: Callable[[], Any]) -> Any:
        """What `action` gives, or the error of ours that it raises; other errors go through, slow cases fail."""
        start = time.perf_counter(), time.process_time()
        try:
            return action()
        except OURS as error:
            return error
        finally:
            # The lesser: a busy machine slows the clock, and threads that share a case's work add up.
            seconds = min(time.perf_counter() - start[0], time.process_time() - start[1])
            self.slowest = max(self.slowest, seconds)
            assert seconds < SECONDS, f"took {seconds:.1f} s"

    def note(self, outcome: str) -> None:
        """Count one case."""
        self.outcomes[outcome] += 1


def table(rows: list[tuple[str, dict[str, int], float]]) -> list[str]:
    """Lines of the table: a test's name, its cases, what came of them, seconds of the slowest."""
    lines = []
    for test in sorted({name.split("[")[0] for name, _, _ in rows}):
        mine = [row for row in rows if row[0].split("[")[0] == test]
        outcomes = sum((Counter(outcomes) for _, outcomes, _ in mine), Counter())
        said = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common())
        lines.append(f"{test}: {outcomes.total():,} cases: {said}; slowest {max(row[2] for row in mine):.2f} s")
    return lines
