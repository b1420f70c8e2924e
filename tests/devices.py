"""Programs in a process of their own, in which the CPU counts as several devices."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"


def on_devices(count: int, program: str | Path, *arguments: Any) -> Any:
    """Run a program, a file or Python text, on `count` virtual devices. Returns the JSON that it prints last."""
    how = [str(program)] if isinstance(program, Path) else ["-c", program]
    flags = f"{FLAGS} --xla_force_host_platform_device_count={count}"
    folders = [str(Path(__file__).parent), *sys.path]
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    command = [sys.executable, *how, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr[-4000:]}"
    return json.loads(done.stdout.splitlines()[-1])
