"""Run a verb: import its function, show warnings and errors in one line, keep compiled programs."""

import argparse
import logging
import os
import select
import sys
import warnings
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import jax
from huggingface_hub import cached_assets_path

from modeling_vit_cls.errors import one_line

from .messages import messages

# Errors that users can correct. An ImportError names the extra that is not installed.
_EXPECTED = (ValueError, OSError, ImportError, FloatingPointError)
_MAX_LENGTH = 2000  # characters of an error message


def run_command(arguments: argparse.Namespace) -> int:
    """Run the verb in the parsed arguments. Returns the exit status.

    It is 0; 1 after an error, with the message in one line on stderr; or 141, without a message, if the reader of the
    output has closed it, as `head` does.
    """
    if isinstance(sys.stdout, TextIOWrapper):  # None where it is closed
        sys.stdout.reconfigure(errors="backslashreplace")  # results are not lost for a name that cannot be encoded
    try:
        module, function = arguments.runs.split(":")
        with messages():
            _keep_compiled_programs()
            getattr(import_module(f".{module}", __package__), function)(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _output_is_closed():
            return 141
        if arguments.debug:
            raise
        message = str(error) if isinstance(error, _EXPECTED) else f"{type(error).__name__}: {error}"
        hint = "" if isinstance(error, _EXPECTED) else "; `vit-cls --debug ...` shows where"
        print(f"vit-cls: {one_line(message)[:_MAX_LENGTH]}{hint}", file=sys.stderr)
        return 1
    return 0


def _output_is_closed() -> bool:
    """Whether the reader of standard output has closed it. The rest of the output then goes to the null device."""
    try:
        output = sys.stdout.fileno()
    except OSError:  # standard output was replaced by an object that is no file
        return False
    if not hasattr(select, "poll"):  # on Windows a closed pipe cannot be recognised
        return False
    poll = select.poll()
    poll.register(output, 0)  # a closed pipe is reported for any event mask
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)  # Python flushes at exit, which would be another error
    return True


def _keep_compiled_programs() -> None:
    """Let JAX store compiled programs for later commands, in Hugging Face's cache unless a folder is configured."""
    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return
    try:
        folder = cached_assets_path("vit-cls", "compiled")
    except (OSError, ValueError) as error:
        logging.getLogger("modeling_vit_cls").warning("compiled programs are not kept: %s", error)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", 2**30)  # bytes; the least recently used are deleted first
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    _empty_if_damaged(folder)


def _empty_if_damaged(folder: Path) -> None:
    """Let a warning of JAX about a program in `folder` be one line, and delete the programs there: they are damaged.

    A process that is killed while it writes one leaves a part of it. JAX never replaces that, and warns each time.
    """
    show = warnings.showwarning

    def empty(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        if "persistent compilation cache entry" not in str(message):
            show(message, *args, **kwargs)
            return
        done = "are not kept"
        if "Timeout" not in str(message):  # of the lock: others use the folder
            try:
                for file in (*folder.glob("*-cache"), *folder.glob("*-atime")):
                    file.unlink(missing_ok=True)
                done = "were deleted, and are made anew"
            except OSError:  # no right to write there
                pass
        logging.getLogger("modeling_vit_cls").warning("compiled programs in %s %s: %s", folder, done, message)

    warnings.showwarning = empty
