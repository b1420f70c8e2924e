"""How a verb runs, and how it ends."""

import argparse
import logging
import os
import select
import sys
from importlib import import_module

import jax
from huggingface_hub import cached_assets_path

from modeling_vit_cls.errors import one_line

from .messages import messages

# What the library raises for what users can mend; an ImportError names the extra that is not installed.
_EXPECTED = (ValueError, OSError, ImportError, FloatingPointError)
_LONGEST = 2000  # letters of an error


def run_command(arguments: argparse.Namespace) -> int:
    """Run the verb that `command_line()` has read: 0, or 1 where it failed and one line on stderr says why.

    141 where what reads the output has closed it, as `head` does: nothing is said then.
    """
    _keep_compiled_programs()
    try:
        module, function = arguments.runs.split(":")
        with messages():
            getattr(import_module(f".{module}", __package__), function)(arguments)
        sys.stdout.flush()
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _output_is_closed():
            return 141
        if arguments.debug:
            raise
        message = str(error) if isinstance(error, _EXPECTED) else f"{type(error).__name__}: {error}"
        hint = "" if isinstance(error, _EXPECTED) else "; `vit-cls --debug ...` shows where"
        print(f"vit-cls: {one_line(message)[:_LONGEST]}{hint}", file=sys.stderr)
        return 1
    return 0


def _output_is_closed() -> bool:
    """Whether nobody reads what is printed; what is left of it is thrown away then."""
    try:
        output = sys.stdout.fileno()
    except OSError:  # of a program that keeps it for itself
        return False
    if not hasattr(select, "poll"):  # Windows, where nothing else tells: an error like any other
        return False
    poll = select.poll()
    poll.register(output, 0)  # the end of a pipe that nobody reads is reported unasked
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)  # else Python complains when it ends
    return True


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
