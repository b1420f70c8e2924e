"""What every verb of the command line has: help, an example, `--json`, and the function that runs it."""

import argparse
from collections.abc import Callable
from typing import Any


def add_verb(
    verbs: Any, name: str, run: Callable[[argparse.Namespace], None], *, help: str, description: str, example: str
) -> argparse.ArgumentParser:
    """A new verb; the caller adds its own arguments to the parser that comes back."""
    parser = verbs.add_parser(name, help=help, description=description, epilog=f"example: vit-cls {example}")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.set_defaults(run=run)
    return parser
