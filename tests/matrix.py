"""The matrix of faults: how many cases a run makes, and what came of each, for the table at the end of the run.

`make test` makes a test's own number of cases, `make soak` VIT_CLS_SOAK times as many, from other seeds.
"""

import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from modeling_vit_cls import BadImageError, CheckpointError, ConfigError

SOAK = int(os.environ.get("VIT_CLS_SOAK", "1"))
OURS = (CheckpointError, ConfigError, BadImageError)
SECONDS = 1.0  # the longest that a case may take


class Tally:
    """Outcomes of a test's cases, and the seconds of the slowest."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.slowest = 0.0

    def attempt(self, action: Callable[[], Any]) -> Any:
        """What `action` gives, or the error of ours that it raises; another error goes through, and a slow case fails."""
        start = time.perf_counter()
        try:
            return action()
        except OURS as error:
            return error
        finally:
            seconds = time.perf_counter() - start
            self.slowest = max(self.slowest, seconds)
            assert seconds < SECONDS, f"took {seconds:.1f} s"

    def note(self, outcome: str) -> None:
        """Count one case."""
        self.outcomes[outcome] += 1


def table(rows: list[tuple[str, dict[str, int], float]]) -> list[str]:
    """Lines of the table: a test's name, its cases, what came of them, seconds of the slowest."""
    lines = []
    for name, outcomes, slowest in sorted(rows):
        said = ", ".join(
            f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items(), key=lambda item: -item[1])
        )
        lines.append(f"{name}: {sum(outcomes.values()):,} cases: {said}; slowest {slowest:.3f} s")
    return lines
