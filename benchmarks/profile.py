"""Time of each operation in a step of this package, by XLA's trace: `python -m benchmarks.profile [WORK ...]`.

Matrix products are named by their `jnp.einsum` specification, other operations by JAX's names; a fusion has the name of
its last operation. Shares are of the seconds that all threads spent in operations. Without WORK, writes
results/profile.md.
"""

import argparse
import os
import re
import tempfile
from collections import Counter
from pathlib import Path

import jax

from .jax_peers import ours
from .report import write
from .speed import WORKS
from .work import Work

DEFAULT = ["B/16 float32, B=8", "training S/16 float32, B=16"]
SPEC = re.compile(r"/([a-z]+,[a-z]+->[a-z]+)/")
INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.-]+) = .*metadata=\{.*?op_name="([^"]*)"', re.MULTILINE)
LOOPS = ("while", "call", "conditional")  # the operations inside these are counted themselves
ROWS = 12  # further operations are summed up in one row


def operations(trace: Path, programs: Path) -> Counter[str]:
    """Seconds by operation in a trace, summed over all threads."""
    names: dict[str, str] = {}
    for file in programs.glob("*after_optimizations.txt"):
        names |= dict(INSTRUCTION.findall(file.read_text()))
    (file,) = trace.rglob("*.xplane.pb")
    seconds: Counter[str] = Counter()
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            for event in line.events:
                if event.name in names and not event.name.startswith(LOOPS):
                    spec = SPEC.search(names[event.name])
                    seconds[spec[1] if spec else names[event.name].split("/")[-1]] += event.duration_ns / 1e9
    return seconds


def table(name: str, work: Work, programs: Path) -> list[str]:
    """Lines of the table for one work."""
    step = ours(work)
    for file in programs.glob("*.txt"):  # those of the previous work
        file.unlink()
    step(2)
    with tempfile.TemporaryDirectory() as trace:
        with jax.profiler.trace(trace):
            step(1)
        seconds = operations(Path(trace), programs)
    top = seconds.most_common(ROWS)
    rows = [*top, ("others", seconds.total() - sum(item[1] for item in top))]
    head = f"{name}: {seconds.total():.2f} s in operations, over all threads\n\n| operation | share |\n|---|---|"
    return [head, *(f"| `{operation}` | {spent / seconds.total():.1%} |" for operation, spent in rows), ""]


def main() -> None:
    """Trace, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("works", nargs="*", help=f"of {', '.join(map(repr, WORKS))}; {DEFAULT} without")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as programs:
        os.environ["XLA_FLAGS"] = f"--xla_dump_to={programs} --xla_dump_hlo_as_text"
        lines: list[str] = []
        for name in arguments.works or DEFAULT:
            lines += table(name, WORKS[name][0], Path(programs))
    if arguments.works:
        print("\n".join(lines))
    else:
        write("profile", lines[:-1])


if __name__ == "__main__":
    main()
