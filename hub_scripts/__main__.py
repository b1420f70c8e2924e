"""`vit-cls VERB ...`, also `python -m hub_scripts VERB ...`: exit status 0, 1 (it failed, one line), 2 (arguments)."""

import argparse
import os
import sys

os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # transformers 5 misses PyTorch aloud; we do not

from . import benchmark, exchange, predict, push, train, variants, verify


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="vit-cls", description="Vision Transformers with a [CLS] token, for JAX users of Hugging Face."
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    train.add_parser(verbs)
    benchmark.add_parser(verbs)
    predict.add_parser(verbs)
    variants.add_parser(verbs)
    exchange.add_parsers(verbs)
    verify.add_parser(verbs)
    push.add_parser(verbs)
    chosen = parser.parse_args(arguments)
    try:
        chosen.run(chosen)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:  # of an extra that is not installed, too
        if chosen.debug:
            raise
        print(f"vit-cls: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
