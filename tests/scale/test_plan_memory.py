"""Plans beside XLA's memory analysis of the training step, on eight devices: 15 minutes of compiling."""

from pathlib import Path

import pytest
from children import on_devices


def test_plans_are_within_15_percent_of_xla():
    rows = on_devices(8, Path(__file__).with_name("plan_memory.py"), "--json")
    assert {(row["type"], row["recomputed"]) for row in rows} == {
        (dtype, recomputed) for dtype in ("float32", "bfloat16") for recomputed in (False, True)
    }
    for row in rows:
        assert row["state"] == pytest.approx(row["xla_state"], rel=0.001), row
        assert row["total"] == pytest.approx(row["xla_total"], rel=0.15), row
