"""What the processes of one run check and tell each other, besides the arrays on their devices."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import __version__, processes
from .binding import LOCAL, Run
from .run_folder import check_shared

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "grain", "numpy", "transformers")


def check_same_run(run: Run, output_dir: Path, checkpoint: Path | None) -> None:
    """Check that all processes do the same with the same data and versions, and share one `output_dir`.

    Raises ConfigError in all of them, with the first fact that differs and both values.
    """
    if processes.count() == 1:
        return
    facts: dict[str, Any] = {"version of vit-cls": __version__}
    facts |= {f"version of {name}": version(name) for name in _PACKAGES}
    facts |= {name: value for name, value in run["arguments"].items() if name not in LOCAL}
    facts |= run["config"] | {f"processing_class.{name}": value for name, value in run["processor"].items()}
    facts |= {name: run[name] for name in ("class_names", "total_steps")}
    for dataset in ("train_dataset", "eval_dataset"):
        facts |= {f"{dataset}.{name}": value for name, value in (run[dataset] or {}).items()}
    facts["resume_from_checkpoint"] = None if checkpoint is None else checkpoint.name
    processes.agree({name: json.dumps(value) for name, value in facts.items()})
    check_shared(output_dir)


def shared_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics of process 0, in all processes: their times differ, and those of a user may."""
    return json.loads(processes.from_first(json.dumps(metrics)))
