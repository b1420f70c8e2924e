"""`vit-cls VERB ...`, also `python -m hub_scripts VERB ...`: exit status 0, 1 (it failed, one line), 2 (arguments)."""

import argparse
import logging
import os
import sys

os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # transformers 5 misses PyTorch aloud; we do not

import jax
from huggingface_hub import cached_assets_path

from . import benchmark, exchange, predict, push, train, variants, verify


def _keep_compiled_programs() -> None:
    """Let JAX find what an earlier command compiled: under Hugging Face's assets, or where JAX is told to already."""
    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return
    try:
        folder = cached_assets_path("vit-cls", "compiled")
    except (OSError, ValueError) as error:
        logging.getLogger(__name__).warning("compiled programs are not kept: %s", error)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", 2**30)  # bytes; the least recently used goes first
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


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
    _keep_compiled_programs()
    try:
        chosen.run(chosen)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:  # of an extra that is not installed, too
        if chosen.debug:
            raise
        print(f"vit-cls: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        if not str(stopped):  # else it was said already what is kept
            print("vit-cls: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
