"""`python -m benchmarks.study`: list the runs, run them in parts, and draw tables and curves from their records."""

import argparse
import sys

import jax

from .cost import measure_costs
from .plan import Study, StudyError
from .report import write_report
from .runner import run_all


def show(study: Study, pattern: str) -> None:
    """Print the state of each run, and the estimated time of those that are not done."""
    left = 0.0
    for run in study.runs(pattern):
        state, minutes = study.state(run), study.minutes(run)
        left += 0 if state == "done" else minutes
        print(f"{run.name:40} {state:9}{'' if state == 'done' else f'{minutes:6.1f} minutes'}")
    print(f"about {left / 60:.1f} hours are left on two quiet cores")


def keep_compiled_programs(study: Study) -> None:
    """Let JAX store compiled programs: the seeds of a model have the same."""
    jax.config.update("jax_compilation_cache_dir", str(study.folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def main() -> int:
    """Run one verb. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__)
    verbs = parser.add_subparsers(required=True, dest="verb")
    for name, text in (
        ("list", "state and estimated time of each run"),
        ("run", "run what is not done; of a complete recipe measure the costs"),
    ):
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("--only", default="*", metavar="PATTERN", help="shell wildcard of names: 'digits_*-cls-?'")
        verb.add_argument("--data_dir", help="folder of Fashion-MNIST's IDX files; default: of Debian's package")
    verb.add_argument("--minutes", type=float, help="stop after this time, with a checkpoint; default: at the end")
    verbs.add_parser("report", help="tables and curves from the records, into benchmarks/results/study")
    given = parser.parse_args()
    try:
        if given.verb == "report":
            print(write_report(Study()))
        elif given.verb == "list":
            show(Study(data_dir=given.data_dir), given.only)
        else:
            study = Study(data_dir=given.data_dir)
            keep_compiled_programs(study)
            run_all(study, given.only, given.minutes)
            measure_costs(study)
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
