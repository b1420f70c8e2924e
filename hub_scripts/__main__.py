"""`vit-cls VERB ...`, also `python -m hub_scripts VERB ...`.

Exit status: 0; 1 for an error, with one line on stderr; 2 for wrong arguments; as in shells, 130 after Ctrl-C and 141
if the reader of the output has closed it.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .verbs import command_line


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt after Ctrl-C at the end of the block, if code in it has suppressed the exception."""
    received: list[int] = []

    def interrupt(number: int, _: Any) -> None:
        received.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread() or (
        signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if received:
        raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit status."""
    try:
        with _interruptible():
            parsed = command_line().parse_args(arguments)  # `--help` and `--version` end here
            try:
                os.getcwd()
            except FileNotFoundError:  # the imports would fail
                print("vit-cls: the working folder was deleted: change to another one", file=sys.stderr)
                return 1
            from .command import run_command  # here, so that Ctrl-C during the import, which takes seconds, is caught

        return run_command(parsed)
    except KeyboardInterrupt as interrupt:
        if not str(interrupt):  # one with a message was reported already, with the checkpoint that was kept
            print("vit-cls: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
