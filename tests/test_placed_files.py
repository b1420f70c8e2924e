"""Checkpoints are read onto any mesh and saved from it: the same numbers, the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.world

TESTS = Path(__file__).parent


def test_on_eight_devices():
    """The tests of placed_files.py, in a process that has eight devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "placed_files.py"]
    result = subprocess.run(
        command, cwd=TESTS, env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-1000:]
