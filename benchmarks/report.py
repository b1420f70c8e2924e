"""Description of the machine, peak memory, and the files of results, for all benchmarks."""

import datetime
import os
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
NO_CARD = "no GPU"
PACKAGES = ("jax", "flax", "transformers", "safetensors", "torch", "timm", "jax-image-models", "torchax")


def machine() -> str:
    """The machine of a measurement: processor, graphics card and driver, versions, date."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), "unknown processor")
    flags = next((line for line in info if line.startswith("flags")), "").split()
    units = [unit for unit in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if unit in flags]
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"no {name}")
    cores = len(os.sched_getaffinity(0))
    parts = [f"{cores} cores of {model} ({', '.join(units)})", card(), ", ".join(versions), str(datetime.date.today())]
    return "; ".join(parts)


def card() -> str:
    """The graphics cards and their driver, from nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return NO_CARD
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return " and ".join(subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines())


def write(name: str, lines: list[str]) -> None:
    """Print lines of Markdown, and write them with the description of the machine to results/NAME.md."""
    text = "\n".join([machine(), "", *lines])
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text + "\n")


def peak_memory() -> int:
    """Peak memory of this process in bytes (largest resident set)."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])
